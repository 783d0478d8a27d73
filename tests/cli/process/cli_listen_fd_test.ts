import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { CommandError } from "../../../cli/system/errors.ts";
import { readSystemd } from "../../../cli/process/systemd.ts";
import { within } from "../../kit/bounded.ts";
import { ask, converse, listening, runCommand, startCommand, Subprocess } from "../../kit/command.ts";
import { boundFd, closeFd, connectedFd, datagramFd, listeningFd, NO_FD, unixFd, withFd } from "../../kit/sockets/fd.ts";
import { IDENTITY } from "../../kit/tls.ts";
import { startOnFd } from "../../kit/admin/upgrades.ts";

function test(name: string, body: () => Promise<void>, missing = NO_FD): void {
  Deno.test({ name: name + missing, ignore: missing !== "", fn: () => within(120, body()) });
}

const ENGINES: Readonly<Record<string, string[]>> = {
  deno: ["--allow-net"],
  epoll: ["--allow-net", "--allow-ffi"],
};

for (const [engine, permissions] of Object.entries(ENGINES)) {
  test(`--listen-fd serves on a socket that is open already, and drains at SIGTERM, with --engine ${engine}`, async () => {
    await using server = await listening(startOnFd(["--engine", engine], { permissions }));
    assertEquals(await converse(server, "Hello.\nIs it you?"), "HELLO.\nIS IT YOU?\n");
    server.signal("SIGTERM");
    const { code, stderr } = await server.outcome();
    assertEquals(code, 0);
    assertMatch(stderr, /shutting down\n(.*\n)*.*all connections closed\n$/);
  });

  test(`A socket outlives the server that has used it, and its clients wait for the next, with --engine ${engine}`, async () => {
    const fd = listeningFd();
    try {
      const start = () =>
        withFd(fd, () => startCommand(["--listen-fd", `${fd}`, "--engine", engine], { permissions }), true);
      const first = await listening(start());
      assertEquals(await converse(first, "one\n"), "ONE\n");
      first.signal("SIGTERM");
      assertEquals((await first.outcome()).code, 0);
      await first[Symbol.asyncDispose]();
      const waiting = converse(first, "two\n");
      await using second = await listening(start());
      assertEquals([await waiting, second.port], ["TWO\n", first.port]);
    } finally {
      closeFd(fd);
    }
  });

  test(`A descriptor that is no listening socket is refused in one line, with --engine ${engine}`, async () => {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const descriptors = { connected: () => connectedFd(listener.addr.port), datagram: datagramFd };
    for (const [kind, open] of Object.entries(descriptors)) {
      const fd = open();
      const args = ["--listen-fd", `${fd}`, "--engine", engine];
      const outcome = await withFd(fd, () => runCommand(args, { permissions }));
      const stderr = `shouty: cannot use --listen-fd ${fd}: expected a listening socket\n`;
      assertEquals(outcome, { code: 2, stdout: "", stderr }, kind);
    }
    // No process has so many descriptors.
    const { code, stderr } = await runCommand(["--listen-fd", "999999", "--engine", engine], { permissions });
    assertEquals([code, stderr], [2, "shouty: cannot use --listen-fd 999999: expected a listening socket\n"]);
  });
}

test("On epoll, a socket that does not listen is refused, and so is a Unix socket", async () => {
  const permissions = ENGINES.epoll;
  const start = (fd: number) =>
    withFd(fd, () => runCommand(["--listen-fd", `${fd}`, "--engine", "epoll"], { permissions }));
  const bound = boundFd();
  assertEquals((await start(bound)).stderr, `shouty: cannot use --listen-fd ${bound}: expected a listening socket\n`);
  const folder = await Deno.makeTempDir();
  const unix = unixFd(`${folder}/socket`);
  const { code, stderr } = await start(unix);
  assertEquals([code, stderr], [1, `shouty: cannot use --listen-fd ${unix}: no Unix socket on epoll\n`]);
  await Deno.remove(folder, { recursive: true });
});

