/**
 * Scripts: reads of every kind, in any order, and a handler that does what a script says.
 *
 * @module
 */

import type { CloseReason, Conn, ConnHandler, ConnOptions, LineEnd, ReadBytesOptions, ReadOptions } from "@x/shouty";
import { ConnectionClosedError, LimitError } from "@x/shouty";
import { bytesOf } from "../../../tests/kit/bytes.ts";
import { anyFraming, DELIMITERS, fc, framingOf, type PlainFraming } from "../../../tests/kit/property.ts";
import { type Acts, anyTlsStep, beginTls, type Recording, type TlsStep } from "./upgrade.ts";
import type { Flushes } from "./flushes.ts";
import type { WatchedTransport } from "./watched.ts";
import { hasClosed, wordOf } from "./words.ts";

/** How long a read waits: for a time, or until its signal aborts after a number of microtasks. */
export interface Patience {
  timeout?: number;
  microtasks?: number;
}

/** The limits that a script changes. */
export type ScriptLimits = Pick<
  ConnOptions,
  "maxLineBytes" | "idleTimeout" | "lineTimeout" | "minBytesPerSecond" | "maxLinesPerSecond" | "maxBytesPerSecond"
>;

/** What every read of bytes may have. */
interface BytesRead {
  maxBytes?: number | undefined;
  boundary?: boolean | undefined;
  patience?: Patience | undefined;
}

/** Reads up to a delimiter, or up to the first of two. */
export type UntilStep =
  & { do: "until"; delimiter: string; other?: string | undefined; keepDelimiter?: boolean | undefined }
  & BytesRead;

/** How a stream is cancelled: a number of microtasks after one more read has begun, or without another read. */
export interface Cancel {
  microtasks: number | null;
}

/** What one step of a script does. */
export type ScriptStep =
  | { do: "line"; patience?: Patience | undefined }
  | { do: "lines"; count: number }
  | { do: "batch" }
  | { do: "exactly"; count: number } & BytesRead
  | UntilStep
  | { do: "stream"; count: number; blocks: number; cancel?: Cancel | undefined }
  | { do: "readable"; blocks: number; cancel?: Cancel | undefined }
  | { do: "framing"; framing: Partial<PlainFraming> }
  | { do: "limits"; limits: ScriptLimits }
  | { do: "wait" }
  | { do: "flush"; isAwaited: boolean }
  | TlsStep;

/** What a handler does; it begins anew at the end of its steps. */
export interface Script {
  steps: ScriptStep[];
  /** Whether the handler throws what a read throws. */
  strict: boolean;
}

/** What a handler is given to follow a script on one connection. */
export interface Log {
  /** Where it notes what the steps have got. */
  entries: Entry[];
  /** The transport of the connection. */
  wire: WatchedTransport;
  flushes: Flushes;
}

/** What one step has got. */
export interface Entry {
  readonly step: ScriptStep;
  lines: string[];
  /** Bytes, one per character. */
  bytes: string;
  /** How the step ended, if not with all that it wanted. */
  end:
    | "null"
    | "done"
    | "cancelled"
    | "UnexpectedEof"
    | "LimitError"
    | "TimedOut"
    | "Aborted"
    | "Closed"
    | "Refused"
    | undefined;
  lineEnd: LineEnd | undefined;
  ending: CloseReason | undefined;
  /** The handshake that a step has begun. */
  recording?: Recording;
}

const anyPatience: fc.Arbitrary<Patience | undefined> = fc.oneof(
  { weight: 3, arbitrary: fc.constant(undefined) },
  { weight: 1, arbitrary: fc.constantFrom(1, 50, 2000, Infinity).map((timeout) => ({ timeout })) },
  { weight: 1, arbitrary: fc.nat(12).map((microtasks) => ({ microtasks })) },
);

const anyCount = fc.oneof(fc.nat(6), fc.nat(6), fc.constantFrom(255, 300, 5000));
const anyBytesRead = {
  maxBytes: fc.constantFrom(undefined, undefined, 1, 3, 300),
  boundary: fc.constantFrom(undefined, undefined, true),
  patience: anyPatience,
};
const anyCancel = fc.option(fc.record({ microtasks: fc.oneof(fc.constant(null), fc.nat(12)) }), { nil: undefined });

const anyDelimiter = fc.constantFrom<string>(...DELIMITERS, "\n", "\r\n", "a", "aaab");

