/**
 * A handler that does what a script says.
 *
 * @module
 */

import type { Conn, ConnHandler, ReadBytesOptions, ReadOptions } from "@x/shouty";
import { ConnectionClosedError, LimitError } from "@x/shouty";
import { bytesOf } from "../../../tests/kit/bytes.ts";
import { framingOf, type PlainFraming } from "../../../tests/kit/property.ts";
import type { Flushes } from "./flushes.ts";
import {
  type BytesRead,
  type Cancel,
  delimitersOf,
  type Entry,
  type Patience,
  type Script,
  type ScriptStep,
} from "./script.ts";
import { type Acts, beginTls, type TlsStep } from "./upgrade.ts";
import type { WatchedTransport } from "./watched.ts";
import { hasClosed, wordOf } from "./words.ts";

/** What a handler is given to follow a script on one connection. */
export interface Log {
  /** Where it notes what the steps have got. */
  entries: Entry[];
  /** The transport of the connection. */
  wire: WatchedTransport;
  flushes: Flushes;
}

/** What the steps of a script have besides the connection. */
interface Doings extends Acts {
  readonly wire: WatchedTransport;
}

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
  return (conn) => new Follower(conn, log(conn), tick).run(script, framing.onLongLine);
}

/** Follows a script on one connection. */
class Follower {
  readonly #conn: Conn;
  readonly #log: Log;
  readonly #tick: () => Promise<void>;
  /** Number of bytes that the connection has taken to write. */
  #written = 0;

  constructor(conn: Conn, log: Log, tick: () => Promise<void>) {
    this.#conn = conn;
    this.#log = log;
    this.#tick = tick;
  }

  async run({ steps, strict }: Script, onLongLine: PlainFraming["onLongLine"] = "close"): Promise<void> {
    for (let i = 0; i < MAX_STEPS; i++) {
      const step = steps[i % steps.length];
      let error = await this.#follow(step);
      // What has come of a line that is too long is gone, so only a read of lines can go on from there.
      if (error !== undefined && !strict && step.do === "line" && onLongLine !== "close") {
        error = await this.#follow({ do: "line" });
      }
      if (error !== undefined && strict) throw error;
      const last = this.#log.entries.at(-1)!;
      if (last.end === "null" || hasClosed(last) && (strict || last.end === "Refused")) return;
      if (step.do === "framing") onLongLine = step.framing.onLongLine ?? onLongLine;
    }
  }

  /** Does one step, and tells the peer; returns what its call has thrown. */
  async #follow(step: ScriptStep): Promise<unknown> {
    const [conn, { entries }] = [this.#conn, this.#log];
    const entry: Entry = { step, lines: [], bytes: "", end: undefined, lineEnd: undefined, ending: undefined };
    const error = await this.#act(step, entry).then(() => undefined, (error) => error);
    if (error !== undefined) entry.end = endOf(error);
    entry.lineEnd = conn.lastLineEnd;
    entry.ending = conn.ending;
    const word = wordOf(entries.push(entry) - 1, entry);
    if (!hasClosed(entry)) await this.#write(word);
    return error;
  }

  #act(step: ScriptStep, entry: Entry): Promise<void> {
    const [conn, { entries, wire, flushes }] = [this.#conn, this.#log];
    const acts: Doings = {
      write: (name) => void this.#write(`<${entries.length} ${name}>\n`),
      flush: () => flushes.flush(conn, this.#written),
      tick: this.#tick,
      wire,
    };
    const perform = PERFORMERS[step.do] as Performer<ScriptStep["do"]>;
    return perform(conn, step, entry, acts);
  }

  #write(word: string): Promise<void> {
    // Later, writes are refused.
    if (/open|ending/.test(this.#conn.stats().phase)) this.#written += word.length;
    return this.#conn.write(word);
  }
}

/** Tells how a step has ended whose call has thrown; throws what no call may throw. */
function endOf(error: unknown): Entry["end"] {
  if (error === ABORTED) return "Aborted";
  const type = ERRORS.find((type) => error instanceof type);
  if (type === undefined) throw error;
  return type.name as Entry["end"];
}

/** Begins TLS. What a refused call throws does not count: the handler goes on. */
async function upgrade(conn: Conn, step: TlsStep, entry: Entry, acts: Doings): Promise<void> {
  const { recording, error } = await beginTls(conn, acts.wire, step, acts);
  if (recording.plain !== undefined) entry.recording = recording;
  if (error instanceof ConnectionClosedError) entry.end = "Closed";
  else if (error instanceof TypeError) entry.end = "Refused";
  else if (error !== undefined) throw error;
}

/** What a step of a kind does. */
type Performer<Do> = (conn: Conn, step: Extract<ScriptStep, { do: Do }>, entry: Entry, acts: Doings) => Promise<void>;

/** What each step does. */
const PERFORMERS: { readonly [Do in ScriptStep["do"]]: Performer<Do> } = {
  line: async (conn, { boundary, patience }, entry) => {
    const options = optionsOf(patience);
    takeLine(entry, await conn.readLine(boundary === undefined ? options : { ...options, boundary }));
  },
  lines: async (conn, { count }, entry) => {
    for await (const line of conn.lines) {
      if (entry.lines.push(line) === count) return;
    }
    takeLine(entry, null);
  },
  batch: async (conn, _step, entry) => {
    const { value } = await conn.batches.next();
    if (value === undefined) takeLine(entry, null);
    else entry.lines.push(...value);
  },
  exactly: async (conn, step, entry) => takeBytes(entry, await conn.readExactly(step.count, bytesOptionsOf(step))),
  until: async (conn, step, entry) => {
    const options = { ...bytesOptionsOf(step), keepDelimiter: step.keepDelimiter };
    takeBytes(entry, await conn.readUntil(delimitersOf(step).map(bytesOf), options));
  },
  stream: async (conn, { count, blocks, cancel }, entry) =>
    await pull(conn.readStream(count), cancel ? blocks : Infinity, cancel, entry),
  readable: async (conn, { blocks, cancel }, entry) => await pull(conn.readable, blocks, cancel, entry),
  framing: (conn, { framing }) => Promise.try(() => conn.setFraming(framingOf(framing))),
  limits: (conn, { limits }) => Promise.try(() => conn.setLimits(limits)),
  wait: async (_conn, _step, _entry, { tick }) => await tick(),
  flush: async (_conn, { isAwaited }, _entry, { flush }) => {
    const flushed = flush();
    if (isAwaited) await flushed;
  },
  tls: upgrade,
};

function optionsOf({ timeout, microtasks }: Patience = {}): ReadOptions | undefined {
  if (microtasks === undefined) return timeout === undefined ? undefined : { timeout };
  const aborter = new AbortController();
  pass(microtasks).then(() => aborter.abort(ABORTED));
  return { signal: aborter.signal };
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