test("On Deno's sockets, a Unix socket is served, and its file is left alone", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/socket`;
  const fd = unixFd(path);
  await using server = withFd(fd, () => startCommand(["--listen-fd", `${fd}`, "--proxy-protocol", "unix"]));
  await server.stderrMatch(/listening on unix\n/);
  using conn = await Deno.connect({ transport: "unix", path });
  await conn.write(new TextEncoder().encode("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nhello\n"));
  await conn.closeWrite();
  assertEquals(await new Response(conn.readable).text(), "HELLO\n");
  await server.stderrMatch(/accepted connection from 192\.0\.2\.1:1\n/);
  server.signal("SIGTERM");
  assertEquals((await server.outcome()).code, 0);
  assertEquals((await Deno.lstat(path)).isSocket, true);
  await Deno.remove(folder, { recursive: true });
});

test("Of several descriptors, those with :tls speak TLS, and without any all do", async () => {
  const folder = await Deno.makeTempDir();
  const [cert, key] = [`${folder}/cert.pem`, `${folder}/key.pem`];
  await Deno.writeTextFile(cert, IDENTITY.cert);
  await Deno.writeTextFile(key, IDENTITY.key);
  const options = { permissions: ["--allow-net", "--allow-read"] };
  for (const [suffix, expected] of [["", [" (TLS)", " (TLS)"]], [":tls", ["", " (TLS)"]]] as const) {
    const fds = [listeningFd(), listeningFd()];
    const args = ["--listen-fd", `${fds[0]},${fds[1]}${suffix}`, "--tls-cert", cert, "--tls-key", key];
    await using server = withFd(fds, () => startCommand(args, options));
    await server.stderrMatch(/listening on.*\n(.*\n)*.*listening on.*\n/);
    const lines = Array.from(server.stderr.matchAll(/listening on \S+:\d+(.*)\n/g), ([, tls]) => tls);
    assertEquals(lines, [...expected]);
  }
  await Deno.remove(folder, { recursive: true });
});

const MISTAKES: Readonly<Record<string, [args: string[], env: Record<string, string>, stderr: string]>> = {
  "a number that is a standard stream's": [
    ["--listen-fd", "2"],
    {},
    'cannot use --listen-fd "2": expected descriptors from 3 on such as 3 or 3,4:tls, or systemd, or off',
  ],
  "a descriptor that is named twice": [
    ["--listen-fd", "3,3:tls"],
    {},
    'cannot use --listen-fd "3,3:tls": expected descriptors from 3 on such as 3 or 3,4:tls, or systemd, or off',
  ],
  "a port besides": [
    ["--listen-fd", "3", "--port", "8080"],
    {},
    "cannot use --listen-fd with --port: expected one of them",
  ],
  "an upgrade of sockets that cannot be handed on": [
    ["--port", "0", "--upgrade"],
    {},
    "cannot use --upgrade without --engine epoll or --listen-fd: expected one of them",
  ],
  "the word for the new process of an upgrade, from a user": [
    ["--port", "0", "--upgrade=child"],
    {},
    'cannot use --upgrade "child": expected on or off',
  ],
  "TLS without a certificate": [
    ["--listen-fd", "3:tls"],
    {},
    "cannot use --listen-fd 3:tls without --tls-cert: expected both",
  ],
  "systemd's sockets when there are none": [
    ["--listen-fd", "systemd"],
    {},
    "cannot use --listen-fd systemd: expected the variables LISTEN_FDS and LISTEN_PID, which --allow-env=LISTEN_* lets it read",
  ],
  "systemd's sockets for another process": [
    ["--listen-fd", "systemd"],
    { LISTEN_FDS: "1", LISTEN_PID: "1" },
    "cannot use --listen-fd systemd: LISTEN_PID is 1, and this process is PID",
  ],
};

Deno.test("A number of systemd's sockets that cannot be right is refused before any is looked at", () => {
  for (const count of ["0", "-1", "1.5", "abc", "1025", "100000000", "4294967295"]) {
    const environment = (name: string) => ({ LISTEN_FDS: count, LISTEN_PID: `${Deno.pid}` })[name];
    const message = `cannot use --listen-fd systemd: LISTEN_FDS is ${count}, expected 1 to 1024`;
    assertThrows(() => readSystemd(environment).descriptors(), CommandError, message);
  }
});

Deno.test("systemd's variables say nothing in part, at the bounds, and where they ask for no watchdog", () => {
  const read = (variables: Record<string, string>) => readSystemd((name) => variables[name]);
  const pid = `${Deno.pid}`;
  for (const variables of [{ LISTEN_FDS: "1" }, { LISTEN_PID: pid }]) {
    assertThrows(() => read(variables).descriptors(), CommandError, "expected the variables LISTEN_FDS and LISTEN_PID");
  }
  assertEquals(read({ LISTEN_FDS: "1024", LISTEN_PID: pid }).descriptors().length, 1024);
  const { watchdogMs } = read({ WATCHDOG_USEC: "2000", WATCHDOG_PID: pid });
  assertEquals([watchdogMs, read({ WATCHDOG_USEC: "2000" }).watchdogMs], [2, 2]);
  for (const usec of ["", "0", "-1", "soon"]) assertEquals(read({ WATCHDOG_USEC: usec }).watchdogMs, undefined, usec);
});

for (const [what, [args, env, message]] of Object.entries(MISTAKES)) {
  test(`${what} is a mistake that one line names`, async () => {
    const { code, stderr } = await runCommand(args, { env, permissions: ["--allow-net", "--allow-env=LISTEN_*"] });
    assertEquals([code, stderr.replace(/process is \d+/, "process is PID")], [2, `shouty: ${message}\n`]);
  }, "");
}

for (const [engine, permissions] of Object.entries(ENGINES)) {
  test(`A server that had no free descriptor accepts again when a connection ends, with --engine ${engine}`, async () => {
    const fd = listeningFd();
    const args = ["run", ...permissions, "mod.ts", "--listen-fd", `${fd}`, "--engine", engine, "--idle-timeout", "off"];
    const limited = ["-c", `ulimit -n 70; exec "$0" "$@"`, Deno.execPath(), ...args];
    await using server = await listening(withFd(fd, () => new Subprocess("sh", limited, {})));
    // The kernel completes all of these, and the server can accept some only.
    const clients = await Promise.all(Array.from({ length: 90 }, () => Deno.connect({ port: server.port })));
    assertEquals(await ask(clients[0], "first\n"), "FIRST\n");
    for (const client of clients) client.close();
    assertEquals(await converse(server, "after\n"), "AFTER\n");
  });
}