const anyStep: fc.Arbitrary<ScriptStep> = fc.oneof(
  fc.record({ do: fc.constant("line" as const), patience: anyPatience }),
  fc.record({ do: fc.constant("lines" as const), count: fc.integer({ min: 1, max: 3 }) }),
  fc.constant({ do: "batch" as const }),
  fc.record({ do: fc.constant("exactly" as const), count: anyCount, ...anyBytesRead }),
  fc.record({
    do: fc.constant("until" as const),
    delimiter: anyDelimiter,
    other: fc.option(anyDelimiter, { nil: undefined }),
    keepDelimiter: fc.constantFrom(undefined, true),
    ...anyBytesRead,
  }),
  fc.record({
    do: fc.constant("stream" as const),
    count: anyCount,
    blocks: fc.nat(2),
    cancel: anyCancel,
  }),
  fc.record({
    do: fc.constant("readable" as const),
    blocks: fc.nat(3),
    cancel: anyCancel,
  }),
  fc.record({ do: fc.constant("framing" as const), framing: fc.oneof(anyFraming, fc.constant({})) }),
  fc.record({
    do: fc.constant("limits" as const),
    limits: fc.oneof(
      fc.record({ maxLineBytes: fc.constantFrom(1, 4, 12, 255, 300, 70_000) }),
      fc.record({ idleTimeout: fc.constantFrom(1, 500), lineTimeout: fc.constantFrom(1, 500) }),
      fc.record({ maxLinesPerSecond: fc.constantFrom(1, 20) }),
      fc.record({ minBytesPerSecond: fc.constantFrom(0, 100_000), maxBytesPerSecond: fc.constantFrom(100, 5000) }),
    ),
  }),
  fc.constant({ do: "wait" as const }),
  fc.record({ do: fc.constant("flush" as const), isAwaited: fc.boolean() }),
);

const isStrict = fc.constantFrom(false, false, false, true);

/** Any script that begins no TLS. */
export const anyScript: fc.Arbitrary<Script> = fc.record({
  steps: fc.array(anyStep, { minLength: 1, maxLength: 6 }),
  strict: isStrict,
});

const reading = fc.oneof(fc.constant({ do: "line" as const }), anyStep);

/** Any script that begins TLS; mostly behind a line, as protocols do. */
export const anyUpgradingScript: fc.Arbitrary<Script> = fc.record({
  steps: fc.tuple(
    fc.array(reading, { maxLength: 2 }),
    anyTlsStep,
    fc.array(fc.oneof({ weight: 6, arbitrary: reading }, { weight: 1, arbitrary: anyTlsStep }), { maxLength: 3 }),
  ).map(([first, tls, rest]) => [...first, tls, ...rest]),
  strict: isStrict,
});

/** Maximum number of steps of one connection. */
const MAX_STEPS = 60;

/** The errors that a read may throw. */
const ERRORS = [Deno.errors.UnexpectedEof, LimitError, Deno.errors.TimedOut] as const;

/** What the signal of a read aborts with. */
const ABORTED = new Error("Aborted by the script");

/**
 * Makes a handler that does what a script says, and tells its peer of each step.
 *
 * @param script The script.
 * @param framing The framing of new connections.
 * @param log Returns where a connection is noted.
 * @param tick Waits until the clock moves.
 */
export function following(
  script: Script,
  framing: Partial<PlainFraming>,
  log: (conn: Conn) => Log,
  tick: () => Promise<void>,
): ConnHandler {
  return async (conn) => {
    const { entries, wire, flushes } = log(conn);
    let written = 0;
    const flush = () => flushes.flush(conn, written);
    let { onLongLine = "close" } = framing;
    for (let i = 0; i < MAX_STEPS; i++) {
      const step = script.steps[i % script.steps.length];
      let error = await follow(step);
      // What has come of a line that is too long is gone, so only a read of lines can go on from there.
      if (error !== undefined && !script.strict && step.do === "line" && onLongLine !== "close") {
        error = await follow({ do: "line" });
      }
      if (error !== undefined && script.strict) throw error;
      const last = entries.at(-1)!;
      if (last.end === "null" || hasClosed(last) && (script.strict || last.end === "Refused")) return;
      if (step.do === "framing") onLongLine = step.framing.onLongLine ?? onLongLine;
    }

    async function follow(step: ScriptStep): Promise<unknown> {
      const entry: Entry = { step, lines: [], bytes: "", end: undefined, lineEnd: undefined, ending: undefined };
      const write = (word: string) => {
        // Later, writes are refused.
        if (/open|ending/.test(conn.stats().phase)) written += word.length;
        return conn.write(word);
      };
      const acts = { write: (name: string) => void write(`<${entries.length} ${name}>\n`), flush, tick };
      const act = () => step.do === "tls" ? upgrade(conn, wire, step, entry, acts) : perform(conn, step, entry, acts);
      const error = await act().then(() => undefined, (error) => error);
      if (error !== undefined) entry.end = endOf(error);
      entry.lineEnd = conn.lastLineEnd;
      entry.ending = conn.ending;
      const word = wordOf(entries.push(entry) - 1, entry);
      if (!hasClosed(entry)) await write(word);
      return error;
    }
  };
}

