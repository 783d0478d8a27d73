import { assertEquals, assertMatch } from "@std/assert";
import manifest from "../../deno.json" with { type: "json" };
import {
  type Address,
  ask,
  converse,
  listening,
  NO_SIGNALS,
  runCommand,
  runRedirected,
  type ServerProcess,
  signalTest,
  startCommand,
  startServer,
  Subprocess,
  unlessLate,
} from "../kit/command.ts";

const WITH_ENV = ["--allow-net", "--allow-env=SHOUTY_*"];

const NO_SH = Deno.build.os === "windows" ? " (skipped: Windows has no sh)" : "";
const NO_FULL_DISK = Deno.build.os === "linux" ? "" : " (skipped: /dev/full is Linux's)";
const ON_MAC = Deno.build.os === "darwin" ? " (skipped: macOS has one loopback address)" : "";
const SKIPPED = ON_MAC || NO_SIGNALS;

/** The lines of a log, without their times. */
function lines(stderr: string): string[] {
  return stderr.trimEnd().split("\n").map((line) => line.replace(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z /, ""));
}

/** Connects, and waits until the server has logged it. */
async function connectTo(server: ServerProcess): Promise<Deno.TcpConn> {
  const conn = await Deno.connect({ hostname: server.hostname, port: server.port });
  await server.stderrMatch(new RegExp(`accepted connection from ${conn.localAddr.hostname}:${conn.localAddr.port}`));
  return conn;
}

