import { assertEquals } from "@std/assert";
import { fc } from "../kit/property.ts";
import { test } from "../kit/bounded.ts";
import { toBytes } from "../kit/bytes.ts";
import { check } from "../kit/property.ts";
import { anyStep, Position, type Step } from "../kit/framing/reads.ts";
import { listenerOf } from "../kit/framing/segments.ts";
import { startConversations } from "../kit/server.ts";

/** Bytes in which every delimiter of the steps occurs, whole and begun. */
const anyInput = fc.array(
  fc.constantFrom(
    ..."a aa aab b \n \r \r\n \n\n \0 \x1c \x1c\r ß 0123456789abcdef 01234 € \xff".split(" "),
    "x".repeat(300),
  ),
  { maxLength: 40 },
).map((parts) => Uint8Array.from(parts.flatMap((part) => part === "\xff" ? [0xc3, 0xff] : [...toBytes(part)])));

const anyDelays = fc.array(fc.nat(40), { maxLength: 6 });

/** Reads an input by these steps, and then the rest of it, and compares all of it with the oracle. */
async function read(input: Uint8Array, cuts: number[], ticks: number[], steps: readonly Step[]): Promise<void> {
  const failures: unknown[] = [];
  await using t = startConversations({ listener: listenerOf(input, cuts, ticks), maxQueuedBytes: 1 }, async (conn) => {
    const position = new Position(input);
    try {
      for (const step of steps) await position.take(conn, step);
      await position.end(conn);
    } catch (error) {
      failures.push(error);
    }
  });
  await t.closed();
  for (const failure of failures) throw failure;
}

test("no byte is lost or read twice, whatever reads follow each other, however the input comes", async () => {
  const anyCuts = fc.array(fc.integer({ min: 1, max: 12 }), { maxLength: 40 });
  await check([anyInput, anyCuts, anyDelays, fc.array(anyStep, { maxLength: 16 })], read, 400);
});

const STEPS: Readonly<Record<string, { input: string; steps: readonly Step[] }>> = {
  "a command and its body": {
    input: "set a 5\r\nab\r\nc\r\nget a\r\n",
    steps: [
      { kind: "line" },
      { kind: "exactly", count: 5 },
      { kind: "until", delimiters: ["\r\n"], keepDelimiter: false, maxBytes: 9 },
      { kind: "next" },
    ],
  },
  "lines under one framing after another": {
    input: "one\r\ntwo\0three\x1c\rfouraaabfive\n\r\n",
    steps: [
      { kind: "batch" },
      { kind: "framing", lineEnd: { delimiter: "\0" } },
      { kind: "line" },
      { kind: "framing", lineEnd: { delimiter: "\x1c\r" } },
      { kind: "batch" },
      { kind: "framing", lineEnd: { delimiter: "aab" } },
      { kind: "next" },
      { kind: "framing", lineEnd: "crlf" },
      { kind: "line" },
    ],
  },
  "a body that is cancelled before a line": {
    input: "12345678line\nrest",
    steps: [
      { kind: "part of a body", count: 8, most: 1, ticks: 3 },
      { kind: "line" },
      { kind: "part of a body", count: 2, most: 0, ticks: 0 },
      { kind: "readable", reads: 1 },
    ],
  },
};

for (const [what, { input, steps }] of Object.entries(STEPS)) {
  test(`${what} are read alike wherever the input is cut`, async () => {
    const bytes = toBytes(input);
    for (const ticks of [[], [33]]) {
      for (let at = 0; at <= bytes.length; at++) await read(bytes, [at], ticks, steps);
      await read(bytes, Array(bytes.length).fill(1), ticks, steps);
    }
  });
}

test("lines that came with a batch are found by the next read, whatever it looks for", async () => {
  const found: unknown[] = [];
  await using t = startConversations({ listener: listenerOf(toBytes("one\ntwo;three"), [], []) }, async (conn) => {
    found.push((await conn.batches.next()).value);
    found.push(await conn.readUntil(";"));
  });
  await t.closed();
  assertEquals(found, [["one"], toBytes("two")]);
});
