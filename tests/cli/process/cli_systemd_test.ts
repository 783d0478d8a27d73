import { assertEquals, assertGreater, assertMatch } from "@std/assert";
import { ask as askAdmin } from "../../kit/admin/admin.ts";
import { within } from "../../kit/bounded.ts";
import { converse, startCommand, startServer, Subprocess } from "../../kit/command.ts";
import { NO_FD } from "../../kit/sockets/fd.ts";
import { freePort } from "../../kit/sockets/free_port.ts";
import { IDENTITY } from "../../kit/tls.ts";
import { adminOf, Lineage, Load, startOnFd } from "../../kit/admin/upgrades.ts";

const LINUX = Deno.build.os === "linux" ? "" : " (skipped: only Linux has systemd)";
const NO_SOCAT = LINUX || await missing("socat", "-V");
const NO_NOTIFY = NO_SOCAT || await missing("systemd-notify", "--version");
const NO_ACTIVATE = LINUX || await missing("systemd-socket-activate", "--version");

/** Why tests that need a program are skipped; empty if it is there. */
async function missing(program: string, arg: string): Promise<string> {
  try {
    await new Deno.Command(program, { args: [arg] }).output();
    return "";
  } catch {
    return ` (skipped: ${program} is missing)`;
  }
}

function test(name: string, reason: string, body: () => Promise<void>): void {
  Deno.test({ name: name + reason, ignore: reason !== "", fn: () => within(120, body()) });
}

/** Runs a test with a socket like systemd's, whose messages the process's stdout collects. */
async function withSocket(
  abstract: boolean,
  body: (address: string, socket: Subprocess) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/notify`;
  const args = ["-u", "-dd", `${abstract ? "ABSTRACT" : "UNIX"}-RECV:${path}`, "STDOUT"];
  try {
    await using socket = new Subprocess("socat", args, {});
    await socket.stderrMatch(/starting data transfer/);
    await body(abstract ? `@${path}` : path, socket);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const VARIABLES = "--allow-env=NOTIFY_SOCKET,WATCHDOG_USEC,WATCHDOG_PID,LISTEN_*";

for (const abstract of [false, true]) {
  test(
    `systemd hears when the server is ready, that it works, and when it stops, at ${
      abstract ? "an abstract address" : "a path"
    }`,
    NO_SOCAT,
    () =>
      withSocket(abstract, async (address, socket) => {
        const env = { NOTIFY_SOCKET: address, WATCHDOG_USEC: "200000" };
        const permissions = ["--allow-net", "--allow-ffi", VARIABLES];
        await using server = await startServer([], { env, permissions });
        await socket.stdoutMatch(new RegExp(`^READY=1\nMAINPID=${server.pid}WATCHDOG=1WATCHDOG=1WATCHDOG=1`));
        server.signal("SIGTERM");
        await socket.stdoutMatch(/STOPPING=1/);
        assertEquals((await server.outcome()).code, 0);
      }),
  );
}

const SOME_FFI = ["--allow-run", "--allow-ffi", "--deny-ffi=./other.so"];

for (const run of [["--allow-run"], ["--allow-run=systemd-notify"], SOME_FFI]) {
  test(
    `Without the permission for all foreign code, the program systemd-notify tells systemd, with ${run.join(" ")}`,
    NO_NOTIFY,
    () =>
      withSocket(false, async (address, socket) => {
        const env = { NOTIFY_SOCKET: address };
        await using server = await startServer([], { env, permissions: ["--allow-net", ...run, VARIABLES] });
        await socket.stdoutMatch(new RegExp(`READY=1\nMAINPID=${server.pid}`));
        server.signal("SIGTERM");
        await socket.stdoutMatch(/STOPPING=1/);
        assertEquals((await server.outcome()).code, 0);
      }),
  );
}

test("A message that the program systemd-notify cannot send is one line, and the server serves", LINUX, async () => {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/systemd-notify`, "#!/bin/sh\nexit 3\n", { mode: 0o755 });
    const env = { NOTIFY_SOCKET: "/run/nowhere", PATH: folder };
    await using server = await startServer([], { env, permissions: ["--allow-net", "--allow-run", VARIABLES] });
    await server.stderrMatch(/warn systemd did not take a message: systemd-notify ended with status 3\n/);
    assertEquals(await converse(server, "hello\n"), "HELLO\n");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

