import { assertEquals, assertMatch } from "@std/assert";
import { closeQuietly } from "../../../internal/api/transport.ts";
import { serve } from "../../../mod.ts";
import {
  type Address,
  ask,
  HAS_SCRIPT,
  type Outcome,
  runCommand,
  runRedirected,
  startCommand,
  startInTerminal,
  type StartOptions,
  type Subprocess,
} from "../../kit/command.ts";
import { NO_IPV6 } from "../../kit/sockets/ipv6.ts";
import { refusingPort } from "../../kit/sockets/refusing_port.ts";
import { startConversations } from "../../kit/server.ts";

const ON_LINUX = Deno.build.os === "linux";

/** Runs the client against an address. */
function connect({ hostname, port }: Address, input: string, ...flags: string[]): Promise<Outcome> {
  return runCommand(["connect", `${hostname}:${port}`, ...flags], { input });
}

/** A time limit that holds for connecting, too: a machine that stands still for two seconds must not use it up. */
const UNHURRIED = "3s";

/** Starts the client, and accepts its connection; the test itself is the server. */
async function meet(options?: StartOptions, ...flags: string[]): Promise<Meeting> {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const client = startCommand(["connect", `127.0.0.1:${port}`, ...flags], options);
  const conn = await listener.accept();
  const dispose = async () => {
    closeQuietly(conn);
    await client[Symbol.asyncDispose]();
  };
  return { client, conn, peer: `127.0.0.1:${port}`, [Symbol.asyncDispose]: dispose };
}

interface Meeting extends AsyncDisposable {
  client: Subprocess;
  conn: Deno.TcpConn;
  /** The server's address, as the client writes it. */
  peer: string;
}

for (const [hostname, written] of [["127.0.0.1", "localhost"], ["::1", "[::1]"]]) {
  const missing = hostname === "::1" ? NO_IPV6 : "";
  Deno.test({
    name: `connect sends stdin to ${written} and writes the replies to stdout${missing}`,
    ignore: missing !== "",
    async fn() {
      await using server = serve({ hostname, port: 0 });
      const { port } = server.addr as Deno.NetAddr;
      const outcome = await connect({ hostname: written, port }, "hello\nÄrger\nno end");
      assertEquals(outcome, { code: 0, stdout: "HELLO\nÄRGER\nNO END\n", stderr: "" });
    },
  });
}

Deno.test("connect gets through more than the buffers on the way hold", async () => {
  await using server = serve({ hostname: "127.0.0.1", port: 0 });
  const input = "0123456789abcde\n".repeat(500_000);
  const { code, stdout } = await connect(server.addr as Deno.NetAddr, input);
  assertEquals(code, 0);
  assertEquals(stdout === input.toUpperCase(), true, "Replies are missing or wrong");
});

Deno.test("connect answers line by line while the input stays open, and ends when the server does", async () => {
  await using meeting = await meet();
  const { client, conn, peer } = meeting;
  await client.type("one\n");
  assertEquals(await ask(conn, "ONE\n"), "one\n");
  await client.stdoutMatch(/^ONE\n$/);
  await client.type("two\n");
  assertEquals(await ask(conn, "TWO\n"), "two\n");
  await conn.closeWrite();
  const { code, stdout, stderr } = await client.outcome();
  assertEquals([code, stdout], [0, "ONE\nTWO\n"]);
  assertEquals(stderr, `shouty: ${peer} has closed the connection\n`);
});

Deno.test("connect ends its side at the end of input, and still takes the replies", async () => {
  await using meeting = await meet({ input: "last\n" });
  const { client, conn } = meeting;
  assertEquals(await ask(conn, ""), "last\n");
  assertEquals(await conn.read(new Uint8Array(1)), null);
  await conn.write(new TextEncoder().encode("LAST\n"));
  await conn.closeWrite();
  const { code, stdout } = await client.outcome();
  assertEquals([code, stdout], [0, "LAST\n"]);
});

Deno.test({
  name: "connect says that stdin cannot be read, however silent the server is" +
    (ON_LINUX ? "" : " (skipped: not Linux)"),
  ignore: !ON_LINUX,
  async fn() {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const args = ["connect", `127.0.0.1:${listener.addr.port}`, "--timeout", UNHURRIED];
    const { code, stderr } = await runRedirected("</", args);
    assertEquals([code, stderr], [1, "shouty: cannot read stdin: is a directory\n"]);
  },
});

Deno.test("connect fails in one line if no server listens, and exits with 1", async () => {
  using refusing = await refusingPort();
  const { port } = refusing;
  const { code, stdout, stderr } = await connect({ hostname: "127.0.0.1", port }, "");
  assertEquals([code, stdout], [1, ""]);
  assertEquals(stderr, `shouty: cannot connect to 127.0.0.1:${port}: connection refused\n`);
});

