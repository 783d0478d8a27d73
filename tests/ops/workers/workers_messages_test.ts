import { assert, assertEquals, assertRejects } from "@std/assert";
import type { ServeWorkersOptions } from "@x/shouty/ops";
import type { ToMain } from "../../../ops/workers/shared/wire.ts";
import { test } from "../../kit/bounded.ts";
import { TestWorkers } from "../../kit/workers/workers.ts";

/**
 * A worker that serves nothing: it says what the test broadcasts, and tells of each other message in an event. It is no
 * module of the project, whose types Deno would check at its start.
 */
const PUPPET = `
  import { parentPort } from "node:worker_threads";
  const say = (...messages) => parentPort.postMessage(messages);
  let totals = { lines: 0, bytesIn: 0, bytesOut: 0, handlers: 0, hookErrors: 0, queued: 0 };
  let setup;
  const answers = {
    start: (message) => (setup = message.setup, say({ type: "ready" })),
    refresh: () => setup.data?.mute || say({ type: "refreshed", totals, conns: [] }),
    shutdown: () => setup.data?.stays === setup.index || say({ type: "stopped", handlersLeft: 2, totals }),
  };
  const obey = (said) => {
    totals = said.findLast(({ type }) => type === "totals")?.totals ?? totals;
    say(...said);
  };
  parentPort.on("message", (messages) => messages.forEach((message) => {
    if (message.type === "broadcast") return obey(JSON.parse(message.data));
    const error = { name: "Error", message: JSON.stringify(message) };
    say({ type: "event", event: { type: "handler-error", error } });
    answers[message.type]?.(message);
  }));
  say({ type: "hello" });
`;

/** A server of such workers, what makes them say something, and what they have got. */
async function puppets(options: Partial<ServeWorkersOptions> = {}) {
  const module = new URL(`data:text/javascript,${encodeURIComponent(PUPPET)}`);
  const t = await TestWorkers.start({ module, workers: 1, ...options });
  const say = (...messages: ToMain[]) => t.server.broadcast(JSON.stringify(messages));
  // deno-lint-ignore no-explicit-any -- any message
  const got = (type: string): any[] => {
    const all = t.all("handler-error").map(({ error }) => JSON.parse((error as Error).message));
    return all.filter((message) => message.type === type);
  };
  const untilGot = async (type: string, count: number) => {
    await t.until(() => got(type).length >= count);
    return got(type)[count - 1];
  };
  /** Has the workers crash, after and before saying something else, and waits for others. */
  const replace = async (before: ToMain[] = [], after: ToMain[] = []) => {
    const begun = t.all("worker-started").length;
    say(...before, { type: "failed", error: { name: "Error", message: "told to" } }, ...after);
    await t.untilSeen("worker-started", begun + t.server.workers.length);
  };
  return { t, server: t.server, say, got, untilGot, replace, [Symbol.asyncDispose]: () => t[Symbol.asyncDispose]() };
}

const addr = { transport: "tcp", hostname: "192.0.2.7", port: 1 } as const;

const GONE = { type: "event", event: { type: "gone", remoteAddr: addr } } as const;

test("Workers get the options of their server, their share of its memory, and what holds when they begin", async () => {
  const options = { keepAliveMs: 20_000, admitTimeout: 700 };
  await using p = await puppets({ ...options, maxBufferedBytes: 2001, atCapacity: "wait", workers: 2 });
  await p.untilGot("start", 2);
  for (const { setup } of p.got("start")) {
    const { keepAliveMs, admitTimeout, maxBufferedBytes } = setup.options;
    assertEquals({ keepAliveMs, admitTimeout }, options);
    assertEquals(maxBufferedBytes, Math.ceil(2001 / p.server.workers.length));
    assertEquals([setup.waits, setup.paused], [true, false]);
  }
  p.server.pause();
  p.server.setLimits({ atCapacity: "reject", maxLineBytes: 77 });
  assertEquals((await p.untilGot("limits", 1)).waits, false);
  p.server.setLimits({ acceptRate: 5 });
  const { waits, limits } = await p.untilGot("limits", 2 * p.server.workers.length);
  assertEquals([waits, limits.maxLineBytes], [true, 77]);
  await p.replace();
  const { setup } = p.got("start").at(-1);
  assertEquals([setup.waits, setup.paused, setup.options.maxLineBytes], [true, true, 77]);
});

test("After a reload has failed, a worker that begins gets the data of the reload before", async () => {
  await using p = await puppets({ data: "first" });
  const reloaded = assertRejects(() => p.server.reload("wrong"), RangeError, "not that");
  const { key, data } = await p.untilGot("reload", 1);
  p.say({ type: "reloaded", key, error: { name: "RangeError", message: "not that" } });
  await reloaded;
  await p.replace();
  assertEquals([data, p.got("start")[1].setup.data], ["wrong", "first"]);
});

