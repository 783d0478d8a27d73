import { assert, assertEquals } from "@std/assert";
import type { TestClient } from "@x/shouty/testing";
import { ask, testEngines, TestWorkers } from "../../kit/workers/workers.ts";

/** Connects many clients at once; each sends a line, and returns its first reply, or null if it was closed. */
async function storm(t: TestWorkers, count: number): Promise<(string | null)[]> {
  return await Promise.all(Array.from({ length: count }, async () => await firstReply(await t.connect())));
}

async function firstReply(client: TestClient): Promise<string | null> {
  try {
    return await ask(client, "hello");
  } catch {
    // A connection that is closed at once may be reset.
    return null;
  }
}

function countOf(replies: (string | null)[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const reply of replies) counts[`${reply}`] = (counts[`${reply}`] ?? 0) + 1;
  return counts;
}

testEngines(
  "In a storm, all workers together serve exactly maxConnections, and the rest gets the error line",
  async (engine) => {
    await using t = await TestWorkers.start({ engine, workers: 3, maxConnections: 20 });
    assertEquals(countOf(await storm(t, 100)), { "HELLO": 20, "error: more than 20 connections": 80 });
    assertEquals(t.server.stats().active, 20);
    for (const { reason, limit } of t.all("rejected")) assertEquals([reason, limit], ["max-connections", 20]);
    // Each place that becomes free is taken once more, whichever worker has it.
    for (const client of t.clients) client[Symbol.dispose]();
    await t.untilSeen("closed", 20);
    assertEquals(countOf(await storm(t, 40)), { "HELLO": 20, "error: more than 20 connections": 20 });
  },
);

testEngines("One client has exactly maxConnectionsPerIp connections in all workers", async (engine) => {
  await using t = await TestWorkers.start({ engine, maxConnectionsPerIp: 5 });
  assertEquals(countOf(await storm(t, 30)).HELLO, 5);
  assertEquals(countOf(t.all("rejected").map(({ reason }) => reason)), { "max-connections-per-ip": 25 });
  t.server.setLimits({ maxConnectionsPerIp: 7 });
  assertEquals(countOf(await storm(t, 10)).HELLO, 2);
});

testEngines("All workers together accept no more connections a second than acceptRate", async (engine) => {
  const acceptRate = 20;
  const since = performance.now();
  await using t = await TestWorkers.start({ engine, workers: 3, acceptRate });
  const times: number[] = [];
  const watch = t.until(() => {
    while (times.length < t.all("accepted").length) times.push(performance.now() - since);
    return times.length === 40;
  });
  assertEquals(countOf(await storm(t, 40)), { "HELLO": 40 });
  await watch;
  // The times are those at which this test has read the events: never earlier than the decisions.
  times.forEach((time, i) => assert(time >= (i + 1 - acceptRate) * 1000 / acceptRate - 1, `${i}: ${time}`));
});

testEngines("acceptRatePerIp and penalties count what all workers have accepted", async (engine) => {
  await using t = await TestWorkers.start({ engine, acceptRatePerIp: 4, maxPenaltyMs: 1_000_000 });
  const replies = countOf(await storm(t, 40));
  const reasons = countOf(t.all("rejected").map(({ reason }) => reason));
  const { "accept-rate-per-ip": rate = 0, penalty = 0 } = reasons;
  // After the 11th rejection for its rate, a client is shut out; in a second it may have come a few times more.
  assertEquals([replies.HELLO + rate + penalty, rate], [40, 11], JSON.stringify([replies, reasons]));
  assert(replies.HELLO >= 4 && penalty > 0, JSON.stringify([replies, reasons]));
});

testEngines("With atCapacity wait, a further client waits until there is room in any worker", async (engine) => {
  await using t = await TestWorkers.start({ engine, maxConnections: 2, atCapacity: "wait" });
  const [first, second] = await t.connectMany(2);
  const waiting = [await t.connect(), await t.connect(), await t.connect()];
  for (const client of waiting) await client.write("waited\n");
  await t.server.refresh();
  assertEquals(t.server.stats().accepted, 2);
  first[Symbol.dispose]();
  await t.untilSeen("accepted", 3);
  second[Symbol.dispose]();
  await t.untilSeen("accepted", 4);
  assertEquals(t.server.stats().active, 2);
  t.server.setLimits({ maxConnections: 3 });
  for (const client of waiting) assertEquals(await client.readLine(), "WAITED");
  assertEquals(t.all("rejected"), []);
});

testEngines("Of connections that wait for room, each worker has accepted one at most", async (engine) => {
  const limits = { maxConnections: 1, atCapacity: "wait" } as const;
  for (const later of [false, true]) {
    await using t = await TestWorkers.start({ engine, ...later ? {} : limits });
    if (later) t.server.setLimits(limits);
    // The workers know of the limits by then.
    await t.server.refresh();
    await t.connectMany(1);
    for (let i = 0; i < 40; i++) await t.connect();
    // Both have told by then how many they have.
    for (let i = 0; i < 3; i++) await t.server.refresh();
    assertEquals(t.server.stats().active, 1);
    assert(t.server.stats().queued <= 2, `${t.server.stats().queued} are queued`);
  }
});

testEngines("A connection that the hook admit has refused gives its place back", async (engine) => {
  await using t = await TestWorkers.start({ engine, maxConnections: 3, data: { prefix: "nobody" } });
  for (let i = 0; i < 12; i++) assertEquals(await firstReply(await t.connect()), "error: connection refused");
  const rejected = await t.untilSeen("rejected", 12);
  assertEquals(countOf(rejected.map(({ reason }) => reason)), { "refused": 12 });
});

testEngines("A hook admit that fails brings no client nearer to a penalty", async (engine) => {
  await using t = await TestWorkers.start({ engine, maxPenaltyMs: 1_000_000, data: { admitFails: true } });
  for (let i = 0; i < 15; i++) assertEquals(await firstReply(await t.connect()), "error: connection refused");
  const rejected = await t.untilSeen("rejected", 15);
  assertEquals(countOf(rejected.map(({ reason }) => reason)), { "refused": 15 });
});

testEngines("The lists allow and deny hold in all workers", async (engine) => {
  await using t = await TestWorkers.start({ engine, deny: ["127.0.0.0/8"] });
  assertEquals(countOf(await storm(t, 4)), { "error: address not allowed": 4 });
  t.server.setLimits({ deny: null });
  assertEquals(countOf(await storm(t, 4)), { "HELLO": 4 });
});