/** Tells how a step has ended whose call has thrown; throws what no call may throw. */
function endOf(error: unknown): Entry["end"] {
  if (error === ABORTED) return "Aborted";
  const type = ERRORS.find((type) => error instanceof type);
  if (type === undefined) throw error;
  return type.name as Entry["end"];
}

/** Begins TLS. What a refused call throws does not count: the handler goes on. */
async function upgrade(
  conn: Conn,
  wire: WatchedTransport,
  step: TlsStep,
  entry: Entry,
  acts: Acts,
): Promise<void> {
  const { recording, error } = await beginTls(conn, wire, step, acts);
  if (recording.plain !== undefined) entry.recording = recording;
  if (error instanceof ConnectionClosedError) entry.end = "Closed";
  else if (error instanceof TypeError) entry.end = "Refused";
  else if (error !== undefined) throw error;
}

async function perform(conn: Conn, step: ScriptStep, entry: Entry, { flush, tick }: Acts): Promise<void> {
  switch (step.do) {
    case "line":
      return takeLine(entry, await conn.readLine(optionsOf(step.patience)));
    case "lines":
      for await (const line of conn.lines) {
        if (entry.lines.push(line) === step.count) return;
      }
      return takeLine(entry, null);
    case "batch": {
      const { value } = await conn.batches.next();
      return value === undefined ? takeLine(entry, null) : void entry.lines.push(...value);
    }
    case "exactly":
      return takeBytes(entry, await conn.readExactly(step.count, bytesOptionsOf(step)));
    case "until":
      return takeBytes(
        entry,
        await conn.readUntil(delimitersOf(step).map(bytesOf), {
          ...bytesOptionsOf(step),
          keepDelimiter: step.keepDelimiter,
        }),
      );
    case "stream":
      return await pull(conn.readStream(step.count), step.cancel ? step.blocks : Infinity, step.cancel, entry);
    case "readable":
      return await pull(conn.readable, step.blocks, step.cancel, entry);
    case "framing":
      return conn.setFraming(framingOf(step.framing));
    case "limits":
      return conn.setLimits(step.limits);
    case "wait":
      return await tick();
    case "flush": {
      const flushed = flush();
      return step.isAwaited ? void await flushed : undefined;
    }
    case "tls":
      throw new Error("TLS begins elsewhere");
  }
}

function optionsOf({ timeout, microtasks }: Patience = {}): ReadOptions | undefined {
  if (microtasks === undefined) return timeout === undefined ? undefined : { timeout };
  const aborter = new AbortController();
  pass(microtasks).then(() => aborter.abort(ABORTED));
  return { signal: aborter.signal };
}

/** The delimiters of a step, one character per byte. */
export function delimitersOf({ delimiter, other }: UntilStep): string[] {
  return other === undefined ? [delimiter] : [delimiter, other];
}

function bytesOptionsOf({ maxBytes, boundary, patience }: BytesRead): ReadBytesOptions {
  return { ...optionsOf(patience), maxBytes, boundary };
}

function takeLine(entry: Entry, line: string | null): void {
  if (line === null) entry.end = "null";
  else entry.lines.push(line);
}

function takeBytes(entry: Entry, bytes: Uint8Array | null): void {
  if (bytes === null) entry.end = "null";
  else for (const byte of bytes) entry.bytes += String.fromCharCode(byte);
}

/** Reads blocks of a stream, and then cancels it during a further read, if it is to be cancelled. */
async function pull(
  stream: ReadableStream<Uint8Array>,
  blocks: number,
  cancel: Cancel | undefined,
  entry: Entry,
): Promise<void> {
  const reader = stream.getReader();
  try {
    for (let i = 0; i < blocks; i++) {
      const { value, done } = await reader.read();
      if (done && entry.step.do === "readable") entry.end = "done";
      if (done) return;
      takeBytes(entry, value);
    }
    if (cancel === undefined) return;
    const last = cancel.microtasks === null ? undefined : reader.read();
    last?.catch(() => {});
    await pass(cancel.microtasks ?? 0);
    await reader.cancel();
    const value = (await last)?.value;
    if (value !== undefined) takeBytes(entry, value);
    entry.end = "cancelled";
  } finally {
    reader.releaseLock();
  }
}

async function pass(microtasks: number): Promise<void> {
  for (let i = 0; i < microtasks; i++) await undefined;
}
