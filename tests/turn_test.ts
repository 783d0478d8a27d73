import { assertEquals, assertLessOrEqual } from "@std/assert";
import { Turns } from "../internal/turn.ts";
import { test } from "./bounded.ts";

test("a turn lets in 64 connections at most, however fast they come", async () => {
  const turns = new Turns();
  let over = false;
  setTimeout(() => over = true, 0);
  let count = 0;
  for (; !over && count < 1000; count++) await turns.takeEntry();
  // The last one had the next turn.
  assertLessOrEqual(count, 65);
});

test("who is let in waits for a turn like all others, the sixteenth too", async () => {
  const turns = new Turns();
  turns.take(2 ** 20);
  const order: number[] = [];
  const entries = Array.from({ length: 16 }, async (_, i) => (await turns.takeEntry(), order.push(i)));
  await Promise.all(entries);
  assertEquals(order, entries.map((_, i) => i));
});
