import { assertEquals } from "@std/assert";
import { countLineFeeds, upperCase } from "../../internal/lines/ascii.ts";
import { test } from "../kit/bounded.ts";
import { check, fc } from "../kit/property.ts";

const LF = 10;

/** Bytes, mostly text, with those that upperCase() handles and their neighbours, at any offset in a larger array. */
const anyBytes = fc.tuple(
  fc.array(
    fc.oneof(
      { weight: 6, arbitrary: fc.integer({ min: 0x20, max: 0x7e }) },
      { weight: 2, arbitrary: fc.constantFrom(9, LF, 11, 0x60, 0x61, 0x7a, 0x7b, 0, 1, 0x7f) },
    ),
    { maxLength: 40 },
  ),
  fc.nat(7),
).map(([bytes, start]) => new Uint8Array([...Array(start).fill(0x61), ...bytes]).subarray(start));

/** The same bytes, with a few of them replaced by a CR or by a byte that is not ASCII. */
const anyOthers = fc.array(fc.tuple(fc.nat(39), fc.constantFrom(13, 0x80, 0x8d, 0xe1, 0xfa, 0xff)), { maxLength: 3 });

function upper(byte: number): number {
  return byte >= 0x61 && byte <= 0x7a ? byte - 0x20 : byte;
}

test("upperCase() changes ASCII letters only, at any offset, and reports CRs and non-ASCII bytes", async () => {
  await check([anyBytes, anyOthers], (bytes, others) => {
    for (const [at, byte] of others) if (at < bytes.length) bytes[at] = byte;
    const around = new Uint8Array(bytes.buffer).slice(0, bytes.byteOffset);
    const expected = bytes.map(upper);
    assertEquals(upperCase(bytes), expected.every((byte) => byte < 0x80 && byte !== 13));
    assertEquals(bytes, expected);
    assertEquals(new Uint8Array(bytes.buffer).slice(0, bytes.byteOffset), around);
  }, 3000);
});

test("upperCase() is right for each byte at each place of a word, and behind the last word", () => {
  for (let byte = 0; byte < 0x100; byte++) {
    for (const at of [0, 1, 2, 3, 25, 26]) {
      const bytes = new Uint8Array(27).fill(0x7a);
      bytes[at] = byte;
      assertEquals(upperCase(bytes), byte < 0x80 && byte !== 13, `${byte} at ${at}`);
      assertEquals([...bytes], Array.from(bytes, (_, i) => i === at ? upper(byte) : 0x5a), `${byte} at ${at}`);
    }
  }
});

test("countLineFeeds() counts LFs only, at any offset, in any number", async () => {
  await check([anyBytes, anyOthers], (bytes, others) => {
    for (const [at, byte] of others) if (at < bytes.length) bytes[at] = byte;
    assertEquals(countLineFeeds(bytes), bytes.filter((byte) => byte === LF).length);
  }, 3000);
  for (const count of [4 * 255, 4 * 255 + 1, 4 * 256, 9999]) {
    assertEquals(countLineFeeds(new Uint8Array(count).fill(LF)), count);
  }
});