test("A worker that ends leaves no reload and no question for its figures open", async () => {
  await using p = await puppets({ data: { mute: true } });
  const asked = [p.server.reload({ mute: true }), p.server.refresh()];
  await p.untilGot("refresh", 1);
  await p.replace();
  await Promise.all(asked);
  const again = p.server.refresh();
  await p.untilGot("refresh", 2);
  // Its answer is late, which ends the wait after a second.
  await again;
});

test("A worker that crashes leaves no connection that waits for room, and nothing that it says later counts", async () => {
  await using p = await puppets({ maxConnections: 1, atCapacity: "wait" });
  await p.replace([0, 1].map((key) => ({ type: "ask", key, addr })), [GONE]);
  p.say({ type: "ask", key: 2, addr });
  await p.t.until(() => p.got("verdict").some(({ key }) => key === 2));
  assertEquals([p.got("verdict").at(-1).verdict, p.server.stats().gone], [{ id: 2 }, 0]);
});

test("What workers have rejected counts, also towards a penalty, and so do clients that have left", async () => {
  await using p = await puppets({ maxPenaltyMs: 60_000 });
  const event = { type: "rejected", remoteAddr: addr, reason: "tls-handshake" } as const;
  p.say(GONE, ...Array.from({ length: 11 }, () => ({ type: "event", event }) as const), { type: "ask", key: 0, addr });
  assertEquals((await p.untilGot("verdict", 1)).verdict, { reason: "penalty", limit: 60_000 });
  const { rejected, gone } = p.server.stats();
  assertEquals([rejected, gone], [12, 1]);
});

test("Of a worker that has crashed, the sums keep what it has done, and nothing that it was doing", async () => {
  await using p = await puppets();
  const totals = { lines: 1, bytesIn: 20, bytesOut: 300, handlers: 4, hookErrors: 5, queued: 6 };
  const shown = () => {
    const { lines, bytesIn, bytesOut, handlers, hookErrors, queued } = p.server.stats();
    return { lines, bytesIn, bytesOut, handlers, hookErrors, queued };
  };
  p.say({ type: "totals", totals }, GONE);
  await p.t.untilSeen("gone");
  assertEquals(shown(), totals);
  await p.replace();
  assertEquals(shown(), { ...totals, handlers: 0, queued: 0 });
  p.say({ type: "totals", totals }, GONE);
  await p.t.untilSeen("gone", 2);
  assertEquals(shown(), { lines: 2, bytesIn: 40, bytesOut: 600, handlers: 4, hookErrors: 10, queued: 6 });
});

test("The report counts the handlers that workers have left, and those of a worker that has to be ended", async () => {
  await using p = await puppets({ workers: 2, drainTimeout: 1, data: { stays: 0 } });
  const totals = { lines: 0, bytesIn: 0, bytesOut: 0, handlers: 4, hookErrors: 0, queued: 1 };
  const count = p.server.workers.length;
  p.say({ type: "totals", totals }, GONE);
  await p.t.untilSeen("gone", count);
  assertEquals((await p.server.shutdown()).handlersLeft, 4 + 2 * (count - 1));
  const { handlers, queued } = p.server.stats();
  assertEquals([handlers, queued], [0, 0], "They have ended with their workers");
});

test("After the delay of a shutdown, workers drain at once", async () => {
  await using p = await puppets();
  await p.server.shutdown({ delay: 1, drainTimeout: 7000 });
  const [{ options }] = p.got("shutdown");
  assertEquals([p.t.all("lame-duck").length, options.delay, options.drainTimeout], [1, 0, 7000]);
});

test("Whoever looks at the figures of workers or of their connections has new ones asked for", async () => {
  for (const look of ["stats", "connections"] as const) {
    await using p = await puppets();
    assert(look === "stats" ? p.server.stats() : p.server.connections);
    await p.untilGot("refresh", 1);
  }
});

test("Workers that are paused already are not paused again, nor those that drain", async () => {
  await using p = await puppets();
  for (const call of ["resume", "pause", "pause", "resume", "resume"] as const) p.server[call]();
  const stopped = p.server.shutdown();
  p.server.pause();
  await stopped;
  assertEquals(["paused", "resumed"].map((type) => p.t.all(type as "paused").length), [1, 1]);
  assertEquals(["pause", "resume"].map((type) => p.got(type).length), [1, 1]);
});

test("A signal that was aborted before the workers serve shuts them down when they do", async () => {
  await using p = await puppets({ signal: AbortSignal.abort() });
  await p.server.finished;
  assertEquals(p.t.all("worker-started").length, 1);
});
