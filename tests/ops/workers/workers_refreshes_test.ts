import { assertEquals } from "@std/assert";
import { Refreshes } from "../../../ops/workers/supervision/refreshes.ts";
import { test } from "../../kit/bounded.ts";

/** Workers that are asked; it notes which were, and which calls have got their answer. */
function asking() {
  const sent: number[] = [];
  const done: string[] = [];
  const refreshes = new Refreshes((worker) => sent.push(worker));
  const ask = (worker: number, name: string) => void refreshes.ask(worker).then(() => done.push(name));
  return { refreshes, sent, done, ask };
}

test("However often a busy worker is asked for its figures, one question waits there, and one here", async () => {
  const { refreshes, sent, done, ask } = asking();
  for (const name of ["first", "second", "third"]) ask(0, name);
  ask(1, "other");
  assertEquals(sent, [0, 1]);
  refreshes.answered(0);
  await Promise.resolve();
  assertEquals([sent, done], [[0, 1, 0], ["first"]], "An answer from before a call does not count for it");
  refreshes.answered(0);
  await Promise.resolve();
  assertEquals([sent, done], [[0, 1, 0], ["first", "second", "third"]]);
  ask(0, "last");
  assertEquals(sent, [0, 1, 0, 0]);
});

test("A worker that ends leaves no call waiting for its figures", async () => {
  const { refreshes, sent, done, ask } = asking();
  for (const name of ["first", "second"]) ask(0, name);
  refreshes.gone(0);
  await Promise.resolve();
  assertEquals([sent, done], [[0], ["first", "second"]]);
});
