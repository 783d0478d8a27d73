/**
 * Reads of a conversation, in any order, and an oracle for them: an array of bytes and a position.
 *
 * @module
 */

import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { type Conn, type Framing, LimitError } from "@x/shouty";
import { delimiterOf } from "./framing_oracle.ts";
import { toBytes } from "../bytes.ts";
import { fc } from "../property.ts";
import { pass } from "./segments.ts";

/** How lines end. */
export type LineEnds = Framing["lineEnd"];

/** One read, or a change of the framing. */
export type Step =
  | { readonly kind: "line" | "next" | "batch" | "whole body by bytes" }
  | { readonly kind: "aborted line"; readonly ticks: number }
  | { readonly kind: "exactly" | "whole body"; readonly count: number }
  | { readonly kind: "part of a body"; readonly count: number; readonly most: number; readonly ticks: number }
  | {
    readonly kind: "until";
    readonly delimiters: string[];
    readonly keepDelimiter: boolean;
    readonly maxBytes: number;
  }
  | { readonly kind: "readable"; readonly reads: number }
  | { readonly kind: "cancelled readable"; readonly ticks: number }
  | { readonly kind: "framing"; readonly lineEnd: LineEnds };

const anyTicks = fc.nat(40);
const anyCount = fc.oneof({ weight: 5, arbitrary: fc.nat(12) }, { weight: 1, arbitrary: fc.nat(600) });

/** The line ends of the properties; some of the delimiters overlap themselves or others. */
export const anyLineEnd: fc.Arbitrary<LineEnds> = fc.oneof(
  fc.constantFrom<LineEnds>("any", "lf", "crlf"),
  fc.constantFrom("\0", "aab", "\x1c\r", "\n\n", "ß", "0123456789abcdef").map((delimiter) => ({ delimiter })),
);

/** One step. */
export const anyStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constantFrom("line" as const, "next" as const, "batch" as const) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("aborted line" as const), ticks: anyTicks }) },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constantFrom("exactly" as const, "whole body" as const), count: anyCount }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      ...{ kind: fc.constant("part of a body" as const), count: anyCount, most: fc.nat(4), ticks: anyTicks },
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("until" as const),
      delimiters: fc.array(fc.constantFrom("\n", "a", "\r\n", "aab", "\0", "\n\n"), { minLength: 1, maxLength: 3 }),
      keepDelimiter: fc.boolean(),
      maxBytes: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.constant(1 << 20)),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant("readable" as const), reads: fc.integer({ min: 1, max: 3 }) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("cancelled readable" as const), ticks: anyTicks }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("framing" as const), lineEnd: anyLineEnd }) },
);

