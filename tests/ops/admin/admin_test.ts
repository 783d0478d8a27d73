import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { serve } from "@x/shouty";
import { serveAdmin, ServerMetrics } from "@x/shouty/ops";
import { FakeClock } from "@x/shouty/testing";
import { Readiness } from "../../../ops/admin/readiness.ts";
import type { Steered } from "../../../ops/admin/steered.ts";
import { ask, openPort, startAdmin } from "../../kit/admin/admin.ts";
import { test } from "../../kit/bounded.ts";
import { assertFreed } from "../../kit/sockets/freed_port.ts";

test("an admin port says that the process is alive, and whether the server is ready, and why not", async () => {
  await using admin = await startAdmin({}, { maxConnections: 1 });
  const readiness = async () => {
    const { status, body } = await admin.ask("GET /readyz");
    return [status, body];
  };
  const { status, body, headers } = await admin.ask("GET /healthz");
  assertEquals([status, body, headers.get("content-type")], [200, "ok\n", "text/plain; charset=utf-8"]);
  assertEquals(await readiness(), [200, "ready\n"]);
  admin.t.server.pause();
  assertEquals(await readiness(), [503, "not ready: paused\n"]);
  admin.t.server.resume();
  using client = await admin.t.admitted();
  assertEquals(await readiness(), [503, "not ready: at capacity: 1 of 1 connections\n"]);
  admin.t.server.setLimits({ maxConnections: 2 });
  assertEquals(await readiness(), [200, "ready\n"]);
  admin.t.server.shutdown({ delay: 60_000, drainTimeout: 60_000 });
  assertEquals(await readiness(), [503, "not ready: lame duck\n"]);
  admin.t.server.shutdown({ delay: 0 });
  assertEquals(await readiness(), [503, "not ready: draining\n"]);
  assertEquals((await admin.ask("GET /healthz")).status, 200);
  await client.closeWrite();
});

test("an admin port says that accepting fails until a connection is accepted or its error is old", async () => {
  const clock = new FakeClock();
  const metrics = new ServerMetrics();
  await using admin = await startAdmin({ clock, metrics });
  const fails = () => {
    const error = new Error("Too many open files (os error 24)");
    metrics.onEvent({ type: "accept-error", error, retryMs: 1000 });
  };
  const readiness = async () => (await admin.ask("GET /readyz")).body;
  metrics.onEvent({ type: "accept-error", error: new Error("One peer's"), retryMs: 0 });
  assertEquals(await readiness(), "ready\n");
  fails();
  assertEquals(await readiness(), "not ready: accepting fails: Too many open files (os error 24)\n");
  using _client = await admin.t.admitted();
  assertEquals(await readiness(), "ready\n");
  fails();
  await clock.advance(2999);
  assertMatch(await readiness(), /accepting fails/);
  await clock.advance(1);
  assertEquals(await readiness(), "ready\n");
});

test("a server none of whose workers serves is not ready, and one with a worker that serves is", () => {
  const reasons = (...states: string[]) => {
    const server = { state: "listening", limits: {}, active: 0, workers: states.map((state) => ({ state })) };
    return new Readiness(new FakeClock()).reasons(server as unknown as Steered);
  };
  assertEquals(reasons("starting", "serving"), []);
  assertEquals(reasons("starting", "starting"), ["no worker serves"]);
});

test("an admin port without a server says that it starts, and closes with the server", async () => {
  const port = await openPort();
  const starts = async (what: string) => {
    const { status, body } = await ask(port.addr, what);
    return [status, body];
  };
  assertEquals(await starts("GET /healthz"), [200, "ok\n"]);
  assertEquals(await starts("GET /readyz"), [503, "not ready: starting\n"]);
  for (const what of ["GET /status", "GET /events", "GET /connections", "POST /drain", "POST /pause", "GET /limits"]) {
    assertEquals(await starts(what), [503, '{"error":"Cannot answer yet: the server starts"}\n'], what);
  }
  const server = serve({ hostname: "127.0.0.1", port: 0 });
  port.attach(server);
  assertEquals(await starts("GET /readyz"), [200, "ready\n"]);
  await server.shutdown();
  // It closes by itself.
  while (await ask(port.addr, "GET /healthz").then(() => true, () => false));
  await assertFreed((port.addr as Deno.NetAddr).port);
  await port.close();
});

