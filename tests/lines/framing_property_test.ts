import { assertEquals } from "@std/assert";
import type { Conn, Framing, ServeOptions } from "@x/shouty";
import { test } from "../kit/bounded.ts";
import { toBytes } from "../kit/bytes.ts";
import { check, fc } from "../kit/property.ts";
import { delimiterOf, nextLine } from "../kit/framing/framing_oracle.ts";
import { find, type LineEnds } from "../kit/framing/reads.ts";
import { listenerOf } from "../kit/framing/segments.ts";
import { startConversations, startServer, type TestServer } from "../kit/server.ts";

type See = (line: string, conn: Conn) => void;

/** Starts a server whose handler shows each line that it gets. */
const HANDLERS: Readonly<Record<string, (options: ServeOptions, see: See) => TestServer>> = {
  "a line handler": (options, see) => startServer(options, (line, conn) => see(line, conn)),
  "an async line handler": (options, see) => startServer(options, async (line, conn) => await see(line, conn)),
  "conn.readLine": (options, see) =>
    startConversations(options, async (conn) => {
      for (let line = await conn.readLine(); line !== null; line = await conn.readLine()) see(line, conn);
    }),
  "conn.lines": (options, see) =>
    startConversations(options, async (conn) => {
      for await (const line of conn.lines) see(line, conn);
    }),
};

/** What a handler sees: a line and how it ended, or what `lastWords` is asked for. */
type Seen = readonly [line: string, lineEnd: string | undefined] | string;

/** What a handler sees of an input, the close reason, and `lastLineEnd` after that. */
interface Framed {
  readonly seen: Seen[];
  readonly reason: string;
  readonly lastLineEnd: string | undefined;
}

/** What a handler is to see of a whole input. */
function frame(input: Uint8Array, framing: Framing, maxLineBytes: number): Framed {
  const seen: Seen[] = [];
  let lastLineEnd: string | undefined;
  for (let at = 0;;) {
    const { kind, text, lineEnd, discarded, to } = nextLine(input, at, { framing, maxLineBytes }, true);
    seen.push(...Array<Seen>(discarded).fill("line-too-long"));
    lastLineEnd = lineEnd ?? lastLineEnd;
    if (kind === "line") seen.push([text, lineEnd]);
    else return { seen: kind === "end" ? seen : [...seen, kind], reason: kind, lastLineEnd };
    at = to;
  }
}

/** Sends an input to a handler, and returns what that sees. */
async function serve(
  start: (options: ServeOptions, see: See) => TestServer,
  input: Uint8Array,
  framing: Framing,
  maxLineBytes: number,
  cuts: number[],
  ticks: number[],
): Promise<Framed> {
  const seen: Seen[] = [];
  let last: Conn | undefined;
  const lastWords = (reason: string) => (seen.push(reason), null);
  const data = (conn: Conn) => void (last = conn);
  const options = { framing, maxLineBytes, lastWords, data, listener: listenerOf(input, cuts, ticks) };
  await using t = start(options, (line, conn) => void seen.push([line, conn.lastLineEnd]));
  const { reason } = await t.closed();
  return { seen, reason, lastLineEnd: last!.lastLineEnd };
}

const anyDelimiter = fc.oneof(
  fc.constantFrom("\0", "\x1c\r", "aab", "\n", "aa", "ß", ";", "\r\n\r\n"),
  fc.array(fc.constantFrom(0, 10, 13, 97, 98, 0xc3, 0x9f), { minLength: 1, maxLength: 16 })
    .map((bytes) => Uint8Array.from(bytes)),
);

const anyLineEnd: fc.Arbitrary<LineEnds> = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom<LineEnds>("any", "lf", "crlf") },
  { weight: 3, arbitrary: anyDelimiter.map((delimiter) => ({ delimiter })) },
);

const anyFraming: fc.Arbitrary<Framing> = fc.record({
  lineEnd: anyLineEnd,
  encoding: fc.constantFrom("utf-8", "latin1"),
  invalidText: fc.constantFrom("replace", "error"),
  unterminated: fc.constantFrom("line", "drop", "error"),
  onLongLine: fc.constantFrom("close", "discard", "truncate"),
});

