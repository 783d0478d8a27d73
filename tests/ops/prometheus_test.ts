import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { prometheus, ServerMetrics } from "@x/shouty/ops";
import { CLOSE_REASONS } from "../../internal/api/reasons.ts";
import { INSTRUMENTS } from "../../ops/metrics/instruments.ts";
import { test } from "../kit/bounded.ts";
import { converse, Subprocess } from "../kit/command.ts";
import { load } from "../kit/npm.ts";
import { startServer } from "../kit/server.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
const { missing } = await load("npm:@prometheus-io/client@0.16.1");

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
    const { text, contentType } = await prometheus(metrics);
    assertEquals(contentType, "text/plain; version=0.0.4; charset=utf-8");
    await using t = startServer({ maxConnections: 1, onEvent: metrics.onEvent }, metrics.timed((line) => line));
    metrics.watch(t.server);
    assertEquals(parse(await text()).values.shouty_accepted_connections_total, 0);
    await t.talk("one\ntwo\n");
    await t.closed();
    const open = await t.admitted();
    const refused = await t.connect();
    await refused.readAll();
    await t.until("rejected");
    const { types, values } = parse(await text());
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
  60,
  missing,
);

test(
  "The buckets of a histogram add up, and each combination of attributes has its own",
  async () => {
    const metrics = new ServerMetrics();
    for (const durationMs of [1, 30, 60, 100_000]) {
      metrics.onHandshake({ type: "begun" });
      metrics.onHandshake({ type: "ended", durationMs, failure: "refused" });
    }
    metrics.onHandshake({ type: "begun" });
    metrics.onHandshake({ type: "ended", durationMs: 6, tls: { version: "TLSv1.2" } as never });
    const { values } = parse(await (await prometheus(metrics)).text());
    const name = "shouty_tls_handshake_duration_seconds";
    const failed = Object.entries(values).filter(([series]) => series.includes('error_type="refused"'));
    const buckets = failed.flatMap(([series, count]) => series.startsWith(`${name}_bucket`) ? [count] : []);
    assertEquals(buckets, [1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4]);
    assertEquals(values[`${name}_count{error_type="refused"}`], 4);
    assertEquals(values[`${name}_sum{error_type="refused"}`], 100.091);
    assertEquals(values[`${name}_bucket{tls_protocol_version="1.2",le="0.01"}`], 1);
    assertEquals(values[`${name}_bucket{tls_protocol_version="1.2",le="0.005"}`], 0);
  },
  60,
  missing,
);

test(
  "A text is safe from names of errors, and exporters do not disturb each other",
  async () => {
    const metrics = new ServerMetrics();
    const [first, second] = [await prometheus(metrics), await prometheus(metrics)];
    const fail = metrics.timed(() => {
      throw Object.assign(new Error("failed"), { name: 'a"} 1\nforged 2' });
    });
    await assertRejects(() => Promise.try(fail));
    const text = await first.text();
    assertEquals(text, await second.text());
    assertEquals(/^forged/m.test(text), false);
    assertMatch(text, /error_type="a\\"} 1\\nforged 2"/);
  },
  60,
  missing,
);

test("The command and the library ask npm for nothing, and a package that cannot be loaded is one clear error", async () => {
  let asked = 0;
  const options = { hostname: "127.0.0.1", port: 0, onListen() {} };
  await using registry = Deno.serve(options, () => {
    asked++;
    return new Response("not here", { status: 404 });
  });
  const folder = await Deno.makeTempDir();
  try {
    const env = { DENO_DIR: folder, NPM_CONFIG_REGISTRY: `http://127.0.0.1:${registry.addr.port}` };
    const deno = (...args: string[]) => {
      const command = ["run", "--no-prompt", "--no-check", "--config", `${ROOT}deno.json`, ...args];
      return new Subprocess(Deno.execPath(), command, { env });
    };
    await using server = deno("--allow-net", `${ROOT}mod.ts`, "--hostname", "127.0.0.1", "--port", "0");
    const [, port] = await server.stderrMatch(/listening on 127\.0\.0\.1:(\d+)/);
    assertEquals(await converse({ hostname: "127.0.0.1", port: Number(port) }, "hello\n"), "HELLO\n");
    const script = `${folder}/load.js`;
    const ops = JSON.stringify(`file://${ROOT}ops/mod.ts`);
    await Deno.writeTextFile(script, `import ${ops};`);
    await using importing = deno(script);
    assertEquals(await importing.outcome(), { code: 0, stdout: "", stderr: "" });
    assertEquals(asked, 0);
    await Deno.writeTextFile(
      script,
      `import { prometheus, ServerMetrics } from ${ops};
      console.log((await prometheus(new ServerMetrics()).catch((error) => error)).message);`,
    );
    await using loading = deno(script);
    const { code, stdout, stderr } = await loading.outcome();
    assertEquals(code, 0, stderr);
    assertMatch(stdout, /^Cannot load npm:@prometheus-io\/client@0\.16\.1: [^\n]+\n$/);
    assertEquals(asked > 0, true);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

test(
  "The package is loaded without any permission",
  async () => {
    const ops = JSON.stringify(new URL("../../ops/mod.ts", import.meta.url));
    const code = `const { prometheus, ServerMetrics } = await import(${ops});
      const names = ["ffi", "run", "sys", "import", "env", "write", "read", "net"];
      for (const name of names) Deno.permissions.revokeSync({ name });
      console.log((await (await prometheus(new ServerMetrics())).text()).length > 1000);`;
    const file = await Deno.makeTempFile({ suffix: ".js" });
    await Deno.writeTextFile(file, code);
    const args = ["run", "--no-prompt", "--no-check", "--allow-all", "--config", `${ROOT}deno.json`, file];
    await using process = new Subprocess(Deno.execPath(), args);
    const { stdout, stderr } = await process.outcome();
    assertEquals(stdout, "true\n", stderr);
    await Deno.remove(file);
  },
  60,
  missing,
);

test("Prometheus needs figures", async () => {
  const wrong = "Cannot use metrics: expected a ServerMetrics, got";
  await assertRejects(() => prometheus({} as never), TypeError, wrong);
});