/** Connects as soon as that is possible, within a minute. */
async function connectWhenListening(address: Address): Promise<Deno.TcpConn> {
  for (let tries = 3000;; tries--) {
    try {
      return await Deno.connect(address);
    } catch (error) {
      if (tries === 0) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

signalTest("shouty serves, logs what happens, drains on SIGTERM and exits with 0", async () => {
  await using server = await startServer();
  assertEquals(await converse(server, "Hello. How are you?\r\nOk"), "HELLO. HOW ARE YOU?\nOK\n");
  using conn = await connectTo(server);
  const { port } = conn.localAddr;
  server.signal("SIGTERM");
  await server.stderrMatch(/waiting on 1 connection\n/);
  await conn.write(new TextEncoder().encode("bye\n"));
  await conn.closeWrite();
  const { code, stdout, stderr } = await server.outcome();
  assertEquals([code, stdout], [0, ""]);
  const name = (addr: string) => ({ [server.port]: "SERVER", [port]: "SECOND" })[addr.split(":")[1]] ?? "FIRST";
  const log = lines(stderr).map((line) => line.replace(/\d\.\d s/, "N s").replace(/127.0.0.1:\d+/, name));
  assertEquals(log.filter((line) => line !== "info waiting on 1 connection"), [
    "info listening on SERVER",
    "info accepted connection from FIRST",
    "info closing connection from FIRST (end, 2 lines, 23 bytes in, 23 bytes out, N s)",
    "info accepted connection from SECOND",
    "info shutting down",
    "info closing connection from SECOND (end, 1 line, 4 bytes in, 4 bytes out, N s)",
    "info all connections closed",
  ]);
});

signalTest("With --log-format json, each line of the log is an object whose msg is the text", async () => {
  await using server = await startServer(["--log-format", "json"]);
  await converse(server, "hi\n");
  server.signal("SIGINT");
  const { code, stderr } = await server.outcome();
  const log = lines(stderr).map((line) => JSON.parse(line));
  assertEquals([code, log.length], [0, 5]);
  assertEquals(log[0].msg, `listening on 127.0.0.1:${server.port}`);
  const { msg, reason, lines: count, bytesIn, bytesOut, remote } = log[2];
  assertEquals([reason, count, bytesIn, bytesOut], ["end", 1, 3, 3]);
  assertMatch(msg, new RegExp(`^closing connection from ${remote} \\(end, 1 line, 3 bytes in, 3 bytes out, .+ s\\)$`));
  assertEquals(log.map(({ level }) => level), Array(5).fill("info"));
});

signalTest("With --log-level debug, the options, the engine and the signal are logged too", async () => {
  await using server = await startServer(["--log-level", "debug", "--idle-timeout=off"]);
  server.signal("SIGTERM");
  const log = lines((await server.outcome()).stderr);
  assertEquals(log[1], "debug engine is deno");
  assertEquals(log.toSpliced(0, 3), ["debug received SIGTERM", "info shutting down", "info all connections closed"]);
  assertMatch(log[0], /^debug options are {"hostname":"127.0.0.1","port":0,"unix":null,.*"idleTimeout":"off",/);
});

for (
  const [level, expected] of [["warn", /^warn rejected connection from \S+ \(max-connections 1\)$/], ["error", /^$/]]
) {
  Deno.test({
    name: `With --log-level ${level}, connections that come and go are not logged${SKIPPED}`,
    ignore: SKIPPED !== "",
    async fn() {
      // The log does not have the port at this level. A port that is in use at one address is free at another.
      using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
      const address = { hostname: "127.0.0.2", port: taken.addr.port };
      const flags = ["--hostname", address.hostname, "--port", `${address.port}`, "--max-connections", "1"];
      await using server = startCommand([...flags, "--log-level", `${level}`]);
      using conn = await connectWhenListening(address);
      assertEquals(await ask(conn, "a\n"), "A\n");
      assertEquals(await converse(address, "b\n"), "error: more than 1 connection\n");
      server.signal("SIGTERM");
      await conn.closeWrite();
      const { code, stderr } = await server.outcome();
      assertEquals(code, 0);
      assertMatch(lines(stderr).join("\n"), expected as RegExp);
    },
  });
}

Deno.test("An environment variable stands for its flag, and the flag wins", async () => {
  const env = { SHOUTY_LOG_FORMAT: "json", SHOUTY_MAX_LINE_BYTES: "4", SHOUTY_PORT: "nonsense" };
  await using server = await startServer(["--max-line-bytes", "3"], { env, permissions: WITH_ENV });
  assertEquals(await converse(server, "1234\n"), "error: line longer than 3 bytes\n");
  assertEquals(JSON.parse(server.stderr.split("\n")[0]).level, "info");
  const wrong = await runCommand([], { env, permissions: WITH_ENV });
  assertEquals(wrong.stderr, `shouty: cannot use SHOUTY_PORT "nonsense": expected a whole number from 0 to 65535\n`);
  assertEquals([wrong.code, wrong.stdout], [2, ""]);
});

Deno.test("A command line that is wrong ends it with 2 and one line", async () => {
  for (
    const args of [["--port", "70000"], ["--port"], ["--drain=now"], ["stray"], ["connect", "nowhere"], ["completions"]]
  ) {
    const { code, stdout, stderr } = await runCommand(args);
    assertEquals([code, stdout], [2, ""]);
    assertMatch(stderr, /^shouty: .*: expected .*\n$/);
  }
});

Deno.test({
  name: `A variable that is not UTF-8 ends it with 2 and one line, which has no value${NO_SH}`,
  ignore: NO_SH !== "",
  async fn() {
    for (const variable of ["SHOUTY_DRAIN", "SHOUTY_ADMIN_TOKEN", "NOTIFY_SOCKET"]) {
      const server = `"$0" run --allow-net=127.0.0.1 --allow-env=${variable} mod.ts --hostname 127.0.0.1 --port 0`;
      const command = ["-c", `${variable}="$(printf 'caf\\351')" exec ${server}`, Deno.execPath()];
      await using process = new Subprocess("sh", command, { input: "" });
      const stderr = `shouty: cannot use ${variable}: expected text in UTF-8\n`;
      assertEquals(await process.outcome(), { code: 2, stdout: "", stderr });
    }
  },
});

Deno.test({
  name: "A full disk below stdout is told in one line, and one below stderr by the exit code" + NO_FULL_DISK,
  ignore: NO_FULL_DISK !== "",
  async fn() {
    const stderr = "shouty: cannot write to stdout: no space left on device\n";
    for (const flag of ["--help", "--version"]) {
      assertEquals(await runRedirected(">/dev/full", [flag]), { code: 1, stdout: "", stderr });
    }
    assertEquals(await runRedirected("2>/dev/full", ["--bogus"]), { code: 2, stdout: "", stderr: "" });
  },
});

Deno.test("--help and --version answer on stdout, whatever else is there", async () => {
  const help = await runCommand(["--bogus", "--help"]);
  assertEquals([help.code, help.stderr], [0, ""]);
  assertMatch(help.stdout, /^--idle-timeout TIME\|off +10s +\S/m);
  const version = await runCommand(["--version"], { permissions: [] });
  assertEquals([version.code, version.stdout], [0, `shouty ${manifest.version}\n`]);
});

Deno.test("A port that is taken ends it with 1 and one line", async () => {
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = taken.addr;
  const { code, stderr } = await runCommand(["--hostname=127.0.0.1", `--port=${port}`]);
  assertEquals([code, stderr], [1, `shouty: cannot listen on 127.0.0.1:${port}: address already in use\n`]);
});

Deno.test("A host that does not resolve ends it with 1 and one line", async () => {
  const { code, stderr } = await runCommand(["--hostname", "no-such-host.invalid", "--port", "0"]);
  assertEquals(code, 1);
  assertMatch(stderr, /^shouty: cannot listen on no-such-host\.invalid:0: .+\n$/);
});

for (const [signal, exitCode] of [["SIGINT", 130], ["SIGQUIT", 131], ["SIGTERM", 143]] as const) {
  signalTest(
    `A second ${signal} ends it at once with ${exitCode}, unless it comes within 300 ms of the first`,
    () =>
      unlessLate(() => startCommand(["--hostname=127.0.0.1", "--port=0", "--drain-timeout=off"]), async (command) => {
        const server = await listening(command);
        using _ = await connectTo(server);
        server.signal("SIGTERM");
        await server.stderrMatch(/shutting down\n/);
        server.signal(signal);
        await server.stderrMatch(/waiting on 1 connection\n/);
        server.signal(signal);
        const { code, stderr } = await server.outcome();
        assertMatch(stderr, new RegExp(`warn ending at once: ${signal}, \\d+ ms after the first signal\n`));
        assertEquals(stderr.match(/shutting down/g)?.length, 1);
        assertEquals(code, exitCode);
      }),
  );
}

signalTest("SIGQUIT drains: a client that is there goes on, and the exit code is 0", async () => {
  await using server = await startServer(["--drain-timeout=off"]);
  using conn = await connectTo(server);
  server.signal("SIGQUIT");
  await server.stderrMatch(/waiting on 1 connection\n/);
  assertEquals(await ask(conn, "still here\n"), "STILL HERE\n");
  await conn.closeWrite();
  assertEquals((await server.outcome()).code, 0);
});

signalTest("SIGHUP without a certificate is ignored, with a line", async () => {
  await using server = await startServer();
  server.signal("SIGHUP");
  await server.stderrMatch(/info ignored SIGHUP: there is no certificate to read again\n/);
  assertEquals(await converse(server, "still there?\n"), "STILL THERE?\n");
  server.signal("SIGTERM");
  assertEquals((await server.outcome()).code, 0);
});

Deno.test("With --telnet on, Telnet's commands are no part of a line, and without it they are", async () => {
  const send = async (server: ServerProcess) => {
    using conn = await connectTo(server);
    // An h, IAC NOP, an i and LF.
    await conn.write(Uint8Array.of(104, 255, 241, 105, 10));
    const buffer = new Uint8Array(64);
    return new TextDecoder().decode(buffer.subarray(0, await conn.read(buffer) ?? 0));
  };
  await using on = await startServer(["--telnet", "on"]);
  await using off = await startServer();
  assertEquals([await send(on), await send(off)], ["HI\n", "H\ufffd\ufffdI\n"]);
});

signalTest("Connections that the drain timeout cuts are a warning, and the exit code is 0", async () => {
  await using server = await startServer(["--drain-timeout", "100ms"]);
  using _one = await connectTo(server);
  using _two = await connectTo(server);
  server.signal("SIGTERM");
  const { code, stderr } = await server.outcome();
  assertEquals(code, 0);
  assertEquals(lines(stderr).slice(-2), ["warn cut 2 connections at the drain timeout", "info all connections closed"]);
});

signalTest("With --drain finish, a silent connection does not hold up the shutdown", async () => {
  await using server = await startServer(["--drain=finish", "--drain-timeout=off", "--idle-timeout=off"]);
  using conn = await connectTo(server);
  server.signal("SIGTERM");
  assertEquals(await conn.read(new Uint8Array(1)), null);
  conn.close();
  const { code, stderr } = await server.outcome();
  assertEquals(code, 0);
  assertMatch(stderr, /closing connection from \S+ \(drained, /);
});
