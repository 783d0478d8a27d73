import { assert, assertEquals, assertMatch } from "@std/assert";
import { TestClient } from "@x/shouty/testing";
import { Authority, makeIdentity } from "../../kit/certificates.ts";
import { ask, converse, HAS_SCRIPT, listening, NO_SIGNALS, runCommand, startCommand } from "../../kit/command.ts";
import { startInTerminal, startServer } from "../../kit/command.ts";
import type { ServerProcess, StartOptions } from "../../kit/command.ts";
import { NO_EPOLL } from "../../kit/sockets/epoll.ts";
import { AUTHORITY, IDENTITY } from "../../kit/tls.ts";

const PERMISSIONS = ["--allow-net", "--allow-read"];

/** Starts the command with two workers. */
function start(args: string[] = [], options: StartOptions = {}): Promise<ServerProcess> {
  return startServer(["--workers", "2", "--log-level", "debug", ...args], { permissions: PERMISSIONS, ...options });
}

/** Registers a test that signals end, once for each engine. */
function testEngines(name: string, body: (start: (args?: string[]) => Promise<ServerProcess>) => Promise<void>): void {
  Deno.test({
    name: `${name}, on Deno's sockets${NO_SIGNALS}`,
    ignore: NO_SIGNALS !== "",
    fn: () => body((args) => start(args)),
  });
  const permissions = [...PERMISSIONS, "--allow-ffi"];
  Deno.test({
    name: `${name}, on epoll${NO_EPOLL}`,
    ignore: NO_EPOLL !== "",
    fn: () => body((args = []) => start(["--engine", "epoll", ...args], { permissions })),
  });
}

/** Opens connections, each of which is answered. */
async function open(server: ServerProcess, count: number): Promise<Deno.TcpConn[]> {
  const conns = [];
  for (let i = 0; i < count; i++) {
    const conn = await Deno.connect({ port: server.port });
    assertEquals(await ask(conn, "hello\n"), "HELLO\n");
    conns.push(conn);
  }
  return conns;
}

testEngines(
  "Both workers of --workers 2 serve on the port that --port 0 has found, and one signal drains both",
  async (start) => {
    await using server = await start(["--log-format", "json"]);
    const conns = await open(server, 12);
    server.signal("SIGTERM");
    await server.stderrMatch(/"event":"draining"/);
    for (const conn of conns) assertEquals(await ask(conn, "last\n"), "LAST\n");
    for (const conn of conns) conn.close();
    const { code, stderr } = await server.outcome();
    assertEquals(code, 0, stderr);
    // Each line is whole: it is JSON.
    const lines = stderr.trimEnd().split("\n").map((line) => JSON.parse(line));
    const ids = lines.filter(({ event }) => event === "accepted").map(({ id }) => id);
    assertEquals(ids, Array.from({ length: 12 }, (_, i) => i + 1));
    assertEquals(lines.filter(({ event }) => event === "closed").length, 12);
    const stopped = lines.filter(({ event }) => event === "worker-stopped");
    assertEquals(stopped.map(({ worker }) => worker).toSorted(), [0, 1]);
    assertEquals(stopped.reduce((sum, { lines }) => sum + lines, 0), 24);
    for (const { accepted, lines } of stopped) assert(accepted >= 4 && lines === 2 * accepted, stderr);
    const ends = lines.map(({ event }) => event).filter((event) => ["draining", "stopped"].includes(event));
    assertEquals(ends, ["draining", "stopped"]);
  },
);

testEngines("In a storm, --max-connections holds for all workers together", async (start) => {
  await using server = await start(["--max-connections", "10"]);
  const replies = await Promise.all(Array.from({ length: 60 }, async () => {
    const client = new TestClient(await Deno.connect({ port: server.port }));
    await client.write("hello\n").catch(() => {});
    return { client, reply: await client.readLine().catch(() => null) };
  }));
  assertEquals(replies.filter(({ reply }) => reply === "HELLO").length, 10);
  for (const { client } of replies) client[Symbol.dispose]();
  server.signal("SIGTERM");
  const { stderr } = await server.outcome();
  assertEquals(stderr.match(/ warn rejected connection from \S+ \(max-connections 10\)\n/g)?.length, 50);
  assertEquals(stderr.match(/ info accepted connection from /g)?.length, 10);
});

