import { assertEquals } from "@std/assert";
import { FakeClock } from "@x/shouty/testing";
import { Alarms } from "../../internal/time/alarms.ts";
import { registerAsker } from "../../internal/time/event_loop.ts";
import { test } from "../kit/bounded.ts";
import { check, fc } from "../kit/property.ts";

/** A step of the test: a sleeper gets a deadline or is dropped, or time passes. */
const anyMove = fc.oneof(
  fc.record({ sleeper: fc.nat(7), deadlineIn: fc.nat(200) }),
  fc.record({ sleeper: fc.nat(7), deadlineIn: fc.constant(Infinity) }),
  fc.record({ drop: fc.nat(7) }),
  fc.record({ pass: fc.nat(150) }),
);

test("the timer counts whole milliseconds, rounded up, and does not keep the process alive", () => {
  const timers: [delay: number, keepAlive: boolean, callback: () => void][] = [];
  let now = 0.25;
  const setTimer = (callback: () => void, delay: number, keepAlive: boolean) => {
    timers.push([delay, keepAlive, callback]);
    return () => {};
  };
  const alarms = new Alarms({ now: () => now, setTimer });
  let woken = 0;
  for (let i = 0; i < 1500; i++) {
    alarms.watch({ wakeAt: Infinity, place: 0, deadline: () => 10.5, wake: () => void woken++ }, 10.5);
  }
  now = 11;
  timers[0][2]();
  assertEquals(woken, 1000);
  assertEquals(timers.map(([delay, keepAlive]) => [delay, keepAlive]), [[11, false], [0, false]]);
});

test("Alarms wake each sleeper at its last deadline, once, in any interleaving", async () => {
  await check([fc.array(anyMove, { maxLength: 80 })], async (moves) => {
    const clock = new FakeClock();
    const alarms = new Alarms(clock);
    const woken: string[] = [];
    const wanted: string[] = [];
    const due = Array<number>(8).fill(Infinity);
    const sleepers = due.map((_, i) => ({
      wakeAt: Infinity,
      place: 0,
      deadline: () => due[i],
      wake: (now: number) => (due[i] = Infinity, woken.push(`${i} at ${now}`)),
    }));
    for (const move of [...moves, { pass: 1000 }]) {
      if ("drop" in move) {
        due[move.drop] = Infinity;
        alarms.drop(sleepers[move.drop]);
      } else if ("sleeper" in move) {
        due[move.sleeper] = clock.now() + move.deadlineIn;
        alarms.watch(sleepers[move.sleeper], due[move.sleeper]);
      } else {
        const end = clock.now() + move.pass;
        wanted.push(...due.flatMap((at, i) => at <= end ? [`${i} at ${at}`] : []));
        await clock.advance(move.pass);
        assertEquals(woken.toSorted(), wanted.toSorted());
      }
    }
    assertEquals(clock.pending, 0);
  }, 300);
});

test("Alarms wake a sleeper in time that has replaced a dropped one in another branch of the heap", async () => {
  const clock = new FakeClock();
  const alarms = new Alarms(clock);
  const woken: string[] = [];
  const sleepers = [1, 100, 2, 101, 102, 50, 3].map((at) => ({
    wakeAt: Infinity,
    place: 0,
    deadline: () => at,
    wake: (now: number) => void woken.push(`${at} at ${now}`),
  }));
  for (const sleeper of sleepers) alarms.watch(sleeper, sleeper.deadline());
  alarms.drop(sleepers[3]);
  await clock.advance(200);
  assertEquals(woken, [1, 2, 3, 50, 100, 102].map((at) => `${at} at ${at}`));
});

test("Alarms let other callbacks run when many thousand sleepers are due at once, and wake them all at that time", async () => {
  const clock = new FakeClock();
  const alarms = new Alarms(clock);
  const woken: number[] = [];
  for (let i = 0; i < 5000; i++) {
    alarms.watch({ wakeAt: Infinity, place: 0, deadline: () => 10, wake: (now) => void woken.push(now) }, 10);
  }
  let wokenBefore = 0;
  clock.setTimer(() => wokenBefore = woken.length, 10);
  await clock.advance(10);
  assertEquals(woken, Array<number>(5000).fill(10));
  assertEquals(wokenBefore > 0 && wokenBefore < 5000, true, `${wokenBefore} were woken before another timer`);
  assertEquals(clock.pending, 0);
});

