/**
 * Queues log lines for stderr, which may be slow, stuck or closed.
 *
 * @module
 */

import { BaseHandler, type FormatterFunction } from "@std/log/base-handler";
import { type LevelName, LogLevels } from "@std/log/levels";
import { LogRecord } from "@std/log/logger";
import { count } from "../../internal/api/errors.ts";
import { countLineFeeds, LF } from "../../internal/lines/ascii.ts";

/** What the log is written to. */
export interface Sink {
  write(bytes: Uint8Array): Promise<number>;
}

/** Number of queued bytes from which they are written at once. */
const CHUNK = 64 * 1024;

/** Number of queued bytes, including those being written, beyond which further lines are dropped. */
const MOST_WAITING = 1024 * 1024;

/**
 * Number of characters from which queued text is encoded as bytes. As text, each line consists of many small strings,
 * which take ten times the memory and, with a slow reader, lengthen the garbage collector's pauses.
 */
const ENCODE_LENGTH = 4 * 1024;

const ENCODER = new TextEncoder();
const LINE_END = Uint8Array.of(LF);

/** Maximum time in milliseconds that a line waits for others, to be written in the same system call. */
const FLUSH_MS = 100;

/** Time in milliseconds after which a full pipe is tried again. */
const RETRY_MS = 100;

/**
 * Queues lines and writes many at a time. A caller that logs never waits.
 *
 * If the reader of stderr is slow or stuck, lines beyond {@linkcode MOST_WAITING} are dropped, and their number is logged
 * later. If writing fails, as on a closed pipe or a full disk, the lines count as dropped too, and the server goes on.
 */
export class BufferedHandler extends BaseHandler {
  readonly #sink: Sink;
  /** The queue: encoded lines, then text. */
  readonly #encoded: Uint8Array[] = [];
  #text = "";
  /** Number of queued bytes, approximately: a character counts as one. */
  #waiting = 0;
  /** Number of bytes that are being written. */
  #leaving = 0;
  #dropped = 0;
  /** Whether a write that failed has written a part of a line. */
  #torn = false;
  #writing: Promise<void> | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Whether the queue is to be written as soon as the present write is done. */
  #due = false;

  constructor(levelName: LevelName, formatter: FormatterFunction, sink: Sink) {
    super(levelName, { formatter });
    this.#sink = sink;
  }

  override log(line: string): void {
    if (this.#waiting + this.#leaving > MOST_WAITING) {
      this.#dropped++;
      return;
    }
    this.#text += `${line}\n`;
    this.#waiting += line.length + 1;
    if (this.#text.length >= ENCODE_LENGTH) this.#encode();
    if (this.#waiting >= CHUNK) this.#write();
    else this.#timer ??= setTimeout(() => this.#write(), FLUSH_MS);
  }

  /** Writes the queue now, or after the write under way. */
  #write(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#due = this.#waiting > 0;
    if (this.#due) this.#writing ??= this.#writeChunk();
  }

  /** Writes the whole queue, however long that takes; never rejects. */
  async flush(): Promise<void> {
    while (this.#waiting > 0 || this.#writing !== undefined) {
      this.#write();
      await this.#writing;
    }
  }

  #encode(): void {
    this.#encoded.push(ENCODER.encode(this.#text));
    this.#text = "";
  }

  async #writeChunk(): Promise<void> {
    this.#encode();
    // The torn line is ended first, so that the next line is not a part of it.
    const torn = this.#torn ? [LINE_END] : [];
    const bytes = concat([...torn, ...this.#encoded.splice(0)]);
    this.#waiting = 0;
    this.#due = false;
    this.#leaving = bytes.length;
    const sent = await this.#send(bytes);
    this.#leaving = 0;
    this.#writing = undefined;
    if (sent > 0) this.#torn = bytes[sent - 1] !== LF;
    if (sent === bytes.length) this.#tellDropped();
    else this.#dropped += countLineFeeds(bytes.subarray(Math.max(sent, torn.length)));
    if (this.#due) this.#write();
  }

  /** Writes bytes; returns how many were written, which is fewer than all if writing has failed. */
  async #send(bytes: Uint8Array): Promise<number> {
    let sent = 0;
    while (sent < bytes.length) {
      try {
        sent += await this.#sink.write(bytes.subarray(sent));
      } catch (error) {
        if (!(error instanceof Deno.errors.WouldBlock)) break;
        // Another process that shares the pipe has made it non-blocking, and it is full.
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
    return sent;
  }

  #tellDropped(): void {
    if (this.#dropped === 0) return;
    const lines = this.#dropped;
    const msg = `dropped ${count(lines, "log line")}`;
    const args = ["dropped", () => ({ lines })];
    this.#dropped = 0;
    this.log(this.format(new LogRecord({ msg, args, level: LogLevels.WARN, loggerName: "shouty" })));
    this.#due = true;
  }
}

function concat(parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