testEngines("With workers, PROXY headers are read, and Telnet's commands are answered", async (start) => {
  await using server = await start(["--proxy-protocol", "127.0.0.1", "--telnet", "--max-connections-per-ip", "1"]);
  const header = (host: string) => `PROXY TCP4 ${host} 192.0.2.1 56324 443\r\n`;
  const first = await Deno.connect({ port: server.port });
  assertEquals(await ask(first, `${header("192.0.2.7")}hello\n`), "HELLO\n");
  // The limit is about the client behind the proxy, whichever worker has it.
  for (let i = 0; i < 3; i++) {
    assertMatch(await converse(server, `${header("192.0.2.7")}hello\n`), /^error: /);
    assertEquals(await converse(server, `${header(`192.0.2.${10 + i}`)}hello\n`), "HELLO\n");
  }
  first.close();
  await server.stderrMatch(/info closing connection from 192\.0\.2\.7:56324 /);
});

testEngines("SIGHUP gives all workers the new certificate, and loses no client, beside a plain port", async (start) => {
  const folder = await Deno.makeTempDir();
  const [cert, key] = [`${folder}/cert.pem`, `${folder}/key.pem`];
  const write = async (identity: { cert: string; key: string }) => {
    await Deno.writeTextFile(cert, identity.cert);
    await Deno.writeTextFile(key, identity.key);
  };
  await write(IDENTITY);
  await using server = await start(["--tls-port", "0", "--tls-cert", cert, "--tls-key", key]);
  const log = /info listening on 127\.0\.0\.1:\d+\n.*info listening on 127\.0\.0\.1:(\d+) \(TLS\)\n/;
  const port = Number((await server.stderrMatch(log))[1]);
  assertEquals(await converse(server, "plain\n"), "PLAIN\n");
  const connect = async () => {
    const client = new TestClient(await Deno.connectTls({ port, caCerts: [AUTHORITY.cert] }));
    await client.write("hello\n");
    assertEquals(await client.readLine(), "HELLO");
    return client;
  };
  const before = [await connect(), await connect(), await connect(), await connect()];
  // Only a client that trusts the other authority can speak with a server that has the new certificate.
  const other = new Authority("other authority");
  await write(makeIdentity("new server", { by: other }));
  server.signal("SIGHUP");
  await server.stderrMatch(/info took new certificate CN=new server, /);
  for (let i = 0; i < 6; i++) {
    using conn = await Deno.connectTls({ port, caCerts: [other.cert] });
    await conn.handshake();
  }
  for (const client of before) {
    await client.write("still here\n");
    assertEquals(await client.readLine(), "STILL HERE");
    client[Symbol.dispose]();
  }
  await Deno.writeTextFile(cert, "nonsense");
  server.signal("SIGHUP");
  await server.stderrMatch(/error kept the old certificate: /);
  server.signal("SIGTERM");
  assertEquals((await server.outcome()).code, 0);
  await Deno.remove(folder, { recursive: true });
});

