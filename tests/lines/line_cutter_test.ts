import { assertEquals, assertLessOrEqual } from "@std/assert";
import { type Framing, resolveFraming } from "../../internal/api/framing.ts";
import { InputBuffer } from "../../internal/lines/input_buffer.ts";
import { LineCutter } from "../../internal/lines/line_cutter.ts";
import { test } from "../kit/bounded.ts";
import { toBytes } from "../kit/bytes.ts";
import { countWork } from "../kit/workers/work.ts";

/** Cuts input that comes in parts of a size; returns the number of lines. */
function countLines(input: Uint8Array, size: number, framing: Partial<Framing>): number {
  const buffer = new InputBuffer(Infinity);
  const cutter = new LineCutter(buffer, resolveFraming(framing), 65_536, false, { discarded() {} });
  let lines = 0;
  for (let at = 0; at < input.length; at += size) {
    for (let rest = input.subarray(at, at + size); rest.length > 0;) {
      const space = buffer.space(cutter.mostBytes);
      const part = rest.subarray(0, space.length);
      space.set(part);
      buffer.added(part.length);
      rest = rest.subarray(part.length);
      while (cutter.next() !== undefined) lines++;
    }
  }
  return lines;
}

for (const [lineEnd, start] of [["any", "x"], ["crlf", "\r"], [{ delimiter: "aaaaaaab" }, "a"]] as const) {
  test(`a line that comes byte by byte takes linear work with the line end ${JSON.stringify(lineEnd)}`, () => {
    const length = 5000;
    const end = typeof lineEnd === "object" ? lineEnd.delimiter : lineEnd === "any" ? "\n" : "\r\n";
    const input = toBytes(start.repeat(length) + end);
    using work = countWork();
    assertEquals(countLines(input, 1, { lineEnd }), 1);
    // A search may go on up to 512 bytes behind the input.
    assertLessOrEqual(work.searched, 100 * length);
    assertLessOrEqual(work.moved, 4 * length);
  });
}

test("short lines are decoded about once, whether they are ASCII or not", () => {
  for (const line of ["a\n", "é\n", "ab€de\n", "x".repeat(400) + "é\n"]) {
    const input = toBytes(line.repeat(8000));
    using work = countWork();
    assertEquals(countLines(input, 4096, {}), 8000);
    assertLessOrEqual(work.decoded, 3 * input.length, line);
  }
});
