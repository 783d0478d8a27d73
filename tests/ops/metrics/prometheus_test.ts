import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { prometheus, ServerMetrics } from "@x/shouty/ops";
import { CLOSE_REASONS } from "../../../internal/api/reasons.ts";
import { INSTRUMENTS } from "../../../ops/metrics/instruments.ts";
import { test } from "../../kit/bounded.ts";
import { missingProgram } from "../../kit/foreign/foreign.ts";
import { startServer } from "../../kit/server.ts";

/** A text of Prometheus, read by its own rules. */
function parse(text: string) {
  const types: Record<string, string> = {};
  const values: Record<string, number> = {};
  for (const line of text.split("\n")) {
    const [, name, type] = /^# TYPE (\w+) (\w+)$/.exec(line) ?? [];
    if (name !== undefined) types[name] = type;
    if (line === "" || line.startsWith("#")) continue;
    const [, series, value] = /^(\w+(?:\{[^{}]*\})?) (\S+)$/.exec(line) ?? [];
    assertEquals(series in values, false, `${line} is there twice, or cannot be read`);
    values[series] = Number(value);
  }
  return { types, values };
}

test(
  "The text for Prometheus has the server's own counters, and each sum holds",
  async () => {
    const metrics = new ServerMetrics();
    const { text, contentType } = prometheus(metrics);
    assertEquals(contentType, "text/plain; version=0.0.4; charset=utf-8");
    await using t = startServer({ maxConnections: 1, onEvent: metrics.onEvent }, metrics.timed((line) => line));
    metrics.watch(t.server);
    assertEquals(parse(text()).values.shouty_accepted_connections_total, 0);
    await t.talk("one\ntwo\n");
    await t.closed();
    const open = await t.admitted();
    const refused = await t.connect();
    await refused.readAll();
    await t.until("rejected");
    const { types, values } = parse(text());
    assertEquals(
      types,
      Object.fromEntries(Object.values(INSTRUMENTS).map(({ prometheus, kind }) => [prometheus, kind])),
    );
    const { stats } = t;
    assertEquals(values.shouty_accepted_connections_total, stats.accepted);
    assertEquals(values.shouty_active_connections, stats.active);
    const closed = CLOSE_REASONS.map((reason) => values[`shouty_closed_connections_total{reason="${reason}"}`]);
    assertEquals(closed, CLOSE_REASONS.map((reason) => stats.closed[reason]));
    assertEquals(stats.accepted, stats.active + closed.reduce((sum, count) => sum + count));
    assertEquals(values['shouty_rejected_connections_total{reason="max-connections"}'], stats.rejected);
    assertEquals(values['shouty_rejected_connections_total{reason="denied"}'], 0);
    assertEquals(values.shouty_lines_total, stats.lines);
    assertEquals(values['shouty_network_io_bytes_total{direction="receive"}'], stats.bytesIn);
    assertEquals(values['shouty_network_io_bytes_total{direction="transmit"}'], stats.bytesOut);
    assertEquals(values.shouty_handler_duration_seconds_count, 2);
    assertEquals(values['shouty_handler_duration_seconds_bucket{le="+Inf"}'], 2);
    open.close();
  },
);

test(
  "The buckets of a histogram add up, and each combination of attributes has its own",
  () => {
    const metrics = new ServerMetrics();
    for (const durationMs of [1, 30, 60, 100_000]) {
      metrics.onHandshake({ type: "begun" });
      metrics.onHandshake({ type: "ended", durationMs, failure: "refused" });
    }
    metrics.onHandshake({ type: "begun" });
    metrics.onHandshake({ type: "ended", durationMs: 6, tls: { version: "TLSv1.2" } as never });
    const { values } = parse(prometheus(metrics).text());
    const name = "shouty_tls_handshake_duration_seconds";
    const failed = Object.entries(values).filter(([series]) => series.includes('error_type="refused"'));
    const buckets = failed.flatMap(([series, count]) => series.startsWith(`${name}_bucket`) ? [count] : []);
    assertEquals(buckets, [1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4]);
    assertEquals(values[`${name}_count{error_type="refused"}`], 4);
    assertEquals(values[`${name}_sum{error_type="refused"}`], 100.091);
    assertEquals(values[`${name}_bucket{tls_protocol_version="1.2",le="0.01"}`], 1);
    assertEquals(values[`${name}_bucket{tls_protocol_version="1.2",le="0.005"}`], 0);
  },
);

test(
  "A text is safe from names of errors, and exporters do not disturb each other",
  async () => {
    const metrics = new ServerMetrics();
    assertThrows(
      () => prometheus({} as never),
      TypeError,
      "Cannot use metrics: expected a ServerMetrics, got an object",
    );
    const [first, second] = [prometheus(metrics), prometheus(metrics)];
    const fail = metrics.timed(() => {
      throw Object.assign(new Error("failed"), { name: 'a"} 1\nforged 2\\' });
    });
    await assertRejects(() => Promise.try(fail));
    const text = first.text();
    assertEquals(text, second.text());
    assertEquals(/^forged/m.test(text), false);
    assertMatch(text, /error_type="a\\"} 1\\nforged 2\\\\"[,}]/);
  },
);

test(
  "promtool finds nothing wrong with the text",
  async () => {
    const metrics = new ServerMetrics();
    await using t = startServer({ onEvent: metrics.onEvent }, metrics.timed((line) => line));
    metrics.watch(t.server);
    await t.talk("one\n");
    await t.closed();
    metrics.onHandshake({ type: "begun" });
    metrics.onHandshake({ type: "ended", durationMs: 1, failure: "refused" });
    const child = new Deno.Command("promtool", {
      args: ["check", "metrics"],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(prometheus(metrics).text()));
    await writer.close();
    const { code, stdout, stderr } = await child.output();
    const said = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
    assertEquals([code, said], [0, ""]);
  },
  60,
  await missingProgram("promtool", "--version"),
);
