import { assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import { FakeClock } from "@x/shouty/testing";
import { Alarms } from "../../internal/time/alarms.ts";
import { ConnectionClocks } from "../../internal/time/conn_clocks.ts";
import type { Expiry, Timeouts } from "../../internal/time/expiry.ts";
import { test } from "../kit/bounded.ts";
import { check, fc } from "../kit/property.ts";

const TIMEOUTS: Timeouts = {
  idleOn: "both",
  minBytesPerSecond: 240,
  firstLineTimeout: Infinity,
  idleTimeout: 100,
  lineTimeout: 250,
  writeTimeout: 70,
  handlerTimeout: Infinity,
  halfCloseTimeout: 60_000,
  maxAge: Infinity,
};

/** Starts the clocks of a connection; `found` gets each expiry with its time. */
function startClocks(timeouts: Partial<Timeouts> = {}) {
  const clock = new FakeClock();
  const found: [number, Expiry][] = [];
  const expire = (expiry: Expiry) => {
    found.push([clock.now(), expiry]);
    if (expiry !== "max-age") clocks.stop();
  };
  const clocks: ConnectionClocks = new ConnectionClocks(new Alarms(clock), { ...TIMEOUTS, ...timeouts }, { expire });
  return { clock, clocks, found };
}

/** An event that moves the clocks of a connection. */
const anyStep = fc.oneof(
  fc.constantFrom("wait", "wait in mid-line", "rest", "line ended", "writing", "wrote"),
  { weight: 2, arbitrary: fc.integer({ min: 1, max: 120 }) },
);

type Step = "wait" | "wait in mid-line" | "rest" | "line ended" | "writing" | "wrote";

function apply(clocks: ConnectionClocks, step: Step): void {
  if (step === "rest") clocks.rest();
  else if (step === "line ended") clocks.bytesCame(true);
  else if (step === "writing") clocks.writing(false);
  else if (step === "wrote") clocks.wrote();
  else {
    // A connection never waits twice in a row.
    clocks.rest();
    clocks.wait(step === "wait in mid-line" ? "line" : undefined);
  }
}

/** A model of the clocks that checks every limit in every millisecond. */
class Model {
  now = 0;
  found: [number, Expiry] | undefined;
  waiting = false;
  midLine = false;
  writing = false;
  idleFor = 0;
  lineFor = 0;
  writingFor = 0;

  apply(step: Step): void {
    if (step.startsWith("wait")) {
      this.waiting = true;
      this.idleFor = 0;
      this.midLine = step === "wait in mid-line";
    } else if (step === "rest") this.waiting = false;
    else if (step === "line ended") this.waiting = false, this.lineFor = 0;
    else if (step === "writing") this.writing = true, this.writingFor = 0;
    else this.writing = false, this.idleFor = 0;
  }

  advance(milliseconds: number): void {
    for (let i = 0; i < milliseconds && this.found === undefined; i++) {
      this.now++;
      this.idleFor++;
      this.writingFor++;
      if (this.waiting && this.midLine) this.lineFor++;
      if (this.writing && this.writingFor >= TIMEOUTS.writeTimeout) this.found = [this.now, "write-timeout"];
      else if (this.lineFor >= TIMEOUTS.lineTimeout) this.found = [this.now, "line-timeout"];
      else if (this.waiting && !this.writing && this.idleFor >= TIMEOUTS.idleTimeout) this.found = [this.now, "idle"];
    }
  }
}

test("the idle clock runs while the server waits, and any read or write restarts it", async () => {
  const { clock, clocks, found } = startClocks();
  clocks.wait(undefined);
  await clock.advance(99);
  clocks.rest();
  await clock.advance(1000);
  clocks.wait(undefined);
  await clock.advance(60);
  clocks.writing(false);
  await clock.advance(60);
  clocks.wrote();
  await clock.advance(99);
  assertEquals(found, []);
  await clock.advance(1);
  assertEquals(found, [[1319, "idle"]]);
});

test("a write that completes while the server does not wait for the peer starts no idle clock", async () => {
  const { clock, clocks, found } = startClocks();
  clocks.writing(false);
  clocks.wrote();
  await clock.advance(10_000);
  assertEquals([found, clock.pending], [[], 0]);
});

test("the line clock adds up the waits for one line, and starts anew with the next line", async () => {
  const { clock, clocks, found } = startClocks();
  for (let i = 0; i < 3; i++) {
    clocks.wait("line");
    await clock.advance(80);
    clocks.rest();
    await clock.advance(500);
  }
  clocks.bytesCame(true);
  for (let i = 0; i < 2; i++) {
    clocks.wait("line");
    await clock.advance(90);
    clocks.rest();
  }
  clocks.wait("line");
  await clock.advance(69);
  assertEquals(found, []);
  await clock.advance(1);
  assertEquals(found, [[3 * 580 + 250, "line-timeout"]]);
});

test("while a block is being written, the write clock runs and the idle clock does not", async () => {
  const { clock, clocks, found } = startClocks({ writeTimeout: 150 });
  clocks.wait(undefined);
  clocks.writing(false);
  await clock.advance(149);
  assertEquals(found, []);
  await clock.advance(1);
  assertEquals(found, [[150, "write-timeout"]]);
});

test("max-age expires once, within 10 % of its time, and the other clocks go on", async () => {
  const ages = new Set<number>();
  for (let i = 0; i < 50; i++) {
    const { clock, clocks, found } = startClocks({ maxAge: 1000, idleTimeout: 1500 });
    clocks.wait(undefined);
    await clock.advance(5000);
    assertEquals(found.map(([, expiry]) => expiry), ["max-age", "idle"]);
    assertEquals([found[0][0] >= 900, found[0][0] <= 1101, found[1][0]], [true, true, 1500]);
    ages.add(found[0][0]);
  }
  assertGreater(ages.size, 10);
});

test("after linger() no other clock runs", async () => {
  const { clock, clocks, found } = startClocks({ maxAge: 500 });
  clocks.wait("line");
  clocks.writing(false);
  clocks.linger(2000);
  await clock.advance(5000);
  assertEquals(found, [[2000, "closing"]]);
});

test("Infinity switches each clock off", async () => {
  const never = { idleTimeout: Infinity, lineTimeout: Infinity, writeTimeout: Infinity };
  const { clock, clocks, found } = startClocks(never);
  clocks.wait("line");
  clocks.writing(false);
  await clock.advance(1e12);
  assertEquals([found, clock.pending], [[], 0]);
});

test("a connection that has ended sets no timer, whatever its handler still asks for", () => {
  const { clock, clocks } = startClocks();
  clocks.stop();
  clocks.limitRead(50);
  clocks.timeouts = { ...TIMEOUTS, maxAge: 1000 };
  clocks.work();
  assertEquals(clock.pending, 0);
});

test("a peer that has sent nothing meets firstLineTimeout, and not idleTimeout, while a write is slow", async () => {
  const { clock, clocks, found } = startClocks({ firstLineTimeout: 200, writeTimeout: 500 });
  clocks.wait(undefined);
  await clock.advance(50);
  clocks.writing(false);
  await clock.advance(150);
  assertEquals(found, [[200, "first-line-timeout"]]);
});

test("the clocks agree with a model that counts every millisecond", async () => {
  await check([fc.array(anyStep, { maxLength: 60 })], async (steps) => {
    const { clock, clocks, found } = startClocks();
    const model = new Model();
    for (const step of steps) {
      if (typeof step === "number") {
        model.advance(step);
        await clock.advance(step);
      } else {
        apply(clocks, step);
        model.apply(step);
      }
      assertEquals(found[0], model.found);
      if (model.found !== undefined) return;
    }
  }, 300);
});

test("a thousand connections that send all the time share one timer, which is seldom set", async () => {
  const clock = new FakeClock();
  let set = 0;
  const counting = {
    now: () => clock.now(),
    setTimer: (callback: () => void, delay: number) => (set++, clock.setTimer(callback, delay)),
  };
  const alarms = new Alarms(counting);
  const owner = { expire() {} };
  const all = Array.from({ length: 1000 }, () => new ConnectionClocks(alarms, TIMEOUTS, owner));
  for (let round = 0; round < 20; round++) {
    for (const clocks of all) clocks.rest(), clocks.writing(false), clocks.wrote(), clocks.wait(undefined);
    assertEquals(clock.pending, 1);
    await clock.advance(10);
  }
  assertLessOrEqual(set, 20);
  for (const clocks of all) clocks.stop();
  assertEquals(clock.pending, 0);
});
