import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { setImmediate } from "node:timers";
import { afterSocketsTurns, registerAsker, rounds, turn } from "../../internal/time/event_loop.ts";
import { TURN_BYTES, TURNS, Turns } from "../../internal/time/turns.ts";
import { test } from "../kit/bounded.ts";

test("a turn allows no more work than its maximum, in however many rounds of the loop", async () => {
  const turns = new Turns(64, () => new Promise(() => {}), 16);
  let count = 0;
  (async () => {
    for (;; count++) await turns.take(1);
  })();
  for (let rounds = 0; rounds < 20; rounds++) await new Promise<void>((resolve) => setImmediate(() => resolve()));
  assertEquals(count, 64);
});

test("takers of a turn are served in order, the sixteenth in a row too", async () => {
  const turns = new Turns(64, turn, 16);
  turns.take(64);
  const order: number[] = [];
  const entries = Array.from({ length: 15 }, async (_, i) => (await turns.take(1), order.push(i)));
  await Promise.all(entries);
  assertEquals(order, entries.map((_, i) => i));
});

/** Returns how many rounds of the event loop go by until the next turn begins. */
async function roundsToNextTurn(): Promise<number> {
  let begun: Promise<void> | undefined;
  while (begun === undefined) begun = TURNS.take(TURN_BYTES);
  let over = false;
  begun.then(() => over = true);
  let rounds = 0;
  for (; !over; rounds++) await new Promise<void>((resolve) => setImmediate(() => resolve()));
  return rounds;
}

test("each turn waits for Deno's sockets, but only every fourth one where another engine is in use", async () => {
  for (let i = 0; i < 4; i++) assertGreater(await roundsToNextTurn(), 60);
  const unregister = registerAsker(() => {});
  try {
    const all = [];
    for (let i = 0; i < 8; i++) all.push(await roundsToNextTurn());
    const [short, long] = [all.filter((rounds) => rounds < 60), all.filter((rounds) => rounds > 60)];
    assertEquals([short.length, long.length], [6, 2]);
    assertLess(Math.max(...short), 10);
  } finally {
    unregister();
  }
});

test("a wait for the event loop asks about the sockets of other engines when it begins, and a long one on its way", async () => {
  let asked = 0;
  const unregister = registerAsker(() => void asked++);
  try {
    const begun = turn();
    assertEquals(asked, 1);
    await begun;
    asked = 0;
    await rounds();
    assertEquals(asked, 2);
  } finally {
    unregister();
  }
});

test("a wait for the sockets that is called off calls nothing back, whenever that happens", async () => {
  let called = 0;
  for (let round = 0; round < 200; round++) {
    const callOff = afterSocketsTurns(0, () => void called++);
    for (let i = 0; i < round; i++) await new Promise<void>((resolve) => setImmediate(() => resolve()));
    if (called > 0) break;
    callOff();
  }
  called = 0;
  for (let i = 0; i < 3; i++) await rounds(), await turn();
  assertEquals(called, 0);
});
