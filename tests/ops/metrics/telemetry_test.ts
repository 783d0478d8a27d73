import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { exportTelemetry, ServerMetrics } from "@x/shouty/ops";
import { INSTRUMENTS } from "../../../ops/metrics/instruments.ts";
import { Spans } from "../../../ops/metrics/spans.ts";
import { test } from "../../kit/bounded.ts";
import { ask, converse, runCommand, signalTest, startServer, Subprocess } from "../../kit/command.ts";
import { NO_EPOLL } from "../../kit/sockets/epoll.ts";
import { OtlpReceiver } from "../../kit/figures/otlp.ts";
import { AUTHORITY, IDENTITY } from "../../kit/tls.ts";

const ROOT = new URL("../../../", import.meta.url);

/** A server that has each figure, run with the permission to use the network alone. */
const SERVER = `
  import { serve } from ${JSON.stringify(new URL("mod.ts", ROOT))};
  import { exportTelemetry, ServerMetrics } from ${JSON.stringify(new URL("ops/mod.ts", ROOT))};
  const metrics = new ServerMetrics();
  const telemetry = exportTelemetry(metrics);
  const traces = [];
  const handler = metrics.timed(async (line, conn) => {
    traces.push(telemetry.traceOf(conn.id));
    if (line === "throw") throw new RangeError("asked for it");
    return line.toUpperCase();
  });
  const server = serve({
    hostname: "127.0.0.1", port: 0, maxConnections: 1, maxLineBytes: 20,
    onEvent(event) {
      metrics.onEvent(event);
      if (event.type === "closed") traces.push(telemetry.traceOf(event.conn.id));
      if (event.type === "handler-error") throw new Error("a hook that throws");
      if (event.type === "rejected") metrics.onHandshake({ type: "begun" });
    },
  }, handler);
  metrics.watch(server);
  metrics.onHandshake({ type: "begun" });
  metrics.onHandshake({ type: "ended", durationMs: 20, tls: { version: "TLSv1.3" } });
  metrics.onEvent({ type: "gone", error: undefined });
  metrics.onEvent({ type: "accept-error", error: new Deno.errors.PermissionDenied("no"), retryMs: 0 });
  console.error("listening on 127.0.0.1:" + server.addr.port);
  const line = await new Response(Deno.stdin.readable).text();
  await server.shutdown({ drainTimeout: 50 });
  console.log(JSON.stringify({ traces, after: telemetry.traceOf(1), stats: server.stats() }));
`;

