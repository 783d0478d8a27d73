import { assertEquals, assertMatch } from "@std/assert";
import { converse, listening, runCommand, startCommand, Subprocess } from "../../kit/command.ts";
import { NO_EPOLL } from "../../kit/sockets/epoll.ts";
import { NO_IPV6 } from "../../kit/sockets/ipv6.ts";

/** Runs a program with its own hosts file. */
const WITH_HOSTS = ["--mount", "--map-root-user", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"'];
const NO_HOSTS = await whyNoHosts();

async function whyNoHosts(): Promise<string> {
  try {
    const { success } = await new Deno.Command("unshare", { args: [...WITH_HOSTS, "/dev/null", "true"] }).output();
    if (success) return "";
  } catch {
    // There is no such program.
  }
  return " (skipped: no mount namespace can be made here)";
}

const FFI = ["--allow-net", "--allow-ffi"];

function onEpoll(name: string, fn: () => Promise<void>): void {
  Deno.test({ name: name + NO_EPOLL, ignore: NO_EPOLL !== "", fn });
}

/** The line about its engine that a server logs at the debug level. */
async function engineOf(args: string[], permissions: string[], hostname = "127.0.0.1"): Promise<string | undefined> {
  const all = ["--hostname", hostname, "--port", "0", "--log-level", "debug", ...args];
  await using server = await listening(startCommand(all, { permissions }));
  assertEquals(await converse(server, "hello\n"), "HELLO\n");
  return /engine is .*/.exec(server.stderr)?.[0];
}

Deno.test("The command listens with Deno.listen, whatever it is allowed", async () => {
  for (const permissions of [["--allow-net"], FFI, ["-A"]]) {
    assertEquals(await engineOf([], permissions), "engine is deno");
  }
  assertEquals(await engineOf(["--engine", "deno"], FFI), "engine is deno");
});

onEpoll("With --engine epoll the command has its sockets from epoll, for names as for addresses", async () => {
  assertEquals(await engineOf(["--engine", "epoll"], FFI), "engine is epoll");
  assertEquals(await engineOf(["--engine", "epoll"], FFI, "localhost"), "engine is epoll");
});

onEpoll("What cannot be had from epoll is an error", async () => {
  const said = 'cannot listen on [fe80::1%lo]:8080: cannot use hostname "fe80::1%lo": expected an IP';
  const { code, stderr } = await runCommand(["--hostname", "fe80::1%lo", "--engine", "epoll"], { permissions: FFI });
  assertEquals([code, stderr.slice(0, said.length + 8)], [1, `shouty: ${said}`]);
});

Deno.test("An engine that does not exist is refused, and auto is none", async () => {
  for (const engine of ["auto", "uring"]) {
    assertEquals(await runCommand(["--engine", engine]), {
      code: 2,
      stdout: "",
      stderr: `shouty: cannot use --engine "${engine}": expected deno or epoll\n`,
    });
  }
});

/** The address that the command logs when it listens on `host`, with its own hosts file. */
async function boundTo(engine: string, hosts: string): Promise<string> {
  const file = await Deno.makeTempFile();
  await Deno.writeTextFile(file, hosts);
  const command = [Deno.execPath(), "run", "--no-prompt", ...FFI, "mod.ts", "--hostname", "host", "--port", "0"];
  await using server = new Subprocess("unshare", [...WITH_HOSTS, file, ...command, "--engine", engine]);
  const [, address] = await server.stderrMatch(/listening on (.*):\d+\n/);
  await Deno.remove(file);
  return address;
}

for (const engine of ["deno", "epoll"]) {
  const missing = NO_HOSTS || (engine === "epoll" ? NO_EPOLL : "");
  Deno.test({
    name: `A name's first address that can be bound is listened on, with --engine ${engine}${missing}`,
    ignore: missing !== "",
    async fn() {
      // Addresses reserved for documentation, which no machine has.
      assertEquals(await boundTo(engine, "192.0.2.1 host\n2001:db8::1 host\n127.0.0.3 host\n"), "127.0.0.3");
      if (NO_IPV6 === "") assertEquals(await boundTo(engine, "::1 host\n127.0.0.1 host\n"), "[::1]");
    },
  });
}

for (const engine of ["deno", "epoll"]) {
  const ignore = engine === "epoll" && NO_EPOLL !== "";
  Deno.test({
    name: `A host that does not resolve is an error, with --engine ${engine}${ignore ? NO_EPOLL : ""}`,
    ignore,
    async fn() {
      const { code, stderr } = await runCommand(["--hostname", "host.invalid", "--engine", engine], {
        permissions: FFI,
      });
      assertEquals(code, 1);
      assertMatch(stderr, /^shouty: cannot listen on host\.invalid:8080: getaddrinfo E\w+ host\.invalid\n$/);
    },
  });
}

onEpoll(
  "With a permission for one port alone an address will do, and nothing asks whether a name may be looked up",
  async () => {
    using free = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = free.addr;
    free.close();
    const args = ["--hostname", "localhost", "--port", `${port}`];
    const permissions = ["--no-prompt", `--allow-net=localhost:${port}`, "--allow-ffi"];
    const { code, stderr } = await runCommand([...args, "--engine", "epoll"], { permissions });
    const said = "no permission to look it up, which --allow-net=localhost grants";
    assertEquals([code, stderr], [1, `shouty: cannot listen on localhost:${port}: ${said}\n`]);
    await using named = await listening(startCommand(args, { permissions }));
    assertEquals(await converse(named, "hello\n"), "HELLO\n");
    const address = ["--no-prompt", `--allow-net=127.0.0.1:0`, "--allow-ffi"];
    const epoll = ["--hostname", "127.0.0.1", "--port", "0", "--engine", "epoll"];
    await using server = await listening(startCommand(epoll, { permissions: address }));
    assertEquals(await converse(server, "hello\n"), "HELLO\n");
  },
);

onEpoll("With --engine epoll, the permission for a name is enough to listen on its addresses", async () => {
  const permissions = ["--no-prompt", "--allow-net=localhost", "--allow-ffi"];
  assertEquals(await engineOf(["--engine", "epoll"], permissions, "localhost"), "engine is epoll");
});

Deno.test("An engine that is asked for and cannot be had is an error", async () => {
  const permissions = ["--allow-net"];
  const { code, stderr } = await runCommand(["--engine", "epoll"], { permissions });
  assertEquals(code, 1);
  assertMatch(
    stderr,
    /^shouty: cannot listen on 0\.0\.0\.0:8080: no (epoll on|permission for foreign code, which) .*\n$/,
  );
  assertEquals(await runCommand(["--engine", "epoll", "--unix", "/tmp/x.sock"], { permissions }), {
    code: 2,
    stdout: "",
    stderr: "shouty: cannot use --engine epoll with --unix: expected one of them\n",
  });
});