test("Alarms ask about the sockets once for all sleepers that are due together, and anew for those due later", async () => {
  let [now, asked, woken] = [0, 0, 0];
  const timers: { ring: () => void; delay: number; cancelled: boolean }[] = [];
  const setTimer = (ring: () => void, delay: number) => {
    const timer = { ring, delay, cancelled: false };
    timers.push(timer);
    return () => void (timer.cancelled = true);
  };
  const alarms = new Alarms({ now: () => now, setTimer });
  const sleepers = Array.from({ length: 3500 }, (_, i) => ({
    wakeAt: Infinity,
    place: 0,
    deadline: () => i === 3499 ? 20 : 10,
    wake: () => void woken++,
  }));
  for (const sleeper of sleepers) alarms.watch(sleeper, sleeper.deadline());
  const unregister = registerAsker(() => void asked++);
  try {
    now = 10;
    timers[0].ring();
    while (woken === 0) await new Promise((resolve) => setTimeout(resolve, 0));
    const [askedBefore, last] = [asked, () => timers.at(-1)!];
    assertEquals([woken, last().delay], [1000, 0]);
    // Later than a timer may be, and what has become due meanwhile does not count.
    now = 500;
    const seen: number[] = [];
    for (let i = 0; i < 2; i++) last().ring(), seen.push(woken);
    assertEquals([seen, asked, timers.length], [[2000, 3000], askedBefore, 4]);
    last().ring();
    assertEquals(woken, 3499);
    while (woken < 3500) await new Promise((resolve) => setTimeout(resolve, 0));
    assertEquals(asked > askedBefore, true);
  } finally {
    unregister();
  }
});

test("Alarms wake nobody unasked who was due while the process was held up between two turns", async () => {
  let [now, woken, silent] = [0, 0, 0];
  const timers: (() => void)[] = [];
  const alarms = new Alarms({ now: () => now, setTimer: (ring) => (timers.push(ring), () => {}) });
  const sleeper = (deadline: () => number, wake: () => void) => ({ wakeAt: Infinity, place: 0, deadline, wake });
  for (let i = 0; i < 1500; i++) alarms.watch(sleeper(() => 10, () => void woken++), 10);
  let deadline = 500;
  alarms.watch(sleeper(() => deadline, () => void silent++), deadline);
  now = 10;
  timers[0]();
  // The peer of the last one has sent something meanwhile, which is read when the sockets are asked.
  now = 5000;
  const pending = timers.length;
  const read = new Promise<void>((resolve) => setTimeout(() => resolve(void (deadline = 6000)), 0));
  timers[1]();
  assertEquals([woken, silent, timers.length], [1500, 0, pending]);
  await read;
  while (timers.length === pending) await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(silent, 0);
  now = 6000;
  timers[pending]();
  assertEquals(silent, 1);
});

test("Alarms that have sleepers to wake in a later turn wait for nothing once these are dropped", async () => {
  const clock = new FakeClock();
  const alarms = new Alarms(clock);
  let woken = 0;
  const sleepers = Array.from({ length: 2500 }, () => ({
    wakeAt: Infinity,
    place: 0,
    deadline: () => 10,
    wake: () => void woken++,
  }));
  for (const sleeper of sleepers) alarms.watch(sleeper, 10);
  // This runs between the first turn and the second.
  clock.setTimer(() => sleepers.forEach((sleeper) => alarms.drop(sleeper)), 10);
  await clock.advance(10);
  assertEquals([woken, clock.pending], [1000, 0]);
  alarms.watch(sleepers[0], 15);
  await clock.advance(10);
  assertEquals([woken, clock.pending], [1001, 0]);
});

test("Alarms keep one timer when some of very many sleepers are no longer due", async () => {
  const clock = new FakeClock();
  const alarms = new Alarms(clock);
  let woken = 0;
  for (let i = 0; i < 2500; i++) {
    let deadline = 10;
    const sleeper = { wakeAt: Infinity, place: 0, deadline: () => deadline, wake: () => void woken++ };
    alarms.watch(sleeper, deadline);
    if (i % 2 === 0) deadline = 50;
  }
  await clock.advance(10);
  assertEquals([woken, clock.pending], [1250, 1]);
  await clock.advance(40);
  assertEquals([woken, clock.pending], [2500, 0]);
});
