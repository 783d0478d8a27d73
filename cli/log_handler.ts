/**
 * The way from log lines to stderr, which may be slow, stuck or closed.
 *
 * @module
 */

import { BaseHandler, type FormatterFunction } from "@std/log/base-handler";
import { type LevelName, LogLevels } from "@std/log/levels";
import { LogRecord } from "@std/log/logger";
import { count } from "../internal/api/errors.ts";

/** Where bytes go, some at a time. */
export interface Sink {
  write(bytes: Uint8Array): Promise<number>;
}

/** So much, in bytes, is not kept waiting. */
const CHUNK = 64 * 1024;

/** So much, in bytes, waits at most for a reader that does not read. */
const MOST_WAITING = 1024 * 1024;

/**
 * So much text, in characters, becomes bytes at once. While it is text, each line is made of many small pieces, which
 * take ten times the memory; with a slow reader the collector's pauses grow by it.
 */
const ENCODE_LENGTH = 4 * 1024;

const ENCODER = new TextEncoder();

/** A line waits so long for others to share its system call. */
const FLUSH_MS = 100;

/** So long after a pipe was full it is tried again. */
const RETRY_MS = 100;

/**
 * Gathers lines, and writes them together without ever waiting for it: whoever logs goes on.
 *
 * Nobody may be reading, or too slowly: past a limit lines are dropped, and later their number is told. Writing may
 * fail: stderr is a closed pipe, or a file on a full disk. Then its lines count as dropped too; the server goes on.
 */
export class BufferedHandler extends BaseHandler {
  readonly #sink: Sink;
  /** What waits: bytes, then text, so many lines and about so many bytes in all. */
  readonly #encoded: Uint8Array[] = [];
  #text = "";
  #lines = 0;
  #waiting = 0;
  /** How many bytes are on their way to the sink. */
  #leaving = 0;
  #dropped = 0;
  #writing: Promise<void> | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Whether what waits is to follow at once. */
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
    this.#lines++;
    this.#waiting += line.length + 1;
    if (this.#text.length >= ENCODE_LENGTH) this.#encode();
    if (this.#waiting >= CHUNK) this.#write();
    else this.#timer ??= setTimeout(() => this.#write(), FLUSH_MS);
  }

  /** What waits is due; one chunk is written at a time. */
  #write(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#due = this.#waiting > 0;
    if (this.#due) this.#writing ??= this.#writeChunk();
  }

  /** Writes all that waits, however long that takes; never rejects. */
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
    const bytes = concat(this.#encoded.splice(0));
    const lines = this.#lines;
    this.#lines = this.#waiting = 0;
    this.#due = false;
    this.#leaving = bytes.length;
    const written = await this.#send(bytes);
    this.#leaving = 0;
    this.#writing = undefined;
    if (written) this.#tellDropped();
    else this.#dropped += lines;
    if (this.#due) this.#write();
  }

  async #send(bytes: Uint8Array): Promise<boolean> {
    for (let sent = 0; sent < bytes.length;) {
      try {
        sent += await this.#sink.write(bytes.subarray(sent));
      } catch (error) {
        if (!(error instanceof Deno.errors.WouldBlock)) return false;
        // Whoever shares the pipe has made it non-blocking, and it is full.
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
    return true;
  }

  #tellDropped(): void {
    if (this.#dropped === 0) return;
    const msg = `dropped ${count(this.#dropped, "log line")}`;
    this.#dropped = 0;
    this.log(this.format(new LogRecord({ msg, args: [], level: LogLevels.WARN, loggerName: "shouty" })));
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
