import { assertEquals } from "@std/assert";
import { setImmediate } from "node:timers";
import { turn, Turns } from "../../internal/time/turns.ts";
import { test } from "../kit/bounded.ts";

test("a turn is as long as it is, however often the loop goes round in it", async () => {
  const turns = new Turns(64, () => new Promise(() => {}), 16);
  let count = 0;
  (async () => {
    for (;; count++) await turns.take(1);
  })();
  for (let rounds = 0; rounds < 20; rounds++) await new Promise<void>((resolve) => setImmediate(() => resolve()));
  assertEquals(count, 64);
});

test("who is let in waits for a turn like all others, the sixteenth in a row too", async () => {
  const turns = new Turns(64, turn, 16);
  turns.take(64);
  const order: number[] = [];
  const entries = Array.from({ length: 15 }, async (_, i) => (await turns.take(1), order.push(i)));
  await Promise.all(entries);
  assertEquals(order, entries.map((_, i) => i));
});