Deno.test({
  name: "connect gives up on a server that does not take the connection" + (ON_LINUX ? "" : " (skipped: not Linux)"),
  ignore: !ON_LINUX,
  async fn() {
    // A Linux listener with a full backlog does not answer.
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0, tcpBacklog: 1 });
    const { port } = listener.addr;
    using _one = await Deno.connect({ hostname: "127.0.0.1", port });
    using _two = await Deno.connect({ hostname: "127.0.0.1", port });
    const { code, stderr } = await connect({ hostname: "127.0.0.1", port }, "", "--timeout", "200ms");
    assertEquals([code, stderr], [1, `shouty: cannot connect to 127.0.0.1:${port}: no answer within 0.2 s\n`]);
  },
});

Deno.test("connect waits for a silent server while there may be input, and for its timeout after that", async () => {
  await using meeting = await meet({}, "--timeout", UNHURRIED);
  const { client, conn, peer } = meeting;
  await client.type("one\n");
  assertEquals(await ask(conn, ""), "one\n");
  await new Promise((resolve) => setTimeout(resolve, 3500)); // Longer than the timeout.
  await conn.write(new TextEncoder().encode("ONE\n"));
  await client.stdoutMatch(/^ONE\n$/);
  await client.endInput();
  const { code, stderr } = await client.outcome();
  assertEquals([code, stderr], [1, `shouty: no reply from ${peer} within 3 s\n`]);
});

Deno.test("connect reports a server that closes the connection without a reply, and what may be the cause", async () => {
  await using meeting = await meet({ input: "hello\n" });
  const { client, conn, peer } = meeting;
  assertEquals(await ask(conn, ""), "hello\n");
  await conn.closeWrite();
  const { code, stderr } = await client.outcome();
  const said = `shouty: ${peer} has closed the connection without a reply; if it speaks TLS, use --tls\n`;
  assertEquals([code, stderr], [0, said]);
});

Deno.test("connect leaves bytes as they are, in both directions", async () => {
  await using echo = startConversations({}, (conn) => conn.readable.pipeTo(conn.writable));
  const input = Uint8Array.from({ length: 1_000_000 }, (_, i) => i * i >> 3);
  const args = ["run", "--allow-net", "mod.ts", "connect", `127.0.0.1:${echo.port}`];
  const piped = { stdin: "piped", stdout: "piped" } as const;
  const child = new Deno.Command(Deno.execPath(), { args, cwd: `${import.meta.dirname}/../../..`, ...piped }).spawn();
  const output = new Response(child.stdout).bytes();
  const writer = child.stdin.getWriter();
  await writer.write(input);
  await writer.close();
  assertEquals((await child.status).code, 0);
  assertEquals(indexOfDifference(await output, input), -1);
});

/** Where two arrays differ; -1 if they do not. Showing a million bytes would take minutes. */
function indexOfDifference(one: Uint8Array, other: Uint8Array): number {
  return one.length === other.length
    ? one.findIndex((byte, at) => byte !== other[at])
    : Math.min(one.length, other.length);
}

Deno.test("connect exits with 1 when the server does not take all of the input, after its last words", async () => {
  await using meeting = await meet({ input: "much\n".repeat(2_000_000) });
  const { client, conn, peer } = meeting;
  await ask(conn, "error: enough\n");
  conn.close();
  const { code, stdout, stderr } = await client.outcome();
  assertEquals([code, stdout], [1, "error: enough\n"]);
  assertMatch(stderr, new RegExp(`^shouty: lost the connection to ${peer}: (broken pipe|connection reset)\n$`));
});

Deno.test("connect waits no longer than --timeout for a server that takes no more of its input", async () => {
  await using meeting = await meet({ input: "0123456789abcde\n".repeat(2_000_000) }, "--timeout", UNHURRIED);
  const { code, stderr } = await meeting.client.outcome();
  assertEquals([code, stderr], [1, `shouty: no reply from ${meeting.peer} within 3 s\n`]);
});

Deno.test("connect ends without an error when its stdout is closed", async () => {
  await using meeting = await meet();
  const { client, conn } = meeting;
  await client.closeStdout();
  await conn.write(new TextEncoder().encode("unread\n"));
  const { code, stderr } = await client.outcome();
  assertEquals([code, stderr], [0, ""]);
});

Deno.test({
  name: "connect is usable on a terminal, and Ctrl-D ends the input" +
    (HAS_SCRIPT ? "" : " (skipped: no util-linux script)"),
  ignore: !HAS_SCRIPT,
  async fn() {
    await using server = serve({ hostname: "127.0.0.1", port: 0 });
    const { port } = server.addr as Deno.NetAddr;
    await using client = startInTerminal(["run", "--allow-net", "mod.ts", "connect", `127.0.0.1:${port}`]);
    await client.type("hello\n");
    await client.stdoutMatch(/HELLO\r\n/);
    await client.type("\x04");
    assertEquals(await client.exitCode(), 0);
  },
});
