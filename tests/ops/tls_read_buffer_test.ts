import { assertEquals } from "@std/assert";
import { ReadBuffer } from "../../ops/tls/engine/encrypted_input.ts";

const KIB = 1024;

/** The size of the buffer in KiB after each of some reads, given by the number of bytes and the time of decrypting. */
function sizes(buffer: ReadBuffer, reads: [count: number, ms: number][]): number[] {
  return reads.map(([count, ms]) => {
    buffer.adapt(count, ms);
    return buffer.bytes.length / KIB;
  });
}

function times<T>(count: number, value: T): T[] {
  return Array.from({ length: count }, () => value);
}

Deno.test("the buffer for encrypted input grows with reads that fill it, up to 64 KiB", () => {
  const buffer = new ReadBuffer();
  assertEquals([buffer.bytes.length, buffer.grownBytes], [KIB, 0]);
  const reads = [[KIB, 0.1], [4 * KIB, 0.1], [16 * KIB, 0.1], [64 * KIB, 0.1]] as [number, number][];
  assertEquals(sizes(buffer, reads), [4, 16, 64, 64]);
  assertEquals(buffer.grownBytes, 63 * KIB);
});

Deno.test("the buffer for encrypted input shrinks after 16 reads in a row that take a quarter of it or less", () => {
  const buffer = new ReadBuffer();
  sizes(buffer, [[KIB, 0], [4 * KIB, 0]]);
  const small: [number, number] = [4 * KIB, 0];
  assertEquals(sizes(buffer, times(15, small)), times(15, 16));
  // A larger one begins the row anew.
  assertEquals(sizes(buffer, [[4 * KIB + 1, 0]]), [16]);
  assertEquals(sizes(buffer, times(16, small)), [...times(15, 16), 4]);
  assertEquals(sizes(buffer, times(16, [1, 0])), [...times(15, 4), 1]);
  assertEquals(sizes(buffer, times(40, [1, 0])), times(40, 1));
});

Deno.test("the buffer for encrypted input shrinks at once if what fills it takes long, and counts that as work", () => {
  const buffer = new ReadBuffer();
  assertEquals(sizes(buffer, [[KIB, 0], [4 * KIB, 0]]), [4, 16]);
  assertEquals(buffer.work, 4 * KIB);
  assertEquals(sizes(buffer, [[16 * KIB, 2]]), [4]);
  assertEquals(buffer.work, 512 * KIB);
  assertEquals(sizes(buffer, [[100, 2]]), [4]);
  assertEquals(buffer.work, 0);
});
