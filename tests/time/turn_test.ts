import { assertEquals } from "@std/assert";
import { setImmediate } from "node:timers";
import { turn, Turns } from "../../internal/time/turns.ts";
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
