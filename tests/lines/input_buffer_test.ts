import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { firstToEnd, InputBuffer } from "../../internal/lines/input_buffer.ts";
import { test } from "../kit/bounded.ts";
import { toBytes } from "../kit/bytes.ts";

/** Bytes that count how many of them are looked at. */
class CountedBytes extends Uint8Array<ArrayBuffer> {
  static looked = 0;

  override indexOf(wanted: number, from = 0): number {
    const at = super.indexOf(wanted, from);
    CountedBytes.looked += (at < 0 ? this.length : at + 1) - from;
    return at;
  }
}

test("firstToEnd looks for a sequence that is rare hardly further than where another one ends", () => {
  const bytes = CountedBytes.from(toBytes("x\n".repeat(32_768))) as CountedBytes;
  for (const wanted of [["\0", "\n"], ["\n", "\0"], ["\0", "\x01", "\n"]]) {
    CountedBytes.looked = 0;
    assertEquals(firstToEnd(bytes, wanted.map(toBytes), 0, bytes.length), { at: 1, length: 1 });
    assertLess(CountedBytes.looked, 5000);
  }
});

test("firstToEnd finds the first of several sequences to end, wherever that is", () => {
  const long = "b" + "c".repeat(1023);
  for (const at of [0, 1, 1020, 1022, 1023, 1024, 4095, 4096, 5119, 5120, 50_000]) {
    const text = "x".repeat(at) + long + "ab\n";
    for (const wanted of [["\n", "ab\n", "b\n"], ["ab\n", "\n"], ["\0", "cab\n", "\n", "\n\n"]]) {
      const longest = wanted.filter((one) => text.endsWith(one)).toSorted((a, b) => b.length - a.length)[0];
      const expected = { at: text.length - longest.length, length: longest.length };
      assertEquals(firstToEnd(toBytes(text), wanted.map(toBytes), 0, text.length), expected);
      assertEquals(firstToEnd(toBytes(text), wanted.map(toBytes), 0, text.length - 1), undefined);
    }
    assertEquals(firstToEnd(toBytes(text), ["\n", long].map(toBytes), 0, text.length), { at, length: 1024 });
  }
});

/** Adds bytes as reads of the largest size do. */
function fill(buffer: InputBuffer, bytes: Uint8Array): void {
  for (let rest = bytes; rest.length > 0;) {
    const space = buffer.space(65_536);
    const part = rest.subarray(0, space.length);
    space.set(part);
    buffer.added(part.length);
    rest = rest.subarray(part.length);
  }
}

test("a large buffer is kept while bytes beyond the maximum are in it, and let go once they are handed out", () => {
  const buffer = new InputBuffer(10);
  fill(buffer, new Uint8Array(1000).fill(7));
  buffer.skip(buffer.size);
  buffer.letGo();
  assertGreater(buffer.extraBytes, 0);
  buffer.maxTotal = 1000;
  assertEquals(buffer.take(buffer.size), new Uint8Array(990).fill(7));
  buffer.letGo();
  assertEquals([buffer.extraBytes, buffer.space(65_536).length], [0, 256]);
});

test("a maximum that is less than what was handed out leaves no input", () => {
  const buffer = new InputBuffer(Infinity);
  fill(buffer, new Uint8Array(20));
  buffer.skip(10);
  buffer.maxTotal = 5;
  assertEquals([buffer.size, buffer.overLimit], [0, true]);
});
