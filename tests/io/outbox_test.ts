import { assert, assertEquals, assertLessOrEqual } from "@std/assert";
import { test } from "../kit/bounded.ts";
import { Kernel, outboxTo } from "../kit/outbox.ts";

const BLOCK_BYTES = 64 * 1024;

test("Outbox writes what is added after a flush that had nothing to write", async () => {
  const kernel = new Kernel();
  const outbox = outboxTo(kernel);
  await outbox.flush();
  outbox.add("late");
  await outbox.flush();
  assertEquals(kernel.text, "late");
});

test("Outbox keeps the order of text and bytes, in one write", async () => {
  const kernel = new Kernel();
  const outbox = outboxTo(kernel);
  for (let i = 0; i < 10; i++) outbox.add(i % 2 === 0 ? `${i},` : new TextEncoder().encode(`${i};`));
  assertEquals(outbox.size, 20);
  await outbox.flush();
  assertEquals([kernel.text, kernel.calls, outbox.size], ["0,1;2,3;4,5;6,7;8,9;", 1, 0]);
});

test("Outbox goes on where a partial write stopped", async () => {
  const kernel = new Kernel(3);
  const outbox = outboxTo(kernel);
  outbox.add("0123456789");
  await outbox.flush();
  assertEquals([kernel.text, kernel.calls, kernel.blocks], ["0123456789", 4, [10]]);
});

test("Outbox copies the bytes that it is given", async () => {
  const kernel = new Kernel();
  const outbox = outboxTo(kernel);
  const bytes = new TextEncoder().encode("mine");
  outbox.add(bytes);
  bytes.fill(0);
  await outbox.flush();
  assertEquals(kernel.text, "mine");
});

test("Outbox writes lent bytes in their place among others, and adds nothing to them", async () => {
  const kernel = new Kernel(5, false);
  const outbox = outboxTo(kernel);
  const bytes = (text: string) => new TextEncoder().encode(text);
  outbox.lend(bytes("lent,"));
  const flushed = outbox.flush();
  outbox.add("added,");
  outbox.lend(bytes("lent behind,"));
  outbox.flush();
  kernel.open();
  await flushed;
  outbox.lend(bytes("lent,"));
  await outbox.flush();
  assertEquals([kernel.text, outbox.size], ["lent,added,lent behind,lent,", 0]);
  outbox.close("reset");
  outbox.lend(bytes("too late"));
  assertEquals(outbox.size, 0);
});

test("Outbox writes nothing into the bytes that it was lent, even if they are as large as a block", async () => {
  for (const size of [4096, BLOCK_BYTES]) {
    const outbox = outboxTo(new Kernel());
    // The outbox has had a block of its own before.
    outbox.add(new Uint8Array(size));
    await outbox.flush();
    const lent = new Uint8Array(size);
    outbox.lend(lent);
    await outbox.flush();
    outbox.add(new Uint8Array(size).fill(1));
    assertEquals(lent.includes(1), false, `${size}`);
  }
});

test("Outbox can be added to while a block is being written, and does not change the bytes of that write", async () => {
  const kernel = new Kernel(5, false);
  const outbox = outboxTo(kernel);
  outbox.add("a".repeat(8));
  outbox.flush();
  outbox.add("b".repeat(BLOCK_BYTES));
  outbox.add("c".repeat(8));
  const flushed = outbox.flush();
  kernel.open();
  await flushed;
  assertEquals(kernel.text, "a".repeat(8) + "b".repeat(BLOCK_BYTES) + "c".repeat(8));
  assertEquals(outbox.size, 0);
});

test("Outbox cuts blocks of 64 KiB at most, between characters", async () => {
  for (const char of ["a", "ß", "€", "😀"]) {
    for (let shift = 0; shift < 4; shift++) {
      const kernel = new Kernel();
      const outbox = outboxTo(kernel);
      const text = "x".repeat(shift) + char.repeat(100_000);
      outbox.add(text);
      await outbox.flush();
      assertEquals(kernel.bytes, new TextEncoder().encode(text));
      for (const part of kernel.taken) {
        assertLessOrEqual(part.length, BLOCK_BYTES);
        assert(!new TextDecoder().decode(part).includes("\uFFFD"), "A block ends within a character");
      }
    }
  }
});

test("Outbox cuts bytes into blocks of 64 KiB", async () => {
  const kernel = new Kernel();
  const outbox = outboxTo(kernel);
  outbox.add(new Uint8Array(2 * BLOCK_BYTES + 1).fill(7));
  await outbox.flush();
  assertEquals(kernel.blocks, [BLOCK_BYTES, BLOCK_BYTES, 1]);
});

test("Outbox sends the first post of a turn at once, and the others of that turn together", async () => {
  const kernel = new Kernel();
  const outbox = outboxTo(kernel);
  for (let i = 0; i < 5; i++) outbox.post(`${i}`);
  assertEquals(kernel.calls, 1);
  while (outbox.size > 0) await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(kernel.taken.map((part) => new TextDecoder().decode(part)), ["0", "1234"]);
  outbox.writeNextAtOnce();
  outbox.post("5");
  assertEquals(kernel.calls, 3);
  await outbox.flush();
});

test("Outbox sends 64 KiB that were posted before the turn ends", async () => {
  const kernel = new Kernel();
  const outbox = outboxTo(kernel);
  outbox.post("first");
  await outbox.flush();
  outbox.post("x".repeat(BLOCK_BYTES - 1));
  assertEquals([kernel.calls, outbox.size], [1, BLOCK_BYTES - 1]);
  outbox.post("x");
  assertEquals(kernel.calls, 2);
  await outbox.flush();
  assertEquals(outbox.bytesOut, 5 + BLOCK_BYTES);
});

test("Outbox does not use up a turn's immediate write on a post during another write", async () => {
  const kernel = new Kernel();
  const outbox = outboxTo(kernel);
  outbox.post("0");
  outbox.writeNextAtOnce();
  outbox.post("1");
  // Promises alone do not end the turn of the event loop.
  for (let i = 0; i < 100; i++) await Promise.resolve();
  outbox.post("2");
  await outbox.flush();
  assertEquals(kernel.taken.map((part) => new TextDecoder().decode(part)), ["0", "12"]);
});
