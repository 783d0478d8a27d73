import { assertEquals, assertMatch } from "@std/assert";
import { converse, listening, runCommand, startCommand } from "./command.ts";
import { NO_EPOLL } from "./epoll.ts";

const FFI = ["--allow-net", "--allow-ffi"];

function onEpoll(name: string, fn: () => Promise<void>): void {
  Deno.test({ name: name + NO_EPOLL, ignore: NO_EPOLL !== "", fn });
}

/** What a server that serves says of its engine at the debug level. */
async function engineOf(args: string[], permissions: string[], hostname = "127.0.0.1"): Promise<string | undefined> {
  const all = ["--hostname", hostname, "--port", "0", "--log-level", "debug", ...args];
  await using server = await listening(startCommand(all, { permissions }));
  assertEquals(await converse(server, "hello\n"), "HELLO\n");
  return /engine is .*/.exec(server.stderr)?.[0];
}

onEpoll(
  "Where foreign code is allowed, the command has its sockets from epoll, for names as for addresses",
  async () => {
    assertEquals(await engineOf([], FFI), "engine is epoll");
    assertEquals(await engineOf(["--engine", "epoll"], FFI, "localhost"), "engine is epoll");
  },
);

onEpoll("Where that is not allowed, or not wanted, the command has its sockets from Deno", async () => {
  assertEquals(await engineOf([], ["--allow-net"]), "engine is deno");
  assertEquals(await engineOf(["--engine", "deno"], FFI), "engine is deno");
});

onEpoll("What epoll does not understand is left to Deno, unless it has to be epoll", async () => {
  const { code, stderr } = await runCommand(["--hostname", "host.invalid"], { permissions: FFI });
  assertEquals(code, 1);
  assertMatch(stderr, /^shouty: cannot listen on host\.invalid:8080: failed to look ?up /);
  const zone = ["--hostname", "fe80::1%lo", "--engine", "epoll"];
  assertEquals(await runCommand(zone, { permissions: FFI }), {
    code: 1,
    stdout: "",
    stderr: "shouty: cannot listen on [fe80::1%lo]:8080: expected an IP address without a zone, or a name for one\n",
  });
});

Deno.test("An engine that is asked for and cannot be had is an error", async () => {
  const permissions = ["--allow-net"];
  assertEquals(await runCommand(["--engine", "epoll"], { permissions }), {
    code: 1,
    stdout: "",
    stderr: "shouty: cannot listen on 0.0.0.0:8080: no permission to use epoll, which --allow-ffi grants\n",
  });
  assertEquals(await runCommand(["--engine", "epoll", "--unix", "/tmp/x.sock"], { permissions }), {
    code: 2,
    stdout: "",
    stderr: "shouty: cannot use --engine epoll with --unix: expected one of them\n",
  });
});
