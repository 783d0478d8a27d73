import { assertEquals } from "@std/assert";
import { TURN_BYTES } from "../../../../internal/time/turns.ts";
import { ReadBuffer, RecordCutter } from "../../../../ops/tls/engine/encrypted_input.ts";

const KIB = 1024;

/** The size of the buffer in KiB after each of some reads, given by the number of bytes and the time of decrypting. */
function sizes(buffer: ReadBuffer, ...reads: [count: number, ms: number][]): number[] {
  return reads.map(([count, ms]) => {
    buffer.adapt(count, ms);
    return buffer.bytes.length / KIB;
  });
}

function times<T>(count: number, value: T): T[] {
  return Array.from({ length: count }, () => value);
}

Deno.test("the buffer for encrypted input grows with reads that fill it, up to 64 KiB, and shrinks from there at once", () => {
  const buffer = new ReadBuffer();
  assertEquals([buffer.bytes.length, buffer.grownBytes], [KIB, 0]);
  assertEquals(sizes(buffer, [KIB, 0.1], [4 * KIB, 0.1], [17 * KIB, 0.1], [64 * KIB, 0.1]), [4, 17, 64, 64]);
  assertEquals(buffer.grownBytes, 63 * KIB);
  assertEquals(sizes(buffer, [64 * KIB - 1, 0.1]), [17]);
});

Deno.test("a part of the buffer for encrypted input that a read fills is work, but does not make the buffer grow", () => {
  const buffer = new ReadBuffer();
  sizes(buffer, [KIB, 0], [4 * KIB, 0], [17 * KIB, 0]);
  assertEquals([1, 9 * KIB, 99 * KIB].map((into) => buffer.part(into).length), [KIB, 9 * KIB, 64 * KIB]);
  buffer.part(63 * KIB);
  assertEquals([sizes(buffer, ...times(9, [63 * KIB, 0] as [number, number])), buffer.work], [times(9, 64), 63 * KIB]);
  buffer.rest();
  assertEquals(buffer.grownBytes, 0);
});

Deno.test("the buffer for encrypted input keeps its size while the largest records come, whole or in parts", () => {
  const buffer = new ReadBuffer();
  sizes(buffer, [KIB, 0], [4 * KIB, 0]);
  const record = 5 + 16 * KIB + 256;
  assertEquals(sizes(buffer, ...times(9, [record, 0] as [number, number])), times(9, 17));
  for (let i = 0; i < 9; i++) {
    assertEquals(sizes(buffer, [record - 300, 0], [100, 0], [100, 0], [100, 0]), times(4, 17));
  }
});

Deno.test("the buffer for encrypted input shrinks after four reads in a row that take a quarter of it or less", () => {
  const buffer = new ReadBuffer();
  sizes(buffer, [KIB, 0], [4 * KIB, 0]);
  const small: [number, number] = [17 * KIB / 4, 0];
  assertEquals(sizes(buffer, ...times(3, small)), times(3, 17));
  // A larger one begins the row anew.
  assertEquals(sizes(buffer, [17 * KIB / 4 + 1, 0]), [17]);
  assertEquals(sizes(buffer, ...times(4, small)), [17, 17, 17, 4]);
  assertEquals(sizes(buffer, ...times(4, [1, 0] as [number, number])), [4, 4, 4, 1]);
  assertEquals(sizes(buffer, ...times(9, [1, 0] as [number, number])), times(9, 1));
});

Deno.test("the buffer for encrypted input shrinks at once if what fills it takes long, and counts that as work", () => {
  const buffer = new ReadBuffer();
  assertEquals(sizes(buffer, [KIB, 0], [4 * KIB, 0]), [4, 17]);
  assertEquals(buffer.work, 4 * KIB);
  assertEquals(sizes(buffer, [17 * KIB, 2]), [4]);
  assertEquals(buffer.work, 2 * TURN_BYTES);
  assertEquals(sizes(buffer, [100, 2]), [4]);
  assertEquals(buffer.work, 0);
});

Deno.test("wherever a stream of TLS records is cut, its parts end where a record does", async () => {
  const record = (length: number) => [23, 3, 3, length >> 8, length & 255, ...Array<number>(length).fill(200)];
  const lengths = [0, 1, 300, 5];
  const stream = Uint8Array.from(lengths.flatMap(record));
  const ends = new Set<number>();
  lengths.reduce((end, length) => (ends.add(end + 5 + length), end + 5 + length), 0);
  for (let size = 1; size <= stream.length; size++) {
    const [cutter, follower] = [new RecordCutter(), new RecordCutter()];
    let at = 0;
    let whole: Promise<void> | undefined;
    for (let from = 0; from < stream.length; from += size) {
      const bytes = stream.subarray(from, from + size);
      follower.follow(bytes);
      for (const part of cutter.cut(bytes)) {
        at += part.length;
        assertEquals(ends.has(at) || at === from + bytes.length, true, `in parts of ${size}, at ${at}`);
        // What was asked for within a record settles at its end.
        if (ends.has(at)) await whole;
      }
      assertEquals(at, from + bytes.length);
      for (const { isWithin, whole } of [cutter, follower]) {
        let settled = whole === undefined;
        whole?.then(() => settled = true);
        for (let steps = 2; steps > 0; steps--) await undefined;
        assertEquals([!isWithin, settled], [ends.has(at), ends.has(at)], `in parts of ${size}, at ${at}`);
      }
      whole = cutter.whole;
    }
  }
});
