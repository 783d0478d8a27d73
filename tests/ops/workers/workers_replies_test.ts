import { assertEquals, assertRejects } from "@std/assert";
import { Replies } from "../../../ops/workers/supervision/replies.ts";
import { test } from "../../kit/bounded.ts";

test("A question is answered when all workers have replied, or have ended", async () => {
  const replies = new Replies();
  const keys: number[] = [];
  const done: string[] = [];
  const ask = (workers: number[], name: string) =>
    replies.all(workers, (key) => keys.push(key)).then(() => done.push(name));
  const asked = [ask([0, 1, 2], "first"), ask([0, 1], "second"), ask([], "of none")];
  replies.replied(keys[0], 0);
  replies.replied(keys[0], 0);
  replies.replied(keys[1], 1);
  replies.gone(1);
  await asked[2];
  assertEquals(done, ["of none"]);
  replies.gone(0);
  await asked[1];
  assertEquals(done, ["of none", "second"], "Of the first, one worker is left");
  replies.replied(keys[0], 2);
  await asked[0];
});

test("The first error of a worker is that of its question, and a question that cannot be sent rejects", async () => {
  const replies = new Replies();
  const keys: number[] = [];
  const ask = () => replies.all([0, 1], (key) => keys.push(key));
  const [failing, other] = [ask(), ask()];
  for (const worker of [0, 1]) replies.replied(keys[0], worker, new RangeError(`Worker ${worker} failed`));
  for (const worker of [0, 1]) replies.replied(keys[1], worker);
  await assertRejects(() => failing, RangeError, "Worker 0 failed");
  await other;
  const refused = () => {
    throw new TypeError("It cannot be copied");
  };
  await assertRejects(() => replies.all([0], refused), TypeError, "It cannot be copied");
});
