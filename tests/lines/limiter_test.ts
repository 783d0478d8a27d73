import { assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import type { Limiter } from "../../internal/lines/limiter.ts";
import { expected, limiterOf, type SizeLimits } from "../kit/framing/limiter.ts";
import { test } from "../kit/bounded.ts";
import { toBytes } from "../kit/bytes.ts";
import { anyCuts, anyInput, anyLimits, check, cut } from "../kit/property.ts";
import { countWork } from "../kit/workers/work.ts";

const NO_LIMITS = { maxLineBytes: 65_536, maxConnectionBytes: Infinity };

const CORPUS = [
  "",
  "\n",
  "\r\n",
  "\r",
  "\r\r\n",
  "a",
  "a\r",
  "a\n",
  "a\r\n",
  "one\r\ntwo\n\nthree",
  "ab\rcd\n",
  "\n\r",
  "abc\r\r\n",
];

/** Gives text to a limiter, in parts of the size of its space; returns the last block. */
function feed(limiter: Limiter, text: string): string {
  let block = "";
  for (let rest = new TextEncoder().encode(text); rest.length > 0;) {
    const space = limiter.input.space(limiter.mostBytes);
    assertGreater(space.length, 0);
    const part = rest.subarray(0, space.length);
    space.set(part);
    block = new TextDecoder().decode(limiter.take(part.length));
    rest = rest.subarray(part.length);
  }
  return block;
}

test("While memory is short, a buffer is only as large as the line in it needs, up to the longest line", () => {
  for (const [held, size] of [[0, 256], [255, 256], [256, 1024], [5000, 16_384], [65_536, 65_538]]) {
    const limiter = limiterOf(NO_LIMITS);
    feed(limiter, "\n".repeat(70_000) + "x".repeat(held));
    assertEquals([limiter.input.space(limiter.mostBytes, true).length, limiter.input.extraBytes], [
      size - held,
      size - 256,
    ], `${held} bytes`);
  }
});

test("Limiter gives no buffer back that holds an unfinished line", () => {
  const limiter = limiterOf(NO_LIMITS);
  feed(limiter, `${"x".repeat(256)}\nPART`);
  assertGreater(limiter.input.extraBytes, 0);
  limiter.input.letGo();
  assertEquals(feed(limiter, "IAL\n"), "PARTIAL\n");
});

/** Gives segments to a limiter, in as many reads as its space needs; returns the blocks and the breach. */
function run(segments: Uint8Array[], limits: SizeLimits): { blocks: string[]; reason: string } {
  const limiter = limiterOf(limits);
  const blocks: string[] = [];
  const keep = (block: Uint8Array | undefined) => {
    if (block !== undefined) blocks.push(new TextDecoder("latin1").decode(block));
  };
  for (const segment of segments) {
    for (let rest = segment; rest.length > 0 && limiter.breach === undefined;) {
      const space = limiter.input.space(limiter.mostBytes);
      const part = rest.subarray(0, space.length);
      space.set(part);
      keep(limiter.take(part.length));
      rest = rest.subarray(part.length);
    }
  }
  if (limiter.breach === undefined) keep(limiter.end());
  return { blocks, reason: limiter.breach ?? "end" };
}

function outcome(segments: Uint8Array[], limits: SizeLimits): { text: string; reason: string } {
  const { blocks, reason } = run(segments, limits);
  return { text: blocks.join("").replaceAll("\r\n", "\n"), reason };
}

test("Limiter gives the same lines at every cut, byte by byte, and all at once", () => {
  for (const text of CORPUS) {
    const input = toBytes(text);
    for (const maxLineBytes of [1, 2, 3, 4, 65_536]) {
      for (const maxConnectionBytes of [1, 2, 3, 5, 8, Infinity]) {
        const limits = { maxLineBytes, maxConnectionBytes };
        const wanted = expected(input, limits);
        assertEquals(outcome([...input].map((byte) => new Uint8Array([byte])), limits), wanted);
        for (let at = 0; at <= input.length; at++) {
          assertEquals(outcome(cut(input, [at]), limits), wanted, JSON.stringify([text, at, limits]));
        }
      }
    }
  }
});

test("Limiter gives the same lines as the oracle for any bytes, cuts and limits", async () => {
  await check([anyInput, anyCuts, anyLimits], (input, cuts, limits) => {
    assertEquals(outcome(cut(input, cuts), limits), expected(input, limits));
  }, 1000);
});

test("Limiter hands out whole lines only", () => {
  const { blocks } = run([toBytes("one\ntwo\nthr"), toBytes("ee"), toBytes("\n"), toBytes("four")], NO_LIMITS);
  assertEquals(blocks, ["one\ntwo\n", "three\n", "four\n"]);
});

test("Limiter lets a line of exactly the limit pass, with LF or CRLF, in one segment or in many", () => {
  for (const maxLineBytes of [1, 255, 256, 257, 1024, 4096, 65_535, 65_536, 65_537, 200_000]) {
    const limits = { maxLineBytes, maxConnectionBytes: Infinity };
    const line = "x".repeat(maxLineBytes);
    for (const end of ["\n", "\r\n", "", "\r"]) {
      const input = toBytes(line + end);
      for (const size of [input.length, 4096, 509]) {
        const segments = cut(input, Array(Math.floor(input.length / size)).fill(size));
        assertEquals(outcome(segments, limits), { text: `${line}\n`, reason: "end" });
        const longer = [toBytes("y"), ...segments];
        assertEquals(outcome(longer, limits), { text: "", reason: "line-too-long" });
      }
    }
  }
});

test("Limiter lets exactly the connection's limit pass, and not one byte more", () => {
  const input = toBytes("one\ntwo\n");
  const at = (maxConnectionBytes: number) => outcome([input], { maxLineBytes: 10, maxConnectionBytes });
  assertEquals(at(8), { text: "one\ntwo\n", reason: "end" });
  assertEquals(at(7), { text: "one\n", reason: "byte-limit" });
  assertEquals(at(4), { text: "one\n", reason: "byte-limit" });
  assertEquals(at(3), { text: "", reason: "byte-limit" });
});

test("Limiter reports the breach that comes first in the stream, and then takes no more", () => {
  const both = { maxLineBytes: 3, maxConnectionBytes: 6 };
  assertEquals(outcome([toBytes("ok\nlonger\n")], both), { text: "ok\n", reason: "byte-limit" });
  assertEquals(outcome([toBytes("long\nok\n")], both), { text: "", reason: "line-too-long" });
  const limiter = limiterOf(both);
  limiter.input.space(limiter.mostBytes).set(toBytes("long"));
  assertEquals(limiter.take(4), undefined);
  assertEquals([limiter.breach, limiter.end()], ["line-too-long", undefined]);
  const other = limiterOf(both);
  other.input.space(other.mostBytes).set(toBytes("ok\ncut off"));
  other.take(10);
  assertEquals([other.breach, other.end()], ["byte-limit", undefined]);
});

test("Limiter does linear work for a line of 64 KiB that comes byte by byte", () => {
  using work = countWork();
  const length = 65_536;
  const { blocks } = run([...toBytes("x".repeat(length) + "\n")].map((byte) => new Uint8Array([byte])), NO_LIMITS);
  assertEquals(blocks.join("").length, length + 1);
  assertLessOrEqual(work.searched, 4 * length);
  assertLessOrEqual(work.moved, 4 * length);
});

test("Limiter does linear work for many short lines, however they are cut", () => {
  const input = toBytes("0123456789abcde\n".repeat(4096));
  for (const size of [7, 100, 16_385]) {
    using work = countWork();
    run(cut(input, Array(Math.ceil(input.length / size)).fill(size)), NO_LIMITS);
    assertLessOrEqual(work.searched, 4 * input.length);
    assertLessOrEqual(work.moved, 4 * input.length);
  }
});

test("Limiter gives a large buffer back when the peer becomes quiet", () => {
  const limiter = limiterOf(NO_LIMITS);
  const feed = (text: string) => {
    for (let rest = toBytes(text); rest.length > 0;) {
      const space = limiter.input.space(limiter.mostBytes);
      const part = rest.subarray(0, space.length);
      space.set(part);
      limiter.take(part.length);
      rest = rest.subarray(part.length);
    }
  };
  feed("x".repeat(60_000) + "\n");
  const large = limiter.input.space(limiter.mostBytes).length;
  for (let i = 0; i < 100; i++) feed("short\n");
  assertEquals([large >= 60_000, limiter.input.space(limiter.mostBytes).length], [true, 256]);
});