test("an admin port tells the status of the server", async () => {
  await using admin = await startAdmin({ name: "mail", version: "3.1" }, { maxConnections: 7 });
  assertEquals(await admin.t.talk("hello\n"), "HELLO\n");
  await admin.t.closed();
  const status = await admin.json("GET /status");
  assertEquals(Object.keys(status), [
    ...["name", "version", "pid", "state", "paused", "ready", "reasons", "startedAt", "uptimeMs", "addrs", "limits"],
    ...["stats", "metrics"],
  ]);
  const { name, version, pid, state, paused, ready, reasons, addrs, limits, stats, metrics } = status;
  assertEquals([name, version, pid, state], ["mail", "3.1", Deno.pid, "listening"]);
  assertEquals([paused, ready, reasons, metrics], [false, true, [], null]);
  assertEquals(addrs, [`127.0.0.1:${admin.t.port}`]);
  assertEquals([limits.maxConnections, limits.maxLines, limits.idleTimeout], [7, null, 10_000]);
  assertEquals([stats.lines, stats.accepted, stats.closed.end], [1, 1, 1]);
  assertEquals(new Date(status.startedAt).toISOString(), status.startedAt);
});

test("an admin port pauses and resumes the server, and shows the status after it", async () => {
  await using admin = await startAdmin();
  const { paused, reasons } = await admin.json("POST /pause");
  assertEquals([paused, reasons, admin.t.server.paused], [true, ["paused"], true]);
  assertEquals((await admin.json("POST /resume")).paused, false);
  assertEquals(admin.t.server.paused, false);
});

test("an admin port neither pauses nor resumes a server that drains, and does in lame duck", async () => {
  await using admin = await startAdmin();
  using client = await admin.t.admitted();
  await admin.ask("POST /drain", { body: '{"delay":600000,"drainTimeout":null}' });
  assertEquals((await admin.json("POST /pause")).paused, true);
  const { state, paused } = await admin.json("POST /resume");
  assertEquals([state, paused], ["lame-duck", false]);
  await admin.ask("POST /drain", { body: '{"delay":0}' });
  for (const command of ["pause", "resume"]) {
    const { status, body } = await admin.ask(`POST /${command}`);
    assertEquals([status, body], [409, `{"error":"Cannot ${command}: the server is draining"}\n`]);
  }
  await client.closeWrite();
  await admin.t.server.finished;
});

test("an admin port drains the server, and answers until its end", async () => {
  await using admin = await startAdmin();
  using client = await admin.t.admitted();
  const bad = await admin.ask("POST /drain", { body: '{"drainTimeout":-1}' });
  assertEquals([bad.status, JSON.parse(bad.body).error.slice(0, 29)], [400, "Cannot use drainTimeout -1: e"]);
  const unknown = await admin.json("POST /drain", { body: '{"now":true}' });
  assertEquals(unknown, { error: 'Cannot use "now": expected one of drain, drainTimeout, delay, spread' });
  assertEquals(admin.t.server.state, "listening");
  const { status, body } = await admin.ask("POST /drain", { body: '{"drainTimeout":null,"delay":0}' });
  assertEquals([status, JSON.parse(body).state], [202, "draining"]);
  assertEquals((await admin.ask("GET /readyz")).body, "not ready: draining\n");
  await client.closeWrite();
  await admin.t.server.finished;
  await admin.port.close();
  await assertFreed((admin.port.addr as Deno.NetAddr).port);
});

test("an admin port calls a drain of the program's own", async () => {
  await using server = serve({ hostname: "127.0.0.1", port: 0 });
  const calls: unknown[] = [];
  const drain = (options: unknown) => {
    calls.push(options);
    return Promise.reject(new Error("Nobody waits for this"));
  };
  await using admin = await serveAdmin({ server, port: 0, drain });
  assertEquals((await ask(admin.addr, "POST /drain", { body: '{"spread":5}' })).status, 202);
  assertEquals((await ask(admin.addr, "POST /drain")).status, 202);
  assertEquals([calls, server.state], [[{ spread: 5 }, {}], "listening"]);
});

