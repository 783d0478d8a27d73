import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { serve } from "@x/shouty";
import { type Admin, serveAdmin } from "@x/shouty/ops";
import { ask } from "../../kit/admin/admin.ts";
import { test } from "../../kit/bounded.ts";
import { HAS_SCRIPT, startInTerminal } from "../../kit/command.ts";
import { NO_IPV6 } from "../../kit/sockets/ipv6.ts";
import { memoryAfter } from "../../kit/figures/memory.ts";

for (const hostname of ["127.0.0.1", "::1", "localhost"]) {
  test(
    `an admin port listens on ${hostname}`,
    async () => {
      await using server = serve({ hostname: "127.0.0.1", port: 0 });
      await using admin = await serveAdmin({ server, hostname, port: 0 });
      assertEquals((await ask(admin.addr, "GET /readyz")).body, "ready\n");
      const { port } = admin.addr as Deno.NetAddr;
      const taken = () => serveAdmin({ server, hostname, port });
      await assertRejects(taken, Deno.errors.AddrInUse);
    },
    60,
    hostname === "::1" ? NO_IPV6 : "",
  );
}

test("an admin port listens on a Unix socket that its user alone can reach, and replaces a dead one", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/admin.sock`;
  const server = serve({ hostname: "127.0.0.1", port: 0 });
  await using admin = await serveAdmin({ server, path });
  assertEquals(admin.addr, { transport: "unix", path });
  assertEquals((await Deno.lstat(path)).mode! & 0o777, 0o600);
  assertEquals((await ask(admin.addr, "GET /readyz")).body, "ready\n");
  await assertRejects(() => serveAdmin({ server, path }), Deno.errors.AddrInUse);
  await admin.close();
  await assertRejects(() => Deno.lstat(path), Deno.errors.NotFound);
  await leaveDeadSocket(path);
  await using next: Admin = await serveAdmin({ server, path, mode: 0o660 });
  assertEquals((await Deno.lstat(path)).mode! & 0o777, 0o660);
  await server.shutdown();
  await next.close();
  await Deno.writeTextFile(path, "precious");
  await assertRejects(() => serveAdmin({ server, path }), Deno.errors.AlreadyExists);
  await Deno.remove(folder, { recursive: true });
});

/** Leaves the file of a socket on which no process listens, as a crashed server does. */
async function leaveDeadSocket(path: string): Promise<void> {
  const script = `Deno.listen({ transport: "unix", path: ${JSON.stringify(path)} }); Deno.kill(Deno.pid, "SIGKILL");`;
  await new Deno.Command(Deno.execPath(), { args: ["eval", script] }).output();
}

test("an admin port refuses wrong options before anything is bound, and shows no token", async () => {
  await using server = serve({ hostname: "127.0.0.1", port: 0 });
  const refuses = async (options: object, message: string) => {
    const error = await assertRejects(() => serveAdmin({ server, port: 0, ...options }));
    assert(error instanceof TypeError || error instanceof RangeError);
    assertStringIncludes(error.message, message);
  };
  await refuses({ server: 5 }, "Cannot use server: expected a server, got 5");
  const unfinished = { shutdown() {}, stats() {} };
  await refuses({ server: unfinished }, "Cannot use server.finished: expected a promise, got undefined");
  await refuses({ port: 70_000 }, "Cannot use port 70000: expected a whole number from 0 to 65535");
  await refuses({ hostname: "" }, 'Cannot use hostname ""');
  await refuses({ path: "" }, 'Cannot use path "": expected a file\'s name');
  await refuses({ mode: 0o1000 }, "Cannot use mode 512");
  await refuses({ drain: 5 }, "Cannot use drain: expected a function, got 5");
  await refuses({ hosts: "a.example" }, 'Cannot use hosts: expected a list of names, got "a.example"');
  await refuses({ metrics: {} }, "Cannot use metrics: expected a ServerMetrics, got an object");
  await refuses({ clock: 5 }, "Cannot use clock: expected a clock, got 5");
  const allowed = "Cannot use token: expected 16 to 1024 visible characters of ASCII";
  for (
    const token of [
      null as never,
      Symbol() as never,
      "",
      "short",
      "with a space in it",
      "with-a-line-end-at-last\n",
      "x".repeat(1025),
    ]
  ) {
    const error = await assertRejects(() => serveAdmin({ server, port: 0, token }), TypeError);
    assertEquals(error.message, allowed);
  }
  for (const hostname of ["0.0.0.0", "::"]) {
    const address = hostname.includes(":") ? `[${hostname}]:0` : `${hostname}:0`;
    const expected = "expected one, or a loopback address or a Unix socket";
    await refuses({ hostname }, `Cannot listen on ${address} without a token: ${expected}`);
  }
});

test(
  "an admin port asks for no permission on a terminal, where that would stop the server: it rejects",
  async () => {
    const folder = await Deno.makeTempDir();
    const path = JSON.stringify(`${folder}/admin.sock`);
    const script = `
      import { serve } from "@x/shouty";
      import { serveAdmin } from "@x/shouty/ops";
      const server = serve({ hostname: "127.0.0.1", port: 0 });
      await serveAdmin({ server, path: ${path} }).catch((error) => console.log("rejected:", error.message));
      await server.shutdown();
    `;
    await Deno.writeTextFile(`${folder}/main.ts`, script);
    const without = {
      net: ["--allow-net=127.0.0.1", "--allow-read", "--allow-write"],
      read: ["--allow-net", "--allow-write"],
      write: ["--allow-net", "--allow-read"],
    };
    for (const [missing, flags] of Object.entries(without)) {
      const args = ["run", "--config", "deno.json", ...flags, `${folder}/main.ts`];
      await using process = startInTerminal(args);
      const [, what, message] = await process.stdoutMatch(/(rejected:|Allow\?) (.*)/);
      assertEquals(what, "rejected:", process.stdout);
      assertMatch(message, new RegExp(`^Requires ${missing} access to ".*admin\\.sock"`));
      await process.exitCode();
    }
    await Deno.remove(folder, { recursive: true });
  },
  60,
  HAS_SCRIPT ? "" : " (skipped: util-linux's script is missing)",
);

test("a server that goes on, and its metrics, keep nothing of admin ports that were closed", async () => {
  await memoryAfter(`
    import { serve } from "${import.meta.resolve("../../../mod.ts")}";
    import { serveAdmin, ServerMetrics } from "${import.meta.resolve("../../../ops/mod.ts")}";
    const server = serve({ hostname: "127.0.0.1", port: 0 });
    const metrics = new ServerMetrics();
    const ports = [];
    for (let i = 0; i < 20; i++) {
      const port = await serveAdmin({ server, metrics, port: 0 });
      await port.close();
      ports.push(new WeakRef(port));
    }
    await new Promise((resolve) => setTimeout(resolve, 0));
    gc();
    // The stack may still refer to the last ones.
    const kept = ports.filter((port) => port.deref() !== undefined).length;
    if (kept > 5) throw new Error(kept + " closed ports are kept");
  `);
});
