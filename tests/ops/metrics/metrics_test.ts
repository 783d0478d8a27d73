import { assertAlmostEquals, assertEquals, assertLess, assertThrows } from "@std/assert";
import { CLOSE_REASONS, type CloseReason } from "../../../internal/api/reasons.ts";
import { type ConnInfo, shout } from "@x/shouty";
import { type Attributes, type Instrument, ServerMetrics } from "@x/shouty/ops";
import { test, testOnce } from "../../kit/bounded.ts";
import { values } from "../../kit/figures/figures.ts";
import { startServer, type TestServer } from "../../kit/server.ts";

const addr = { transport: "tcp", hostname: "127.0.0.1", port: 1 } as const;
const CONN: ConnInfo = { id: 1, remoteAddr: addr, localAddr: addr };

/** Checks the figures against the server's own counters, at any time. */
function checkFigures(metrics: ServerMetrics, { stats }: TestServer): void {
  const figures = values(metrics);
  const closed = CLOSE_REASONS.map((reason) => figures[`shouty_closed_connections_total ${reason}`]);
  const accepted = figures.shouty_accepted_connections_total;
  assertEquals(accepted, figures.shouty_active_connections + closed.reduce((sum, count) => sum + count));
  assertEquals(closed, CLOSE_REASONS.map((reason) => stats.closed[reason]));
  const rejected = Object.entries(figures).filter(([name]) => name.startsWith("shouty_rejected_connections_total "));
  assertEquals({
    accepted,
    active: figures.shouty_active_connections,
    rejected: rejected.reduce((sum, [, count]) => sum + count, 0),
    gone: figures.shouty_gone_connections_total,
    handlers: figures.shouty_active_handlers,
    hookErrors: figures.shouty_hook_errors_total,
    queued: figures.shouty_queued_connections,
    lines: figures.shouty_lines_total,
    bytesIn: figures["shouty_network_io_bytes_total receive"],
    bytesOut: figures["shouty_network_io_bytes_total transmit"],
  }, {
    ...{ accepted: stats.accepted, active: stats.active, rejected: stats.rejected, gone: stats.gone },
    ...{ handlers: stats.handlers, hookErrors: stats.hookErrors, queued: stats.queued },
    ...{ lines: stats.lines, bytesIn: stats.bytesIn, bytesOut: stats.bytesOut },
  });
}

test("The figures are those of the server's counters while connections come, talk and go", async () => {
  const metrics = new ServerMetrics();
  const options = { maxConnections: 3, maxLineBytes: 20, onEvent: metrics.onEvent };
  await using t = startServer(
    options,
    metrics.timed((line) => {
      if (line === "throw") throw new RangeError("asked for it");
      return shout(line);
    }),
  );
  metrics.watch(t.server);
  checkFigures(metrics, t);
  const first = await t.admitted();
  await first.write("one\ntwo\n");
  assertEquals([await first.readLine(), await first.readLine()], ["ONE", "TWO"]);
  checkFigures(metrics, t);
  assertEquals(await t.talk("three\n"), "THREE\n");
  const thrower = await t.admitted();
  await thrower.write("throw\n");
  await thrower.readAll();
  thrower.close();
  const long = await t.admitted();
  await long.write("this line is much too long\n");
  await long.readAll();
  await long.closeWrite();
  await t.closed(3);
  const more = [await t.admitted(), await t.admitted()];
  const refused = await t.connect();
  await refused.readAll();
  refused.close();
  await t.until("rejected");
  checkFigures(metrics, t);
  assertEquals(metrics.snapshot().active, 3);
  assertEquals(metrics.snapshot().rejected, { "max-connections": 1 });
  for (const client of [first, ...more]) await client.closeWrite();
  await t.closed(6);
  checkFigures(metrics, t);
  const figures = values(metrics);
  assertEquals(figures["shouty_connection_duration_seconds handler-error"], 1);
  assertEquals(figures["shouty_connection_duration_seconds line-too-long"], 1);
  assertEquals(figures["shouty_connection_duration_seconds"], 4);
  assertEquals(figures["shouty_handler_duration_seconds"], 3);
  assertEquals(figures["shouty_handler_duration_seconds RangeError"], 1);
  assertEquals(figures["shouty_handler_errors_total"], 1);
});