test("an admin port names the methods of a path, and knows no other paths", async () => {
  await using admin = await startAdmin();
  for (
    const [what, allowed] of [
      ["POST /status", "GET, HEAD"],
      ["DELETE /limits", "GET, HEAD, PATCH"],
      ["GET /drain", "POST"],
      ["OPTIONS /healthz", "GET, HEAD"],
      ["GET /connections/1/close", "POST"],
    ]
  ) {
    const { status, headers, body } = await admin.ask(what);
    assertEquals([status, headers.get("allow")], [405, allowed], what);
    assertEquals(JSON.parse(body).error.startsWith("Cannot use method"), true);
  }
  for (const path of ["/nothing", "/status/", "//status", "/connections/x/close", "/connections/-1/close", "/%2e"]) {
    assertEquals((await admin.ask(`GET ${path}`)).status, 404, path);
  }
  assertEquals((await admin.ask("GET http://elsewhere.example/status")).status, 400);
  assertEquals((await admin.ask("GET /metrics")).body, '{"error":"Cannot find metrics: this server counts none"}\n');
  const head = await admin.ask("HEAD /healthz");
  assertEquals([head.status, head.headers.get("content-length"), head.body], [200, "3", ""]);
});

test("an admin port serves a page that may load nothing from elsewhere, and lets no answer be kept", async () => {
  await using admin = await startAdmin();
  const { status, headers, body } = await admin.ask("GET /");
  assertEquals([status, headers.get("content-type")], [200, "text/html; charset=utf-8"]);
  assertMatch(body, /^<!doctype html>/i);
  const policy = headers.get("content-security-policy")!;
  const frozen = ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "connect-src 'self'"];
  for (const rule of frozen) assertStringIncludes(policy, rule);
  assertEquals(/unsafe|\*|http/.test(policy), false, policy);
  for (const path of ["/", "/healthz", "/status", "/nothing"]) {
    const { headers } = await admin.ask(`GET ${path}`);
    const names = ["cache-control", "x-content-type-options", "referrer-policy", "x-frame-options"];
    assertEquals(names.map((name) => headers.get(name)), ["no-store", "nosniff", "no-referrer", "DENY"], path);
    assertEquals(headers.get("access-control-allow-origin"), null);
  }
});

test(
  "an admin port shows its metrics to Prometheus, and notes the events that they pass on",
  async () => {
    const metrics = new ServerMetrics();
    await using server = serve({ hostname: "127.0.0.1", port: 0, onEvent: metrics.onEvent });
    metrics.watch(server);
    await using admin = await serveAdmin({ server, metrics, port: 0 });
    metrics.onEvent({ type: "accept-error", error: new Error("No buffers"), retryMs: 5 });
    assertEquals((await ask(admin.addr, "GET /readyz")).body, "not ready: accepting fails: No buffers\n");
    const { status, headers, body } = await ask(admin.addr, "GET /metrics");
    assertEquals([status, headers.get("content-type")?.split(";")[0]], [200, "text/plain"]);
    assertStringIncludes(body, "shouty_lines_total 0\n");
    assertEquals(JSON.parse((await ask(admin.addr, "GET /status")).body).metrics.handlerMs.count, 0);
  },
);

test("a drain with a spread that is longer than its timeout is refused, as the command's flags are", async () => {
  await using admin = await startAdmin();
  const refused = await admin.ask("POST /drain", { body: '{"spread":99999,"drainTimeout":1000}' });
  const error = "Cannot use spread 99999 with drainTimeout 1000: expected a spread of at most the timeout";
  assertEquals([refused.status, JSON.parse(refused.body)], [400, { error }]);
  assertEquals(admin.t.server.state, "listening");
  const equal = await admin.ask("POST /drain", { body: '{"spread":1000,"drainTimeout":1000,"delay":60000}' });
  assertEquals([equal.status, admin.t.server.state], [202, "lame-duck"]);
  const endless = await admin.ask("POST /drain", { body: '{"spread":99999,"drainTimeout":null,"delay":0}' });
  assertEquals(endless.status, 202);
});
