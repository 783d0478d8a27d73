import { assertEquals } from "@std/assert";
import { test, testOnce } from "../../kit/bounded.ts";
import { inMemory, startServer } from "../../kit/server.ts";

testOnce("shutdown({ delay }) goes on accepting and serving until the time is up, and then drains", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, idleTimeout: Infinity });
  const stopped = t.server.shutdown({ delay: 3000, drain: "finish" });
  assertEquals([t.server.state, t.all("lame-duck").map(({ delayMs }) => delayMs)], ["lame-duck", [3000]]);
  await clock.advance(2999);
  assertEquals(await t.talk("late\n"), "LATE\n");
  assertEquals([t.server.state, t.all("draining").length], ["lame-duck", 0]);
  const client = await t.admitted();
  await client.write("later\n");
  assertEquals(await client.readLine(), "LATER");
  await clock.advance(1);
  assertEquals(t.server.state, "draining");
  assertEquals(await client.readAll(), "");
  client.close();
  assertEquals((await stopped).closed, { drained: 1 });
});

testOnce("a further shutdown() only shortens the delay, and no call makes it longer", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, drainDelay: 10_000 });
  t.server.shutdown();
  await clock.advance(5000);
  assertEquals(t.all("lame-duck").length, 1);
  t.server.shutdown({ delay: 1000 });
  t.server.shutdown({ delay: 60_000 });
  t.server.shutdown();
  await clock.advance(999);
  assertEquals(t.server.state, "lame-duck");
  await clock.advance(1);
  assertEquals([t.server.state, clock.pending], ["closed", 0]);
});

testOnce("shutdown({ delay: 0 }) ends a delay at once, with the mode and the deadline of both calls", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, idleTimeout: Infinity });
  const client = await t.admitted();
  t.server.shutdown({ delay: 5000, drain: "finish" });
  const stopped = t.server.shutdown({ delay: 0 });
  assertEquals(await client.readAll(), "");
  client.close();
  assertEquals((await stopped).closed, { drained: 1 });
});

testOnce("the deadline of a drain that a delay precedes is the earliest that any call has asked for", async () => {
  for (const drainTimeouts of [[1000, 60_000], [60_000, 1000]]) {
    const { listener, clock } = inMemory();
    await using t = startServer({ listener, clock, idleTimeout: Infinity });
    await t.admitted();
    const reports = drainTimeouts.map((drainTimeout) => t.server.shutdown({ delay: 5000, drainTimeout }));
    await clock.advance(5999);
    assertEquals([t.server.state, t.stats.active], ["draining", 1]);
    await clock.advance(1);
    assertEquals(t.stats.active, 0);
    assertEquals((await reports[0]).closed, { "drain-timeout": 1 });
  }
});

test("the option drainDelay holds for the signal, too", async () => {
  const stop = new AbortController();
  await using t = startServer({ drainDelay: 300, signal: stop.signal });
  stop.abort();
  assertEquals(t.server.state, "lame-duck");
  assertEquals(await t.talk("still here\n"), "STILL HERE\n");
  await t.until("stopped");
  assertEquals(t.all("lame-duck").length, 1);
});

testOnce("a deadline that is brought forward brings forward when connections are asked to finish", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, idleTimeout: Infinity });
  const clients = await Promise.all(Array.from({ length: 20 }, () => t.admitted()));
  let asked = 0;
  for (const { finishing } of t.server.connections) finishing.addEventListener("abort", () => asked++);
  t.server.shutdown({ drain: "finish", drainTimeout: 60_000, spread: 40_000 });
  t.server.shutdown({ drainTimeout: 50_000 });
  assertEquals(asked, 0, "The deadline is still later than the spread's end");
  t.server.shutdown({ drainTimeout: 4000 });
  await clock.advance(2000);
  assertEquals(asked, 10);
  await clock.advance(1990);
  assertEquals(asked, 20);
  for (const client of clients) client.close();
});

testOnce("a drain that turns from linger into finish aborts no connection before the deadline", async () => {
  const { listener, clock } = inMemory();
  const answer = Promise.withResolvers<string>();
  await using t = startServer({ listener, clock, idleTimeout: Infinity }, () => answer.promise);
  const client = await t.admitted();
  await client.write("busy\n");
  t.server.shutdown({ drain: "linger", drainTimeout: 10_000, spread: 8000 });
  await clock.advance(1000);
  const stopped = t.server.shutdown({ drain: "finish" });
  for (let now = 1000; now < 9900; now += 100) await clock.advance(100);
  assertEquals(t.all("closed").length, 0);
  answer.resolve("answered");
  assertEquals(await client.readAll(), "answered\n");
  client.close();
  assertEquals((await stopped).closed, { drained: 1 });
});

testOnce("a drain that turns into finish while it aborts connections aborts the others at the deadline", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, idleTimeout: Infinity }, () => new Promise<string>(() => {}));
  for (let i = 0; i < 4; i++) await (await t.admitted()).write("busy\n");
  t.server.shutdown({ drain: "linger", drainTimeout: 10_000, spread: 8000 });
  await clock.advance(5000);
  assertEquals(t.stats.active, 2);
  const stopped = t.server.shutdown({ drain: "finish" });
  await clock.advance(4999);
  assertEquals(t.stats.active, 2);
  await clock.advance(1);
  assertEquals((await stopped).closed, { "drain-timeout": 4 });
});

testOnce("a drain that turns into finish after its deadline sets no negative timer, and leaves none", async () => {
  const { listener: memory, clock } = inMemory();
  const delays: number[] = [];
  const recorder = {
    now: () => clock.now(),
    setTimer: (callback: () => void, delay: number) => (delays.push(delay), clock.setTimer(callback, delay)),
  };
  const released = Promise.withResolvers<void>();
  const close = () => released.promise.then(() => memory.close());
  const listener = { addr: memory.addr, accept: () => memory.accept(), close };
  await using t = startServer({ listener, clock: recorder });
  const stopped = t.server.shutdown({ drainTimeout: 1000 });
  await clock.advance(1500);
  t.server.shutdown({ drain: "finish" });
  await clock.advance(0);
  released.resolve();
  await stopped;
  assertEquals([delays.filter((delay) => delay < 0), clock.pending], [[], 0]);
});