test("What is not exported before the end is exported at the end", async () => {
  const metrics = new ServerMetrics();
  const sink = new Sums();
  metrics.addSink(sink);
  const t = startServer({ onEvent: metrics.onEvent });
  metrics.watch(t.server);
  assertEquals(await t.talk("hello\n"), "HELLO\n");
  await t[Symbol.asyncDispose]();
  assertEquals(sink.sums["shouty.lines"], 1);
  assertEquals(sink.sums["shouty.network.io receive"], 6);
  assertEquals(sink.sums["shouty.active_connections"], 0);
  assertEquals(sink.sums["shouty.connection.duration"] > 0, true);
});

/** An exporter that adds up what it gets. */
class Sums {
  readonly sums: Record<string, number> = {};
  readonly events: string[] = [];

  add({ name }: Instrument, amount: number, attributes: Attributes): void {
    const key = [name, ...Object.values(attributes ?? {})].join(" ");
    this.sums[key] = (this.sums[key] ?? 0) + amount;
  }

  record(instrument: Instrument, seconds: number, attributes: Attributes): void {
    this.add(instrument, seconds, attributes);
  }

  event({ type }: { type: string }): void {
    this.events.push(type);
  }
}

testOnce("An exporter that is taken away gets nothing more, and others go on", () => {
  const metrics = new ServerMetrics();
  const [left, gone] = [new Sums(), new Sums()];
  metrics.addSink(left);
  const remove = metrics.addSink(gone);
  remove();
  metrics.onEvent({ type: "accepted", conn: CONN });
  assertEquals([left.events, gone.events], [["accepted"], []]);
});

testOnce("An exporter that comes late gets what was counted before, but not the durations", () => {
  const metrics = new ServerMetrics();
  metrics.onEvent({ type: "accepted", conn: CONN });
  metrics.onEvent(closed("idle"));
  const sink = new Sums();
  metrics.addSink(sink);
  metrics.onEvent({ type: "accepted", conn: CONN });
  assertEquals(sink.sums, {
    "shouty.accepted_connections": 2,
    "shouty.active_connections": 1,
    "shouty.closed_connections idle": 1,
  });
  assertEquals(sink.events, ["accepted"]);
});

function closed(reason: CloseReason) {
  return { type: "closed", conn: CONN, reason, lines: 0, bytesIn: 0, bytesOut: 0, durationMs: 1500 } as const;
}

testOnce("An ordinary end of a connection has no error type, and every other end has its reason", () => {
  const metrics = new ServerMetrics();
  for (const reason of CLOSE_REASONS) metrics.onEvent(closed(reason));
  const figures = values(metrics);
  const ordinary = CLOSE_REASONS.filter((reason) => !(`shouty_connection_duration_seconds ${reason}` in figures));
  assertEquals(ordinary, ["end", "closed", "max-age", "max-lines", "drained"]);
  assertEquals(figures.shouty_connection_duration_seconds, 5);
  const { instrument, series } = metrics.read().find(({ instrument }) => instrument.unit === "s")!;
  assertEquals([instrument.name, series[0].value], ["shouty.connection.duration", 7.5]);
  // 1.5 s lie between the boundaries of 1 s and of 2 s.
  assertEquals(series[0].buckets.indexOf(5), instrument.boundaries!.indexOf(2));
});

testOnce("A duration that is exactly a boundary belongs to the bucket below it", () => {
  const metrics = new ServerMetrics();
  metrics.onEvent({ ...closed("end"), durationMs: 2000 });
  metrics.onEvent({ ...closed("end"), durationMs: 1e9 });
  const { instrument, series } = metrics.read().find(({ instrument }) => instrument.unit === "s")!;
  const full = series[0].buckets.flatMap((count, i) => count > 0 ? [instrument.boundaries![i]] : []);
  assertEquals(full, [2, undefined]);
});

testOnce("Classes of errors are counted by themselves up to thirty, and as others from then on", () => {
  const metrics = new ServerMetrics();
  const fail = metrics.timed((name: string) => {
    throw Object.assign(new Error("failed"), { name });
  });
  for (let i = 0; i < 40; i++) assertThrows(() => fail(`E${i}${"x".repeat(1000)}`));
  const failNot = metrics.timed(() => {
    throw "text";
  });
  assertThrows(() => failNot());
  const figures = Object.entries(values(metrics)).filter(([name]) =>
    name.startsWith("shouty_handler_duration_seconds ")
  );
  assertEquals(figures.length, 31);
  assertLess(JSON.stringify(figures).length, 31 * 150, "Long names are cut off");
  assertEquals(values(metrics)["shouty_handler_duration_seconds _OTHER"], 11);
  assertThrows(() => fail("E0" + "x".repeat(1000)));
  assertEquals(values(metrics)["shouty_handler_duration_seconds _OTHER"], 11, "A known class has its own count still");
});