testEngines("The admin port of the command shows both workers, and drains them", async (start) => {
  await using server = await start(["--admin", "127.0.0.1:0"]);
  const [, port] = await server.stderrMatch(/ info admin on 127\.0\.0\.1:(\d+)\n/);
  const conns = await open(server, 8);
  const status = await (await fetch(`http://127.0.0.1:${port}/status`)).json();
  assertEquals([status.stats.active, status.stats.lines, status.workers.length], [8, 8, 2]);
  for (const { lines } of status.workers) assert(lines > 0, JSON.stringify(status.workers));
  const drained = await fetch(`http://127.0.0.1:${port}/drain`, { method: "POST", body: '{"drain":"finish"}' });
  assertEquals([drained.status, (await drained.json()).state], [202, "draining"]);
  const { code, stderr } = await server.outcome();
  assertEquals([code, stderr.match(/ info closing connection from \S+ \(drained, /g)?.length], [0, 8]);
  for (const conn of conns) conn.close();
});

Deno.test("A port that another socket has ends the start with one line, also if that would share it", async () => {
  const script = `const l = Deno.listen({ hostname: "127.0.0.1", port: 0, reusePort: true });
    console.log(l.addr.port); await Deno.stdin.read(new Uint8Array(1)); l.close();`;
  const args = ["eval", "--unstable-net", script];
  const piped = { stdin: "piped", stdout: "piped", stderr: "null" } as const;
  await using sharer = new Deno.Command(Deno.execPath(), { args, env: { NO_COLOR: "1" }, ...piped }).spawn();
  const reader = sharer.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const { value = "" } = await reader.read();
  const address = ["--hostname", "127.0.0.1", "--port", value.trim()];
  const { code, stderr } = await runCommand(["--workers", "2", ...address], { permissions: PERMISSIONS });
  const line = `shouty: cannot listen on 127.0.0.1:${value.trim()}: address already in use\n`;
  assertEquals([code, stderr], [1, line]);
  await sharer.stdin.close();
  await reader.cancel();
});

Deno.test("Where it may not try whether sockets can be shared, one worker serves, and a line says so", async () => {
  using finder = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = finder.addr;
  finder.close();
  const permissions = [`--allow-net=127.0.0.1:${port}`, "--allow-read"];
  const address = ["--hostname", "127.0.0.1", "--port", `${port}`];
  await using server = await listening(startCommand(["--workers", "2", ...address], { permissions }));
  assertMatch(
    server.stderr,
    / warn one worker serves alone, as several cannot share a port: no permission to try it, which --allow-net=127\.0\.0\.1 grants\n/,
  );
  assertEquals(await converse(server, "hello\n"), "HELLO\n");
});

for (
  const [args, message] of [
    [["--workers", "0"], 'cannot use --workers "0": expected a whole number from 1 to 128, auto or off'],
    [["--workers", "129"], 'cannot use --workers "129": expected a whole number from 1 to 128, auto or off'],
    [["--workers", "all"], 'cannot use --workers "all": expected a whole number from 1 to 128, auto or off'],
    [["--workers", "2", "--unix", "/tmp/x.sock"], "cannot use --workers with --unix: expected one of them"],
    [["--workers", "2", "--listen-fd", "3"], "cannot use --workers with --listen-fd: expected one of them"],
    [["--workers", "2", "--upgrade"], "cannot use --workers with --upgrade: expected one of them"],
    [["--workers", "2", "--trace"], "cannot use --workers with --trace: expected one of them"],
  ] as const
) {
  Deno.test(`${args.join(" ")} ends the start with 2 and one line`, async () => {
    const { code, stderr } = await runCommand([...args], { permissions: PERMISSIONS });
    assertEquals([code, stderr], [2, `shouty: ${message}\n`]);
  });
}

Deno.test("The permission for a name alone is not enough for workers, and one line says for which address they need it", async () => {
  const permissions = ["--no-prompt", "--allow-read", "--allow-net=localhost"];
  const args = ["--workers", "2", "--hostname", "localhost", "--port", "0"];
  const { code, stderr } = await runCommand(args, { permissions });
  const message =
    /^shouty: cannot listen on localhost:0: no permission for the workers to use (\S+):\d+, which --allow-net=(\S+) grants\n$/;
  assertMatch(stderr, message);
  const [, used, granted] = message.exec(stderr)!;
  assertEquals([code, used, ["127.0.0.1", "[::1]"].includes(used)], [1, granted, true]);
});

Deno.test("Without the permission to read all its modules, no worker starts, and one line says so", async () => {
  const line = "shouty: cannot start a worker: no permission to read its modules, which --allow-read grants\n";
  for (
    const read of [[], ["--allow-read=cli"], [
      "--allow-read=cli/serve/worker.ts,cli/serve/wrap.ts,conn.ts,internal,server.ts",
    ]]
  ) {
    const permissions = ["--allow-net", ...read];
    const { code, stderr } = await runCommand(["--workers", "2", "--port", "0"], { permissions });
    assertEquals([code, stderr], [1, line]);
  }
});

Deno.test("A worker needs to read no other file than its modules", async () => {
  const read = "--allow-read=cli/serve/worker.ts,cli/serve/wrap.ts,conn.ts,internal,ops,server.ts";
  await using server = await start([], { permissions: ["--no-prompt", "--allow-net", read] });
  assertEquals(await converse(server, "a\n"), "A\n");
});

Deno.test("--workers auto starts one worker per processor", async () => {
  const args = ["--workers", "auto", "--log-level", "debug"];
  await using server = await startServer(args, { permissions: PERMISSIONS });
  const started = server.stderr.match(/ debug worker \d+ serves\n/g);
  assertEquals(started?.length, Math.min(navigator.hardwareConcurrency, 128));
});

Deno.test({
  name: "On a terminal, Deno asks for no permission for the sake of workers" +
    (HAS_SCRIPT ? "" : " (skipped: no util-linux script)"),
  ignore: !HAS_SCRIPT,
  async fn() {
    const args = ["--hostname", "127.0.0.1", "--port", "0", "--workers", "2"];
    await using server = startInTerminal(["run", ...PERMISSIONS, "mod.ts", ...args]);
    // On a terminal, stderr is stdout.
    const [, what] = await server.stdoutMatch(/(listening on|requests|Allow\?)/);
    assertEquals(what, "listening on", server.stdout);
    // It outlives its terminal, as a server should: only a signal ends it.
    await server.type("\x03");
    await server.exitCode();
  },
});