test(
  "A message that cannot be sent, as the program is missing, is one line, and the server serves",
  LINUX,
  async () => {
    const env = { NOTIFY_SOCKET: "/run/nowhere", WATCHDOG_USEC: "200000", PATH: "/nowhere" };
    await using server = await startServer([], { env, permissions: ["--allow-net", "--allow-run", VARIABLES] });
    await server.stderrMatch(/warn systemd did not take the message WATCHDOG=1: .*systemd-notify/);
    assertEquals(await converse(server, "hello\n"), "HELLO\n");
    server.signal("SIGTERM");
    const { code, stderr } = await server.outcome();
    assertMatch(stderr, /warn systemd did not take the message STOPPING=1: /);
    assertEquals(code, 0);
  },
);

test("A stop that comes before the server listens is told, behind the readiness", LINUX, async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/certificate`;
  // The server waits for the certificate.
  await new Deno.Command("mkfifo", { args: [path] }).output();
  const env = { NOTIFY_SOCKET: "/run/nowhere" };
  const permissions = ["--allow-net", "--allow-ffi", "--allow-read", VARIABLES];
  const flags = ["--port", "0", "--log-level", "debug", "--tls-cert", path];
  await using server = startCommand(flags, { env, permissions });
  await server.stderrMatch(/debug options are/);
  server.signal("SIGTERM");
  await server.stderrMatch(/debug received SIGTERM/);
  await Deno.writeTextFile(path, `${IDENTITY.cert}${IDENTITY.key}`);
  const { code, stderr } = await server.outcome();
  const messages = Array.from(stderr.matchAll(/warn systemd did not take the message (.*)\n/g), ([, text]) => text);
  assertEquals([code, ...messages], [0, `READY=1 MAINPID=${server.pid}`, "STOPPING=1"]);
  await Deno.remove(folder, { recursive: true });
});

test("A drain by the admin port is a stop that is told", LINUX, async () => {
  const env = { NOTIFY_SOCKET: "/run/nowhere" };
  const permissions = ["--allow-net", "--allow-ffi", VARIABLES];
  await using server = await startServer(["--admin", "127.0.0.1:0"], { env, permissions });
  assertEquals((await askAdmin(await adminOf(server), "POST /drain")).status, 202);
  const { code, stderr } = await server.outcome();
  assertMatch(stderr, /warn systemd did not take the message STOPPING=1\n/);
  assertEquals(code, 0);
});

test("Without permission for either, one line says what is missing, and the server serves", LINUX, async () => {
  const env = { NOTIFY_SOCKET: "/run/nowhere", WATCHDOG_USEC: "200000" };
  await using server = await startServer([], { env, permissions: ["--allow-net", VARIABLES] });
  assertEquals(await converse(server, "hello\n"), "HELLO\n");
  const line = /warn cannot tell systemd anything: that takes --allow-ffi, or --allow-run=systemd-notify\n/;
  assertMatch(server.stderr, line);
  server.signal("SIGTERM");
  assertEquals((await server.outcome()).stderr.match(/systemd/g)?.length, 2);
});

test(
  "Another process's watchdog is not answered, and a socket that is gone is one line for each message",
  LINUX,
  async () => {
    const env = { NOTIFY_SOCKET: "/run/nowhere", WATCHDOG_USEC: "1000", WATCHDOG_PID: "1" };
    await using server = await startServer([], { env, permissions: ["--allow-net", "--allow-ffi", VARIABLES] });
    assertEquals(await converse(server, "hello\n"), "HELLO\n");
    server.signal("SIGTERM");
    const { stderr } = await server.outcome();
    const messages = Array.from(stderr.matchAll(/warn systemd did not take the message (.*)\n/g), ([, text]) => text);
    assertEquals(messages, [`READY=1 MAINPID=${server.pid}`, "STOPPING=1"]);
  },
);

test("A watchdog that waits for longer than a timer can is not told every millisecond", LINUX, async () => {
  const env = { NOTIFY_SOCKET: "/run/nowhere", WATCHDOG_USEC: `${2n ** 64n - 1n}` };
  await using server = await startServer([], { env, permissions: ["--allow-net", "--allow-ffi", VARIABLES] });
  assertEquals(await converse(server, "hello\n"), "HELLO\n");
  server.signal("SIGTERM");
  assertEquals((await server.outcome()).stderr.match(/WATCHDOG/g), null);
});

test(
  "systemd hears which process takes over at an upgrade, and no stop of the old one, also if that is told to stop",
  NO_SOCAT || NO_FD,
  () =>
    withSocket(false, async (address, socket) => {
      const env = { NOTIFY_SOCKET: address };
      const permissions = ["--allow-net", "--allow-run", "--allow-ffi", VARIABLES];
      const flags = ["--upgrade", "--idle-timeout", "off", "--drain-timeout", "60s", "--log-level", "debug"];
      await using servers = new Lineage(startOnFd(flags, { env, permissions }));
      const client = await Deno.connect({ port: await servers.port() });
      await servers.first.stderrMatch(/accepted connection/);
      const second = await servers.upgrade(servers.first.pid);
      servers.first.signal("SIGTERM");
      await servers.first.stderrMatch(/received SIGTERM/);
      client.close();
      assertEquals(await servers.first.exitCode(), 0);
      await socket.stdoutMatch(new RegExp(`MAINPID=${second}.*MAINPID=${second}`, "s"));
      await servers.stop(second);
      await socket.stdoutMatch(/STOPPING=1/);
      assertEquals(socket.stdout.match(/STOPPING/g)?.length, 1);
    }),
);

const ACTIVATIONS: Readonly<Record<string, { engine: string; permissions: string[] }>> = {
  "Deno's sockets": { engine: "deno", permissions: ["--allow-net", "--allow-run", VARIABLES] },
  "epoll": { engine: "epoll", permissions: ["--allow-net", "--allow-run", "--allow-ffi", VARIABLES] },
};

for (const [what, { engine, permissions }] of Object.entries(ACTIVATIONS)) {
  const reason = NO_ACTIVATE || (engine === "epoll" ? NO_FD : "");
  test(
    `systemd-socket-activate starts the server at the first connection, and an upgrade loses nothing, on ${what}`,
    reason,
    async () => {
      const [port, other] = [freePort(), freePort()];
      const command = [Deno.execPath(), "run", "--no-prompt", ...permissions, "mod.ts"];
      const flags = ["--listen-fd", "systemd", "--engine", engine, "--upgrade", "--drain-timeout", "60s"];
      const activate = [
        "-l",
        `127.0.0.1:${port}`,
        "-l",
        `127.0.0.1:${other}`,
        "-E",
        "PATH",
        "-E",
        "HOME",
        "-E",
        "NO_COLOR",
      ];
      await using servers = new Lineage(
        new Subprocess("systemd-socket-activate", [...activate, ...command, ...flags], {}),
      );
      await servers.first.stderrMatch(/Listening on 127\.0\.0\.1:\d+ as 4/);
      // The connection that makes systemd start the server is the first that the server accepts.
      assertEquals(await converse({ hostname: "127.0.0.1", port }, "first\n"), "FIRST\n");
      assertEquals(await converse({ hostname: "127.0.0.1", port: other }, "other\n"), "OTHER\n");
      await using load = new Load(port, 10);
      await load.more(10);
      const second = await servers.upgrade(servers.first.pid);
      await load.more(20);
      await load[Symbol.asyncDispose]();
      assertEquals(load.failures, []);
      assertEquals(await servers.first.exitCode(), 0);
      assertEquals(await converse({ hostname: "127.0.0.1", port: other }, "second\n"), "SECOND\n");
      assertGreater((await servers.stop(second)).match(/all connections closed/g)!.length, 1);
    },
  );
}