/** Starts {@linkcode SERVER}. */
async function startExporting(env: Record<string, string>) {
  const file = await Deno.makeTempFile({ suffix: ".js" });
  await Deno.writeTextFile(file, SERVER);
  const config = `${import.meta.dirname}/../../../deno.json`;
  const args = ["run", "--no-prompt", "--no-check", "--config", config, "--allow-net=127.0.0.1", file];
  const process = new Subprocess(Deno.execPath(), args, { env });
  const [, port] = await process.stderrMatch(/listening on 127\.0\.0\.1:(\d+)/);
  return {
    address: { hostname: "127.0.0.1", port: Number(port) },
    /** Ends the server; returns what it has printed. */
    async end() {
      await process.endInput();
      const { code, stdout, stderr } = await process.outcome();
      assertEquals(code, 0, stderr);
      return { stderr, result: JSON.parse(/^\{"traces".*$/m.exec(stdout)![0]) };
    },
    async [Symbol.asyncDispose]() {
      await process[Symbol.asyncDispose]();
      await Deno.remove(file);
    },
  };
}

test("Every figure is exported by its name, with its unit and its values, and each connection has its span", async () => {
  await using receiver = new OtlpReceiver();
  await using server = await startExporting(receiver.env);
  const conn = await Deno.connect(server.address);
  assertEquals(await ask(conn, "hello\n"), "HELLO\n");
  // Open connections and queued ones are exported while they last.
  await receiver.until(() => receiver.points("shouty.active_connections")[0]?.value === 1);
  await receiver.until(() => receiver.points("shouty.queued_connections")[0]?.value === 0);
  await receiver.until(() => receiver.points("shouty.lines")[0]?.value === 1);
  assertEquals(await converse(server.address, "more\n"), "error: more than 1 connection\n");
  await ask(conn, "throw\n");
  conn.close();
  await receiver.until(() => receiver.points("shouty.active_connections")[0]?.value === 0);
  assertEquals(await converse(server.address, "bye\n"), "BYE\n");
  const { result: { stats, traces, after } } = await server.end();

  const exported = Array.from(receiver.metrics, ([name, { unit, kind }]) => [name, unit, kind].join(" "));
  const table = Object.values(INSTRUMENTS).map(({ name, unit, kind }) => [name, unit, kind].join(" "));
  // Nothing has added to this one.
  const unchanged = "shouty.active_handlers {handler} gauge";
  assertEquals(new Set([...exported, unchanged]), new Set(table));
  const values = (name: string) => {
    return Object.fromEntries(receiver.points(name).map(({ attributes, value }) => [attributes, value]));
  };
  const counts = (name: string) => {
    return Object.fromEntries(receiver.points(name).map(({ attributes, count }) => [attributes, count]));
  };
  assertEquals(values("shouty.accepted_connections"), { "": stats.accepted });
  assertEquals(values("shouty.active_connections"), { "": 0 });
  assertEquals(values("shouty.closed_connections"), {
    "shouty.close.reason=handler-error": 1,
    "shouty.close.reason=end": 1,
  });
  assertEquals(counts("shouty.connection.duration"), { "error.type=handler-error": 1, "": 1 });
  assertEquals(values("shouty.rejected_connections"), { "error.type=max-connections": stats.rejected });
  assertEquals(values("shouty.gone_connections"), { "": 1 });
  assertEquals(values("shouty.lines"), { "": stats.lines });
  const { bytesIn, bytesOut } = stats;
  assertEquals(values("shouty.network.io"), {
    "network.io.direction=receive": bytesIn,
    "network.io.direction=transmit": bytesOut,
  });
  assertEquals(counts("shouty.handler.duration"), { "": 2, "error.type=RangeError": 1 });
  assertEquals(values("shouty.handler_errors"), { "": 1 });
  assertEquals(values("shouty.hook_errors"), { "": 1 });
  assertEquals(values("shouty.accept_errors"), { "error.type=PermissionDenied": 1 });
  assertEquals(values("shouty.active_tls_handshakes"), { "": 1 });
  assertEquals(counts("shouty.tls_handshake.duration"), { "tls.protocol.version=1.3": 1 });
  for (const { name, boundaries } of Object.values(INSTRUMENTS)) {
    if (boundaries !== undefined) assertEquals(receiver.metrics.get(name)!.bounds, boundaries, name);
  }

  const [failed, ended] = receiver.spans;
  assertEquals(receiver.spans.length, 2);
  assertEquals([failed.name, failed.kind, failed.failed, ended.failed], ["connection", 2, true, false]);
  const { "network.peer.port": peerPort, ...attributes } = failed.attributes;
  assertEquals(typeof peerPort, "number");
  assertEquals(attributes, {
    "shouty.connection.id": 1,
    "network.peer.address": "127.0.0.1",
    "server.address": "127.0.0.1",
    "server.port": server.address.port,
    "network.transport": "tcp",
    "network.type": "ipv4",
    "shouty.close.reason": "handler-error",
    "shouty.lines": 2,
    "shouty.bytes_in": 12,
    "shouty.bytes_out": failed.attributes["shouty.bytes_out"],
    "error.type": "handler-error",
  });
  const ids = ({ traceId, spanId }: { traceId: string; spanId: string }) => ({ traceId, spanId });
  assertEquals(traces.slice(0, 3), [ids(failed), ids(failed), ids(failed)]);
  assertEquals(traces.slice(3), [ids(ended), ids(ended)]);
  assertEquals(after, undefined);
});

test("The console exporter prints figures and spans", async () => {
  const env = { OTEL_DENO: "true", OTEL_EXPORTER_OTLP_PROTOCOL: "console" };
  await using server = await startExporting(env);
  assertEquals(await converse(server.address, "hello\n"), "HELLO\n");
  const { stderr } = await server.end();
  assertMatch(stderr, /^SPAN connection \[[\da-f]{32}\/[\da-f]{16}\] Server /m);
  assertMatch(stderr, /^METRIC shouty\.accepted_connections \(Sum, unit=\{connection\}\)$/m);
  assertMatch(stderr, /^METRIC shouty\.handler\.duration \(Histogram, unit=s\)$/m);
});

signalTest("With OTEL_DENO=true, the command exports by itself, and its log lines carry the trace", async () => {
  await using receiver = new OtlpReceiver();
  await using server = await startServer(["--log-format", "json"], { env: receiver.env });
  assertEquals(await converse(server, "one\ntwo\n"), "ONE\nTWO\n");
  server.signal("SIGTERM");
  const { code, stderr } = await server.outcome();
  assertEquals(code, 0, stderr);
  const lines = stderr.trimEnd().split("\n").map((line) => JSON.parse(line));
  const [{ traceId, spanId, attributes }] = receiver.spans;
  assertEquals([attributes["shouty.lines"], receiver.points("shouty.lines")[0].value], [2, 2]);
  for (const line of lines) {
    const ofConn = line.event === "accepted" || line.event === "closed";
    assertEquals([line.trace_id, line.span_id], ofConn ? [traceId, spanId] : [undefined, undefined]);
  }
  assertEquals(receiver.points("shouty.handler.duration")[0].count > 0, true);
});

test("The command exports its TLS handshakes", async () => {
  await using receiver = new OtlpReceiver();
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(`${folder}/both.pem`, IDENTITY.cert + IDENTITY.key);
  const options = { env: receiver.env, permissions: ["--allow-net", "--allow-read"] };
  await using server = await startServer(["--tls-cert", `${folder}/both.pem`], options);
  const conn = await Deno.connectTls({ port: server.port, caCerts: [AUTHORITY.cert] });
  await conn.handshake();
  await receiver.until(() => receiver.points("shouty.tls_handshake.duration").length > 0);
  const [{ attributes, count }] = receiver.points("shouty.tls_handshake.duration");
  assertEquals([attributes, count], ["tls.protocol.version=1.3", 1]);
  conn.close();
  await Deno.remove(folder, { recursive: true });
});

test("A span has the addresses of both ends, as far as there are any", () => {
  const addressesOf = (remoteAddr: Deno.Addr, localAddr: Deno.Addr) => {
    let seen: Record<string, unknown> = {};
    const startSpan = (_: string, { attributes }: { attributes: Record<string, unknown> }) => (seen = attributes, {});
    new Spans({ startSpan } as never).event({ type: "accepted", conn: { id: 1, remoteAddr, localAddr } });
    return seen;
  };
  const tcp = (port: number) => ({ transport: "tcp", hostname: "2001:db8::1", port }) as const;
  assertEquals(addressesOf(tcp(1), tcp(2)), {
    ...{ "shouty.connection.id": 1n, "network.transport": "tcp", "network.type": "ipv6" },
    ...{ "network.peer.address": "2001:db8::1", "network.peer.port": 1n },
    ...{ "server.address": "2001:db8::1", "server.port": 2n },
  });
  const unix = (path: string | null) => ({ transport: "unix", path }) as Deno.UnixAddr;
  assertEquals(addressesOf(unix(null), unix("/run/shouty.sock")), {
    ...{ "shouty.connection.id": 1n, "network.transport": "unix", "server.address": "/run/shouty.sock" },
  });
});

signalTest("With OTEL_DENO=true, the command ends without Deno.exit, which may hang during an export", async () => {
  await using receiver = new OtlpReceiver();
  const preload = `${await Deno.makeTempDir()}/no_exit.js`;
  await Deno.writeTextFile(preload, `Deno.exit = () => console.log("Deno.exit was called");`);
  const options = { env: receiver.env, permissions: ["--allow-net", `--preload=${preload}`] };
  await using server = await startServer([], options);
  assertEquals(await converse(server, "one\n"), "ONE\n");
  server.signal("SIGTERM");
  const refused = await runCommand(["--prot", "1"], options);
  const stopped = await server.outcome();
  assertEquals([stopped.code, stopped.stdout, refused.code, refused.stdout], [0, "", 2, ""]);
  await Deno.remove(preload.replace("/no_exit.js", ""), { recursive: true });
});

for (const args of [[], ["--workers", "2"]]) {
  test(
    `Figures are exported while --engine epoll ${args.join(" ")} runs, and a second signal ends it`,
    async () => {
      await using receiver = new OtlpReceiver();
      const permissions = ["--allow-net", "--allow-ffi", "--allow-read"];
      await using server = await startServer(["--engine", "epoll", ...args], { env: receiver.env, permissions });
      using conn = await Deno.connect({ port: server.port });
      assertEquals(await ask(conn, "one\n"), "ONE\n");
      await receiver.until(() => receiver.points("shouty.active_connections")[0]?.value === 1);
      server.signal("SIGTERM");
      await server.stderrMatch(/waiting on 1 connection/);
      server.signal("SIGTERM");
      assertEquals((await server.outcome()).code, 143);
    },
    60,
    NO_EPOLL,
  );
}

signalTest("Without OTEL_DENO=true, the command's log lines carry no trace", async () => {
  await using server = await startServer(["--log-format", "json"], { env: { OTEL_DENO: "false" } });
  assertEquals(await converse(server, "one\n"), "ONE\n");
  server.signal("SIGTERM");
  const { stderr } = await server.outcome();
  assert(!stderr.includes("trace_id"), stderr);
});

test("Exporting needs telemetry that is on, and figures", () => {
  const metrics = new ServerMetrics();
  const message = "Cannot export telemetry: it is on only with OTEL_DENO=true";
  assertThrows(() => exportTelemetry(metrics), Deno.errors.NotSupported, message);
  const wrong = "Cannot use metrics: expected a ServerMetrics, got";
  assertThrows(() => exportTelemetry({} as never), TypeError, wrong);
});
