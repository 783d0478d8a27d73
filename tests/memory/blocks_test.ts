import { assertEquals } from "@std/assert";
import { Blocks } from "../../internal/memory/blocks.ts";
import { takeBuffer } from "../../internal/memory/buffer_pool.ts";
import { test } from "../kit/bounded.ts";

/** Sends everything that waits, in parts; returns the buffers that it was in. */
function sendAll(blocks: Blocks, partBytes: number): Set<ArrayBuffer> {
  const buffers = new Set<ArrayBuffer>();
  for (let first = blocks.first(); first !== undefined; first = blocks.first()) {
    buffers.add(first.buffer as ArrayBuffer);
    blocks.left(Math.min(partBytes, first.length));
  }
  return buffers;
}

test("Blocks hold no memory when all has left, and give their buffers back, also behind bytes that were lent", () => {
  const lent = new Uint8Array(100);
  for (const begin of [() => {}, (blocks: Blocks) => blocks.lend(lent)]) {
    const blocks = new Blocks();
    for (let round = 0; round < 3; round++) {
      begin(blocks);
      blocks.add("x".repeat(100));
      blocks.add(new Uint8Array(100_000));
      assertEquals(blocks.held >= 100_100, true);
      const buffers = sendAll(blocks, 30_000);
      buffers.delete(lent.buffer);
      assertEquals([blocks.size, blocks.held], [0, 0]);
      // The last one to come back is the first one to be taken.
      const { byteLength } = Array.from(buffers).at(-1)!;
      assertEquals(buffers.has(takeBuffer(byteLength).buffer), true);
    }
  }
});

test("Blocks never give back bytes that were lent", () => {
  const blocks = new Blocks();
  for (const end of [() => blocks.left(4096), () => blocks.clear(), () => (blocks.cut(), blocks.clear())]) {
    const lent = new Uint8Array(4096);
    blocks.lend(lent);
    blocks.first();
    end();
    assertEquals([blocks.size, blocks.held, takeBuffer(4096) === lent], [0, 0, false]);
  }
});

test("Blocks hold the memory of bytes that were lent until the last of them has left", () => {
  const blocks = new Blocks();
  blocks.lend(new Uint8Array(5000));
  blocks.add(new Uint8Array(10));
  const held = [blocks.held];
  for (const count of [2000, 3000, 10]) blocks.left(count), held.push(blocks.held);
  assertEquals(held, [70_536, 70_536, 65_536, 0]);
});
