import { assertEquals, assertGreaterOrEqual, assertLessOrEqual } from "@std/assert";
import { FakeClock } from "@x/shouty/testing";
import { SYSTEM_CLOCK } from "../../internal/time/clock.ts";
import { RefClock } from "../../internal/time/clock.ts";
import { test } from "../kit/bounded.ts";

test("the system clock goes on although the wall clock stands still", async () => {
  const program = `
    Date.now = () => 1000;
    const { SYSTEM_CLOCK } = await import("${import.meta.resolve("../../internal/time/clock.ts")}");
    const start = SYSTEM_CLOCK.now();
    await new Promise((resolve) => SYSTEM_CLOCK.setTimer(resolve, 20, true));
    console.log(SYSTEM_CLOCK.now() - start >= 19);
  `;
  const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["eval", "--no-check", program] }).output();
  assertEquals(new TextDecoder().decode(stdout), "true\n");
});

test("a delay above the system's maximum does not expire at once", async () => {
  const rung: string[] = [];
  // The largest value of maxAge, with the largest random change.
  const cancel = SYSTEM_CLOCK.setTimer(() => rung.push("long"), 1.1 * (2 ** 31 - 1), true);
  await new Promise<void>((resolve) => SYSTEM_CLOCK.setTimer(resolve, 5, true));
  cancel();
  assertEquals(rung, []);
});

// Deno keeps some memory for each delay that a cancelled timer has had, in whole milliseconds, until it has passed.
test("timers that are set for times far away, and cancelled, have few different delays", () => {
  const { setTimeout } = globalThis;
  const delays = new Set<number | undefined>();
  globalThis.setTimeout =
    ((callback: () => void, delay?: number) => (delays.add(delay), setTimeout(callback, delay))) as typeof setTimeout;
  try {
    const day = 24 * 3_600_000;
    for (let i = 0; i < 10_000; i++) SYSTEM_CLOCK.setTimer(() => {}, day - 5000 * i, false)();
  } finally {
    globalThis.setTimeout = setTimeout;
  }
  assertLessOrEqual(delays.size, 20);
});

test("a long timer waits its whole time, in parts", async () => {
  const begun = performance.now();
  await new Promise<void>((resolve) => SYSTEM_CLOCK.setTimer(resolve, 1100, true));
  assertGreaterOrEqual(performance.now() - begun, 1100);
});

test("a long timer can be cancelled in each of its parts", () => {
  const { setTimeout, clearTimeout } = globalThis;
  const parts: (() => void)[] = [];
  const cleared: unknown[] = [];
  globalThis.setTimeout = ((callback: () => void) => parts.push(callback)) as unknown as typeof setTimeout;
  globalThis.clearTimeout = (id) => void cleared.push(id);
  try {
    const cancel = SYSTEM_CLOCK.setTimer(() => {}, 60_000, true);
    cancel();
    parts[0]();
    cancel();
  } finally {
    Object.assign(globalThis, { setTimeout, clearTimeout });
  }
  assertEquals([parts.length, cleared], [2, [1, 2]]);
});

test("a RefClock's timer keeps the process alive unless it is unreferenced, and expires in time", async () => {
  const fake = new FakeClock();
  const kept: boolean[] = [];
  const setTimer = (callback: () => void, delay: number, keepAlive: boolean) => {
    kept.push(keepAlive);
    return fake.setTimer(callback, delay);
  };
  const clock = new RefClock({ now: () => fake.now(), setTimer });
  const ended: number[] = [];
  clock.setTimer(() => ended.push(clock.now()), 100, true);
  const cancel = clock.setTimer(() => ended.push(-1), 100, true);
  await fake.advance(40);
  cancel();
  clock.unref();
  await fake.advance(40);
  clock.setTimer(() => ended.push(clock.now()), 50, true);
  clock.ref();
  assertEquals(kept, [true, true, false, false, true, true]);
  await fake.advance(1000);
  clock.unref();
  assertEquals([ended, kept.length], [[100, 130], 6], "A timer that has ended is not set again");
});

test("a RefClock's timer that is not to keep the process alive never does", () => {
  const kept: boolean[] = [];
  const clock = new RefClock({ now: () => 0, setTimer: (_, __, keepAlive) => (kept.push(keepAlive), () => {}) });
  clock.setTimer(() => {}, 10, false);
  clock.unref();
  clock.ref();
  assertEquals(kept, [false]);
});