testOnce("The page's quantiles are those of the last minutes, and null without any", () => {
  let ms = 1_000_000;
  const metrics = new ServerMetrics({ clock: { now: () => ms } });
  const handler = metrics.timed((line: string) => {
    ms += Number(line);
  });
  assertEquals(metrics.snapshot().handlerMs, { count: 0, p50: null, p90: null, p99: null });
  // The largest of a half, of nine in ten, and of 99 in 100.
  for (let i = 0; i < 100; i++) handler(i < 50 ? "1.01" : i < 90 ? "10" : i < 99 ? "100" : "1000");
  const { count, p50, p90, p99 } = metrics.snapshot().handlerMs;
  assertEquals(count, 100);
  for (const [value, exact] of [[p50, 1.01], [p90, 10], [p99, 100]]) assertAlmostEquals(value! / exact!, 1, 0.1);
  ms += 60_000;
  assertEquals(metrics.snapshot().handlerMs.count, 100);
  ms += 60_000;
  assertEquals(metrics.snapshot().handlerMs.count, 0);
  handler("1");
  ms += 120_000;
  assertEquals(metrics.snapshot().handlerMs.count, 0);
  // A clock that counts whole milliseconds measures 0 for most calls.
  handler("0");
  assertEquals([metrics.snapshot().handlerMs.count, metrics.snapshot().handlerMs.p50! < 0.001], [1, true]);
  ms += 120_000;
  // Half a year counts as the longest that is told from others.
  handler("15e9");
  const long = metrics.snapshot().handlerMs;
  assertEquals([long.count, long.p50! > 2e9], [1, true]);
});

testOnce("What the server counts itself is read when the figures are read, and at the end, not at each event", () => {
  const metrics = new ServerMetrics();
  const sink = new Sums();
  metrics.addSink(sink);
  const stats = { lines: 5, bytesIn: 4, bytesOut: 3, handlers: 2, hookErrors: 1, queued: 0 };
  metrics.watch({ stats: () => stats as never });
  metrics.onEvent({ type: "accepted", conn: CONN });
  metrics.onEvent(closed("end"));
  assertEquals(sink.sums["shouty.lines"], undefined);
  const { shouty_lines_total, shouty_active_handlers, shouty_hook_errors_total } = values(metrics);
  assertEquals([shouty_lines_total, shouty_active_handlers, shouty_hook_errors_total], [5, 2, 1]);
  Object.assign(stats, { lines: 6, handlers: 0 });
  metrics.onEvent({ type: "stopped", report: { closed: {}, handlersLeft: 0, durationMs: 0 } as never });
  assertEquals([sink.sums["shouty.lines"], sink.sums["shouty.active_handlers"]], [6, 0]);
});

testOnce("The page has what the server counts now, and the times of handshakes that were done", () => {
  const metrics = new ServerMetrics();
  const stats = { lines: 0, bytesIn: 0, bytesOut: 0, handlers: 0, hookErrors: 0, queued: 3 };
  metrics.watch({ stats: () => stats as never });
  metrics.onHandshake({ type: "begun" });
  metrics.onHandshake({ type: "begun" });
  metrics.onHandshake({ type: "ended", durationMs: 5, failure: "refused" });
  const { queued, handshakes } = metrics.snapshot();
  assertEquals([queued, handshakes.active, handshakes.failed, handshakes.ms.count], [3, 1, { refused: 1 }, 0]);
  metrics.onHandshake({ type: "ended", durationMs: 5, tls: { version: "TLSv1.3" } as never });
  stats.queued = 1;
  const after = metrics.snapshot();
  assertEquals([after.queued, after.handshakes.done, after.handshakes.ms.count], [1, { "1.3": 1 }, 1]);
});

testOnce("Wrong arguments are refused", () => {
  const metrics = new ServerMetrics();
  assertThrows(() => metrics.timed(1 as never), TypeError, "Cannot use handler: expected a function, got 1");
  assertThrows(() => metrics.watch({} as never), TypeError, "Cannot use server: expected a server, got");
  assertThrows(() => new ServerMetrics({ clock: 5 as never }), TypeError, "Cannot use clock: expected a clock, got 5");
  assertThrows(
    () => new ServerMetrics(null as never),
    TypeError,
    "Cannot use ServerMetrics options: expected an object",
  );
});
