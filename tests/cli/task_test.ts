import { assertEquals, assertMatch } from "@std/assert";
import { ask, HAS_SCRIPT, startInTerminal, Subprocess, unlessLate } from "../kit/command.ts";

const NO_TERMINAL = HAS_SCRIPT ? "" : " (skipped: util-linux's script is missing)";
const CTRL_C = "\x03";

function startTask() {
  return startInTerminal(["task", "start", "--hostname", "127.0.0.1", "--port", "0", "--drain-timeout", "off"]);
}

async function connectTo(task: Subprocess): Promise<Deno.TcpConn> {
  const [, port] = await task.stdoutMatch(/listening on 127\.0\.0\.1:(\d+)/);
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: Number(port) });
  assertEquals(await ask(conn, "hello\n"), "HELLO\n");
  return conn;
}

Deno.test({
  name: `Ctrl-C on deno task start drains: a client that is there goes on${NO_TERMINAL}`,
  ignore: !HAS_SCRIPT,
  fn: () =>
    unlessLate(startTask, async (task) => {
      using conn = await connectTo(task);
      await task.type(CTRL_C);
      await task.stdoutMatch(/waiting on 1 connection\r\n/);
      assertEquals(await ask(conn, "still here\n"), "STILL HERE\n");
      await conn.closeWrite();
      const { code, stdout } = await task.outcome();
      assertMatch(stdout, /info shutting down\r\n[^]*info all connections closed\r\n$/);
      assertEquals(stdout.match(/shutting down/g)?.length, 1);
      assertEquals(code, 0);
    }),
});

Deno.test({
  name: `A second Ctrl-C on deno task start, which arrives twice, ends it at once with 130 and one line${NO_TERMINAL}`,
  ignore: !HAS_SCRIPT,
  fn: () =>
    unlessLate(startTask, async (task) => {
      using _ = await connectTo(task);
      await task.type(CTRL_C);
      await task.stdoutMatch(/waiting on 1 connection\r\n/);
      await task.type(CTRL_C);
      const { code, stdout } = await task.outcome();
      assertMatch(stdout, /warn ending at once: SIGINT, \d+ ms after the first signal\r\n/);
      assertEquals([code, stdout.match(/ending at once/g)?.length], [130, 1]);
    }),
});

Deno.test("deno task connect prints the replies and nothing else on stdout", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const args = ["task", "connect", `127.0.0.1:${listener.addr.port}`];
  await using task = new Subprocess(Deno.execPath(), args, { input: "hello\n" });
  using conn = await listener.accept();
  assertEquals(await ask(conn, "HELLO\n"), "hello\n");
  await conn.closeWrite();
  const { code, stdout } = await task.outcome();
  assertEquals([code, stdout], [0, "HELLO\n"]);
});