/** A part of an input; `undefined` stands for the delimiter, and a number for as many of its bytes. */
const anyPart = fc.oneof(
  { weight: 4, arbitrary: fc.constant(undefined) },
  { weight: 2, arbitrary: fc.nat(15) },
  { weight: 3, arbitrary: fc.constantFrom("a", "b", "aab", "x".repeat(5), "x".repeat(6), "ß", "€", "😀", "\0") },
  { weight: 2, arbitrary: fc.constantFrom("\r", "\n", "\r\n", "\uFEFF", "\u2028", "y".repeat(1500), "line of text") },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 5 }) },
);

function inputOf(parts: readonly (number | string | Uint8Array | undefined)[], framing: Framing): Uint8Array {
  const delimiter = delimiterOf(framing);
  const bytesOf = (part: typeof parts[number]) =>
    typeof part === "object" || typeof part === "string" ? toBytes(part) : delimiter.subarray(0, part);
  return Uint8Array.from(parts.flatMap((part) => [...bytesOf(part)]));
}

const anyMost = fc.oneof(fc.integer({ min: 1, max: 12 }), fc.constant(65_536));
const anySizes = fc.array(fc.nat(9), { maxLength: 30 });

for (const [how, start] of Object.entries(HANDLERS)) {
  test(`${how} gets the lines that the framing describes, however the input comes`, async () => {
    const arbitraries = [fc.array(anyPart, { maxLength: 24 }), anyFraming, anyMost, anySizes, anySizes] as const;
    await check([...arbitraries], async (parts, framing, most, cuts, ticks) => {
      const input = inputOf(parts, framing);
      assertEquals(await serve(start, input, framing, most, cuts, ticks), frame(input, framing, most));
    }, 300);
  });

  test(`${how} gets the same lines at every cut and byte by byte`, async () => {
    for (const lineEnd of ["any", "lf", "crlf", { delimiter: "aab" }, { delimiter: "\x1c\r" }] as const) {
      for (const onLongLine of ["discard", "truncate"] as const) {
        const input = toBytes("aaab\r\r\n12345\r\n123456aaaabx\x1c\x1c\r€€aab\n\n12345\x1c\r12345aab12345\raa");
        const framing = { lineEnd, onLongLine, encoding: "utf-8", invalidText: "error", unterminated: "line" } as const;
        const wanted = frame(input, framing, 5);
        for (let at = 0; at <= input.length; at++) {
          assertEquals(await serve(start, input, framing, 5, [at], [1]), wanted);
        }
        assertEquals(await serve(start, input, framing, 5, Array(input.length).fill(1), []), wanted);
      }
    }
  });
}

const anyPlan = fc.array(
  fc.record({ lineEnd: anyLineEnd, encoding: fc.constantFrom<Framing["encoding"]>("utf-8", "latin1") }),
  { minLength: 1, maxLength: 8 },
);
const anyText = fc.array(
  fc.oneof(
    fc.constantFrom(..."a aa aab b \n \r\n \r \0 \x1c \x1c\r ß ; \r\n\r\n".split(" "), "x".repeat(300)).map(toBytes),
    fc.constant(Uint8Array.of(0xff)),
  ),
  { maxLength: 40 },
).map((parts) => Uint8Array.from(parts.flatMap((part) => [...part])));

for (const [how, start] of Object.entries(HANDLERS)) {
  test(`${how} may change the framing at any line, also for bytes that have come already`, async () => {
    await check([anyText, anyPlan, anySizes, anySizes], async (input, plan, cuts, ticks) => {
      const seen: string[] = [];
      const listener = listenerOf(input, cuts, ticks);
      await using t = start({ listener, framing: plan[0] }, (line, conn) => {
        seen.push(line);
        conn.setFraming(plan[seen.length % plan.length]);
      });
      await t.closed();
      const wanted: string[] = [];
      for (let rest = input; rest.length > 0;) {
        const { lineEnd, encoding } = plan[wanted.length % plan.length];
        const delimiter = delimiterOf({ lineEnd, encoding });
        const found = find(rest, delimiter);
        const line = found < 0 ? rest : rest.subarray(0, found);
        rest = rest.subarray(found < 0 ? rest.length : found + delimiter.length);
        const withCr = lineEnd === "any" && line.at(-1) === 13;
        const bytes = withCr ? line.subarray(0, -1) : line;
        wanted.push(encoding === "latin1" ? String.fromCharCode(...bytes) : new TextDecoder().decode(bytes));
      }
      assertEquals(seen, wanted);
    }, 300);
  });
}