/** What the reads must give: what is in an array of bytes from a position. */
export class Position {
  readonly #bytes: Uint8Array;
  #at = 0;
  #delimiter: Uint8Array = Uint8Array.of(10);
  #dropsCr = true;
  #cancelled = false;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get #rest(): Uint8Array {
    return this.#bytes.subarray(this.#at);
  }

  /** Takes a step with a connection, and checks what it gives. */
  async take(conn: Conn, step: Step): Promise<void> {
    switch (step.kind) {
      case "line":
        return assertEquals(await conn.readLine(), this.#line());
      case "next":
        return assertEquals((await conn.lines.next()).value ?? null, this.#line());
      case "batch": {
        const { value, done } = await conn.batches.next();
        assert(done || value.length > 0, "A batch has at least one line");
        for (const line of value ?? [null]) assertEquals(line, this.#line());
        return;
      }
      case "aborted line":
        return await this.#abortedLine(conn, step.ticks);
      case "exactly":
        return await this.#exactly(conn, step.count);
      case "whole body":
        return await this.#wholeBody(conn, step.count);
      case "part of a body":
        return await this.#partOfBody(conn, step);
      case "until":
        return await this.#until(conn, step);
      case "readable":
        return await this.#readable(conn, step.reads);
      case "cancelled readable":
        return await this.#cancelledReadable(conn, step.ticks);
      case "framing":
        conn.setFraming({ lineEnd: step.lineEnd });
        this.#delimiter = delimiterOf({ lineEnd: step.lineEnd, encoding: "utf-8" });
        this.#dropsCr = step.lineEnd === "any";
    }
  }

  /** Checks that the rest of the input is still there. */
  async end(conn: Conn): Promise<void> {
    await this.#exactly(conn, this.#rest.length);
    assertEquals(await conn.readLine(), null);
    assertEquals([conn.ending, await conn.readUntil("x")], ["end", null]);
  }

  #line(): string | null {
    const rest = this.#rest;
    if (rest.length === 0) return null;
    const found = find(rest, this.#delimiter);
    const end = found < 0 ? rest.length : found;
    this.#at += found < 0 ? rest.length : found + this.#delimiter.length;
    const line = rest.subarray(0, this.#dropsCr && end > 0 && rest[end - 1] === 13 ? end - 1 : end);
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(line);
  }

  async #abortedLine(conn: Conn, ticks: number): Promise<void> {
    const aborter = new AbortController();
    const reading = conn.readLine({ signal: aborter.signal }).catch((error) => error);
    await pass(ticks);
    aborter.abort("enough");
    const line = await reading;
    // An aborted read leaves what has come for the next one.
    if (line !== "enough") assertEquals(line, this.#line());
  }

  async #exactly(conn: Conn, count: number): Promise<void> {
    // Where the input ends within a cancelled body, even no bytes cannot be read behind it.
    if (count === 0 && this.#rest.length === 0) return;
    if (count > this.#rest.length) {
      await assertRejects(() => conn.readExactly(count), Deno.errors.UnexpectedEof);
    } else assertEquals(await conn.readExactly(count), this.#skip(count));
  }

  async #wholeBody(conn: Conn, count: number): Promise<void> {
    const parts: number[] = [];
    const reader = conn.readStream(count).getReader();
    let error: unknown;
    for (;;) {
      const { value, done } = await reader.read().catch((reason) => (error = reason, { value: undefined, done: true }));
      if (done) break;
      parts.push(...value!);
    }
    assertEquals(error === undefined, count <= this.#rest.length);
    if (error !== undefined) assertInstanceOf(error, Deno.errors.UnexpectedEof);
    assertEquals(Uint8Array.from(parts), this.#skip(count));
  }

  async #partOfBody(conn: Conn, step: Step & { kind: "part of a body" }): Promise<void> {
    const wanted = this.#skip(step.count);
    const reader = conn.readStream(step.count).getReader();
    const parts: number[] = [];
    for (let reads = 0; reads < step.most; reads++) {
      const { value, done } = await reader.read().catch(() => ({ value: undefined, done: true }));
      if (done) break;
      parts.push(...value!);
    }
    const last = reader.read().catch(() => ({ value: undefined }));
    await pass(step.ticks);
    await reader.cancel().catch(() => {});
    parts.push(...(await last).value ?? []);
    assertEquals(Uint8Array.from(parts), wanted.slice(0, parts.length));
  }

  async #until(conn: Conn, { delimiters, keepDelimiter, maxBytes }: Step & { kind: "until" }): Promise<void> {
    const all = delimiters.map(toBytes);
    const longest = Math.max(...all.map(({ length }) => length));
    const found = all.map((bytes) => ({ at: find(this.#rest, bytes), length: bytes.length })).filter(({ at }) =>
      at >= 0
    );
    const [first] = found.toSorted((a, b) => a.at + a.length - b.at - b.length || a.at - b.at);
    const read = () => conn.readUntil(delimiters.length > 1 ? delimiters : all[0], { keepDelimiter, maxBytes });
    if ((first?.at ?? this.#rest.length - longest + 1) > maxBytes) {
      await assertRejects(read, LimitError);
    } else if (first === undefined) {
      if (this.#rest.length > 0) await assertRejects(read, Deno.errors.UnexpectedEof);
      else assertEquals(await read(), null);
    } else {
      const data = this.#skip(first.at);
      const end = this.#skip(first.length);
      assertEquals(await read(), keepDelimiter ? Uint8Array.of(...data, ...end) : data);
    }
  }

  async #readable(conn: Conn, reads: number): Promise<void> {
    if (this.#cancelled) return;
    const reader = conn.readable.getReader();
    for (; reads > 0 && this.#rest.length > 0; reads--) {
      const { value } = await reader.read();
      assertEquals(value, this.#skip(value!.length));
    }
    reader.releaseLock();
  }

  async #cancelledReadable(conn: Conn, ticks: number): Promise<void> {
    if (this.#cancelled) return;
    this.#cancelled = true;
    const reader = conn.readable.getReader();
    const last = reader.read();
    await pass(ticks);
    await reader.cancel();
    reader.releaseLock();
    const { value = new Uint8Array() } = await last;
    assertEquals(value, this.#skip(value.length));
  }

  #skip(count: number): Uint8Array<ArrayBuffer> {
    const bytes = this.#rest.slice(0, count);
    this.#at += bytes.length;
    return bytes;
  }
}

/** Finds bytes in others, the slow way; -1 if there are none. */
export function find(bytes: Uint8Array, wanted: Uint8Array): number {
  for (let at = 0; at + wanted.length <= bytes.length; at++) {
    if (wanted.every((byte, i) => bytes[at + i] === byte)) return at;
  }
  return -1;
}
