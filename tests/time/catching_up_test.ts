import { assertEquals, assertGreaterOrEqual } from "@std/assert";
import { setImmediate } from "node:timers";
import { connect } from "@x/shouty";
import { FakeClock } from "@x/shouty/testing";
import { Alarms } from "../../internal/time/alarms.ts";
import { LOOP_WAITS, registerAsker } from "../../internal/time/event_loop.ts";
import { test } from "../kit/bounded.ts";
import { startServer } from "../kit/server.ts";

test("watching a deadline sets no timer while the clocks catch up after the loop was held up", async () => {
  let now = 0;
  const timers: (() => void)[] = [];
  const alarms = new Alarms({ now: () => now, setTimer: (callback) => (timers.push(callback), () => {}) });
  let woken = 0;
  const sleep = (at: number) =>
    alarms.watch({ wakeAt: Infinity, place: 0, deadline: () => at, wake: () => void woken++ }, at);
  sleep(10);
  now = 10_000;
  timers[0]();
  for (let i = 0; i < 10; i++) sleep(11_000 - i);
  assertEquals(timers.length, 1);
  while (woken === 0) await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals([woken, timers.length], [1, 2]);
});

/** Has alarms watch 2000 connections until it is disposed of. */
function watchMany(): Disposable {
  const alarms = new Alarms(new FakeClock());
  const sleepers = Array.from({ length: 2000 }, () => ({
    ...{ wakeAt: Infinity, place: 0 },
    deadline: () => 1000,
    wake() {},
  }));
  for (const sleeper of sleepers) alarms.watch(sleeper, 1000);
  return { [Symbol.dispose]: () => sleepers.forEach((sleeper) => alarms.drop(sleeper)) };
}

/** The number of waits after which Deno has read from these connections: from up to 128 in each. */
const MANY_WAITS = 2000 >> 7;

test("alarms that catch up wait for the sockets of all connections, and not only for those of their own", async () => {
  using _others = watchMany();
  let [now, woken] = [0, 0];
  const timers: (() => void)[] = [];
  const alarms = new Alarms({ now: () => now, setTimer: (callback) => (timers.push(callback), () => {}) });
  alarms.watch({ wakeAt: Infinity, place: 0, deadline: () => 10, wake: () => void woken++ }, 10);
  const { begun } = LOOP_WAITS;
  now = 10_000;
  timers[0]();
  while (woken === 0) await new Promise((resolve) => setTimeout(resolve, 0));
  assertGreaterOrEqual(LOOP_WAITS.begun - begun, MANY_WAITS);
});

test("a shutdown with finish waits for the sockets of all connections, and not only for those of its server", async () => {
  using _others = watchMany();
  await using t = startServer({ drain: "finish" });
  const client = await t.admitted();
  const { begun } = LOOP_WAITS;
  const stopped = t.server.shutdown();
  assertEquals(await client.readAll(), "");
  assertGreaterOrEqual(LOOP_WAITS.begun - begun, MANY_WAITS);
  client.close();
  assertEquals((await stopped).closed, { drained: 1 });
});

test("a connection of connect() waits at its end for the sockets of all connections", async () => {
  using _others = watchMany();
  await using t = startServer();
  await using conn = await connect({ hostname: "127.0.0.1", port: t.port, maxLines: 1 });
  await conn.write("hello\n");
  assertEquals(await conn.readLine(), "HELLO");
  const { begun } = LOOP_WAITS;
  assertEquals([await conn.readLine(), conn.ending], [null, "max-lines"]);
  assertGreaterOrEqual(LOOP_WAITS.begun - begun, MANY_WAITS);
});

test("watching a deadline sets no timer while another engine's sockets are asked, or other callbacks come first", async () => {
  const unregister = registerAsker(() => {});
  try {
    let [now, woken] = [0, 0];
    const timers: (() => void)[] = [];
    const alarms = new Alarms({ now: () => now, setTimer: (callback) => (timers.push(callback), () => {}) });
    const sleep = (at: number) =>
      alarms.watch({ wakeAt: Infinity, place: 0, deadline: () => at, wake: () => void woken++ }, at);
    for (let i = 0; i < 1500; i++) sleep(10);
    now = 10;
    timers[0]();
    sleep(1000);
    assertEquals(timers.length, 1);
    while (woken === 0) await new Promise((resolve) => setTimeout(resolve, 0));
    sleep(500);
    // Some are woken now, and the rest by a timer that others run before.
    assertEquals([woken, timers.length], [1000, 2]);
    timers[1]();
    assertEquals([woken, timers.length], [1500, 3]);
  } finally {
    unregister();
  }
});

test("clocks that catch up leave no timer behind when the last deadline is dropped, and begin anew after that", async () => {
  let [now, woken] = [0, 0];
  const timers: (() => void)[] = [];
  const alarms = new Alarms({ now: () => now, setTimer: (callback) => (timers.push(callback), () => {}) });
  const sleeper = { wakeAt: Infinity, place: 0, deadline: () => 10, wake: () => void woken++ };
  alarms.watch(sleeper, 10);
  now = 10_000;
  using set = watchTimers();
  timers[0]();
  while (set.pending.size === 0) await new Promise((resolve) => setImmediate(resolve));
  alarms.drop(sleeper);
  assertEquals([set.pending.size, timers.length], [0, 1]);
  alarms.watch(sleeper, 10);
  assertEquals(timers.length, 2);
  timers[1]();
  while (woken === 0) await new Promise((resolve) => setImmediate(resolve));
  assertEquals([woken, timers.length], [1, 2]);
});

test("a sleeper that is due is not woken if another engine's sockets, asked before, have something for it", async () => {
  const clock = new FakeClock();
  const alarms = new Alarms(clock);
  let [deadline, woken] = [1000, 0];
  const unregister = registerAsker(() => clock.now() === 1000 && (deadline = 3000));
  try {
    alarms.watch({ wakeAt: Infinity, place: 0, deadline: () => deadline, wake: () => void woken++ }, 1000);
    await clock.advance(2999);
    assertEquals([deadline, woken], [3000, 0]);
    await clock.advance(1);
    assertEquals(woken, 1);
  } finally {
    unregister();
  }
});

/** Notes which timers without a delay are set, until it is disposed. */
function watchTimers(): Disposable & { pending: Set<unknown> } {
  const { setTimeout, clearTimeout } = globalThis;
  const pending = new Set<unknown>();
  const set = (callback: () => void, delay: number) => {
    const id = setTimeout(() => (pending.delete(id), callback()), delay);
    if (delay === 0) pending.add(id);
    return id;
  };
  const clear = (id: number) => (pending.delete(id), clearTimeout(id));
  Object.assign(globalThis, { setTimeout: set, clearTimeout: clear });
  return { pending, [Symbol.dispose]: () => void Object.assign(globalThis, { setTimeout, clearTimeout }) };
}
