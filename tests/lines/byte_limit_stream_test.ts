import { assertEquals, assertLessOrEqual, assertRejects, assertThrows } from "@std/assert";
import { ByteLimitStream, LimitError, lineStream } from "@x/shouty";
import { test } from "../kit/bounded.ts";
import { toBytes } from "../kit/bytes.ts";
import { expected } from "../kit/framing/limiter.ts";
import { anyCuts, anyInput, anyLimits, check, cut } from "../kit/property.ts";
import { countWork } from "../kit/workers/work.ts";

test("ByteLimitStream passes whole lines on and ends the last one", async () => {
  const stream = ReadableStream.from(["o", "ne\r\ntwo\nth", "ree"].map(toBytes)).pipeThrough(new ByteLimitStream());
  const chunks = await Array.fromAsync(stream, (chunk) => new TextDecoder().decode(chunk));
  assertEquals(chunks, ["one\r\ntwo\n", "three\n"]);
});

test("ByteLimitStream agrees with the oracle for any bytes, cuts and limits", async () => {
  await check([anyInput, anyCuts, anyLimits], async (input, cuts, limits) => {
    const limiter = new ByteLimitStream({ ...limits, error: false });
    const output = ReadableStream.from(cut(input, cuts)).pipeThrough(limiter);
    const chunks = await Array.fromAsync(output, (chunk) => new TextDecoder("latin1").decode(chunk));
    const { text, reason } = expected(input, limits);
    assertEquals([chunks.join("").replaceAll("\r\n", "\n"), limiter.breach ?? "end"], [text, reason]);
  });
});

test("ByteLimitStream fails with the limit that was passed", async () => {
  for (
    const [options, reason, limit] of [
      [{ maxLineBytes: 3 }, "line-too-long", 3],
      [{ maxConnectionBytes: 5 }, "byte-limit", 5],
    ] as const
  ) {
    const stream = ReadableStream.from([toBytes("ok\n"), toBytes("longer\n")]).pipeThrough(
      new ByteLimitStream(options),
    );
    const error = await Array.fromAsync(stream).catch((error: unknown) => error) as LimitError;
    assertEquals([error instanceof LimitError, error.name, error.reason, error.limit], [
      true,
      "LimitError",
      reason,
      limit,
    ]);
  }
});

test("ByteLimitStream refuses what is not bytes, and loses none of it", async () => {
  const others = { "text": "text\n", "an object": {}, "an ArrayBuffer": new ArrayBuffer(2), "5": 5, "null": null };
  for (const [shown, chunk] of Object.entries({ ...others, "a Uint16Array": Uint16Array.of(266, 10) })) {
    const stream = ReadableStream.from([chunk as never]).pipeThrough(new ByteLimitStream());
    const message = `Cannot limit what was written: expected a Uint8Array, got ${shown}`;
    await assertRejects(() => Array.fromAsync(stream), TypeError, message);
  }
});

test("what ByteLimitStream has handed out does not change when more comes", async () => {
  const stream = ReadableStream.from(["one\n", "two\n", "six"].map(toBytes)).pipeThrough(new ByteLimitStream());
  const chunks = await Array.fromAsync(stream);
  assertEquals(chunks.map((chunk) => new TextDecoder().decode(chunk)), ["one\n", "two\n", "six\n"]);
});

test("ByteLimitStream takes nothing in behind a line that is too long", async () => {
  const chunk = new Uint8Array(400_000).fill(120);
  using work = countWork();
  const stream = ReadableStream.from([chunk]).pipeThrough(new ByteLimitStream({ maxLineBytes: 1000, error: false }));
  assertEquals(await Array.fromAsync(stream), []);
  assertLessOrEqual(work.moved, 100_000);
});

test("without a limit of their own, ByteLimitStream and lineStream take lines of up to 64 KiB", async () => {
  for (const [length, passes] of [[65_536, true], [65_537, false]] as const) {
    const bytes = () => ReadableStream.from([toBytes("x".repeat(length) + "\n")]);
    const read = [Array.fromAsync(bytes().pipeThrough(new ByteLimitStream())), Array.fromAsync(lineStream(bytes()))];
    const results = await Promise.allSettled<unknown>(read);
    assertEquals(results.map(({ status }) => status === "fulfilled"), [passes, passes]);
  }
});

test("lineStream refuses wrong options", () => {
  const bytes = ReadableStream.from([toBytes("x\n")]);
  assertThrows(() => lineStream(null as never), TypeError, "Cannot use readable: expected a ReadableStream, got null");
  assertThrows(() => lineStream(bytes, null as never), TypeError, "Cannot use lineStream options: expected an object");
  assertThrows(() => lineStream(bytes, { maxLineBytes: 0 }), RangeError, "Cannot use maxLineBytes 0");
});

test("ByteLimitStream refuses wrong limits", () => {
  const options = { error: "no" as unknown as boolean };
  assertThrows(() => new ByteLimitStream(options), TypeError, 'Cannot use error "no": expected true or false');
  assertThrows(() => new ByteLimitStream({ maxLineBytes: 0 }), RangeError, "maxLineBytes 0");
  for (const maxConnectionBytes of [0, 1.5]) {
    const message = `maxConnectionBytes ${maxConnectionBytes}`;
    assertThrows(() => new ByteLimitStream({ maxConnectionBytes }), RangeError, message);
  }
  assertThrows(() => new ByteLimitStream({ unterminated: "drop" as never }), TypeError, "Cannot use unterminated:");
  assertThrows(() => new ByteLimitStream({ maxLineBytes: "9" as unknown as number }), TypeError, `maxLineBytes "9"`);
  assertThrows(() => new ByteLimitStream(null as unknown as object), TypeError, "ByteLimitStream options");
});
