import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { serve } from "@x/shouty";
import { type Admin, serveAdmin, ServerMetrics } from "@x/shouty/ops";
import { FakeClock } from "@x/shouty/testing";
import { Readiness } from "../../../ops/admin/readiness.ts";
import type { Steered } from "../../../ops/admin/steered.ts";
import { ask, openPort, startAdmin } from "../../kit/admin/admin.ts";
import { test } from "../../kit/bounded.ts";
import { HAS_SCRIPT, startInTerminal } from "../../kit/command.ts";
import { assertFreed } from "../../kit/sockets/freed_port.ts";
import { NO_IPV6 } from "../../kit/sockets/ipv6.ts";
import { memoryAfter } from "../../kit/figures/memory.ts";

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

for (const hostname of ["127.0.0.1", "::1", "localhost"]) {
  test(
    `an admin port listens on ${hostname}`,
    async () => {
      await using server = serve({ hostname: "127.0.0.1", port: 0 });
      await using admin = await serveAdmin({ server, hostname, port: 0 });
      assertEquals((await ask(admin.addr, "GET /readyz")).body, "ready\n");
      const { port } = admin.addr as Deno.NetAddr;
      const taken = () => serveAdmin({ server, hostname, port });
      await assertRejects(taken, Deno.errors.AddrInUse);
    },
    60,
    hostname === "::1" ? NO_IPV6 : "",
  );
}

test("an admin port listens on a Unix socket that its user alone can reach, and replaces a dead one", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/admin.sock`;
  const server = serve({ hostname: "127.0.0.1", port: 0 });
  await using admin = await serveAdmin({ server, path });
  assertEquals(admin.addr, { transport: "unix", path });
  assertEquals((await Deno.lstat(path)).mode! & 0o777, 0o600);
  assertEquals((await ask(admin.addr, "GET /readyz")).body, "ready\n");
  await assertRejects(() => serveAdmin({ server, path }), Deno.errors.AddrInUse);
  await admin.close();
  await assertRejects(() => Deno.lstat(path), Deno.errors.NotFound);
  await leaveDeadSocket(path);
  await using next: Admin = await serveAdmin({ server, path, mode: 0o660 });
  assertEquals((await Deno.lstat(path)).mode! & 0o777, 0o660);
  await server.shutdown();
  await next.close();
  await Deno.writeTextFile(path, "precious");
  await assertRejects(() => serveAdmin({ server, path }), Deno.errors.AlreadyExists);
  await Deno.remove(folder, { recursive: true });
});

/** Leaves the file of a socket on which nobody listens, as a crashed server does. */
async function leaveDeadSocket(path: string): Promise<void> {
  const script = `Deno.listen({ transport: "unix", path: ${JSON.stringify(path)} }); Deno.kill(Deno.pid, "SIGKILL");`;
  await new Deno.Command(Deno.execPath(), { args: ["eval", script] }).output();
}

test("an admin port refuses wrong options before anything is bound, and shows no token", async () => {
  await using server = serve({ hostname: "127.0.0.1", port: 0 });
  const refuses = async (options: object, message: string) => {
    const error = await assertRejects(() => serveAdmin({ server, port: 0, ...options }));
    assert(error instanceof TypeError || error instanceof RangeError);
    assertStringIncludes(error.message, message);
  };
  await refuses({ server: 5 }, "Cannot use server: expected a server, got 5");
  const unfinished = { shutdown() {}, stats() {} };
  await refuses({ server: unfinished }, "Cannot use server.finished: expected a promise, got undefined");
  await refuses({ port: 70_000 }, "Cannot use port 70000: expected a whole number from 0 to 65535");
  await refuses({ hostname: "" }, 'Cannot use hostname ""');
  await refuses({ path: "" }, 'Cannot use path "": expected a file\'s name');
  await refuses({ mode: 0o1000 }, "Cannot use mode 512");
  await refuses({ drain: 5 }, "Cannot use drain: expected a function, got 5");
  await refuses({ hosts: "a.example" }, 'Cannot use hosts: expected a list of names, got "a.example"');
  await refuses({ metrics: {} }, "Cannot use metrics: expected a ServerMetrics, got an object");
  await refuses({ clock: 5 }, "Cannot use clock: expected a clock, got 5");
  const allowed = "Cannot use token: expected 16 to 1024 visible characters of ASCII";
  for (
    const token of [
      null as never,
      Symbol() as never,
      "",
      "short",
      "with a space in it",
      "with-a-line-end-at-last\n",
      "x".repeat(1025),
    ]
  ) {
    const error = await assertRejects(() => serveAdmin({ server, port: 0, token }), TypeError);
    assertEquals(error.message, allowed);
  }
  for (const hostname of ["0.0.0.0", "::"]) {
    const address = hostname.includes(":") ? `[${hostname}]:0` : `${hostname}:0`;
    const expected = "expected one, or a loopback address or a Unix socket";
    await refuses({ hostname }, `Cannot listen on ${address} without a token: ${expected}`);
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

test(
  "an admin port asks for no permission on a terminal, where that would stop the server: it rejects",
  async () => {
    const folder = await Deno.makeTempDir();
    const path = JSON.stringify(`${folder}/admin.sock`);
    const script = `
      import { serve } from "@x/shouty";
      import { serveAdmin } from "@x/shouty/ops";
      const server = serve({ hostname: "127.0.0.1", port: 0 });
      await serveAdmin({ server, path: ${path} }).catch((error) => console.log("rejected:", error.message));
      await server.shutdown();
    `;
    await Deno.writeTextFile(`${folder}/main.ts`, script);
    const without = {
      net: ["--allow-net=127.0.0.1", "--allow-read", "--allow-write"],
      read: ["--allow-net", "--allow-write"],
      write: ["--allow-net", "--allow-read"],
    };
    for (const [missing, flags] of Object.entries(without)) {
      const args = ["run", "--config", "deno.json", ...flags, `${folder}/main.ts`];
      await using process = startInTerminal(args);
      const [, what, message] = await process.stdoutMatch(/(rejected:|Allow\?) (.*)/);
      assertEquals(what, "rejected:", process.stdout);
      assertMatch(message, new RegExp(`^Requires ${missing} access to ".*admin\\.sock"`));
      await process.exitCode();
    }
    await Deno.remove(folder, { recursive: true });
  },
  60,
  HAS_SCRIPT ? "" : " (skipped: util-linux's script is missing)",
);

test("a server that goes on, and its metrics, keep nothing of admin ports that were closed", async () => {
  await memoryAfter(`
    import { serve } from "${import.meta.resolve("../../../mod.ts")}";
    import { serveAdmin, ServerMetrics } from "${import.meta.resolve("../../../ops/mod.ts")}";
    const server = serve({ hostname: "127.0.0.1", port: 0 });
    const metrics = new ServerMetrics();
    const ports = [];
    for (let i = 0; i < 20; i++) {
      const port = await serveAdmin({ server, metrics, port: 0 });
      await port.close();
      ports.push(new WeakRef(port));
    }
    await new Promise((resolve) => setTimeout(resolve, 0));
    gc();
    // The stack may still refer to the last ones.
    const kept = ports.filter((port) => port.deref() !== undefined).length;
    if (kept > 5) throw new Error(kept + " closed ports are kept");
  `);
});
