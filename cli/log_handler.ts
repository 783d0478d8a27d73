/**
 * The way from log lines to stderr, which may be slow, stuck or closed.
 *
 * @module
 */

import { BaseHandler, type FormatterFunction } from "@std/log/base-handler";
import { type LevelName, LogLevels } from "@std/log/levels";
import { LogRecord } from "@std/log/logger";

/** Where bytes go, some at a time. */
export interface Sink {
  write(bytes: Uint8Array): Promise<number>;
}

/** So much, in characters, is not kept waiting. */
const CHUNK = 64 * 1024;

/** So much, in characters, waits at most for a reader that does not read. */
const MOST_WAITING = 1024 * 1024;

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
  #waiting = "";
  /** How many characters are on their way to the sink. */
  #leaving = 0;
  #dropped = 0;
  #writing: Promise<void> | undefined;
  /** Whether what waits is to follow at once. */
  #due = false;

  constructor(levelName: LevelName, formatter: FormatterFunction, sink: Sink) {
    super(levelName, { formatter });
    this.#sink = sink;
  }

  override log(line: string): void {
    if (this.#waiting.length + this.#leaving > MOST_WAITING) {
      this.#dropped++;
      return;
    }
    this.#waiting += `${line}\n`;
    if (this.#waiting.length >= CHUNK) this.write();
  }

  /** What waits is due; one chunk is written at a time. */
  write(): void {
    this.#due = this.#waiting !== "";
    if (this.#due) this.#writing ??= this.#writeChunk();
  }

  /** Writes all that waits, however long that takes; never rejects. */
  async flush(): Promise<void> {
    while (this.#waiting !== "" || this.#writing !== undefined) {
      this.write();
      await this.#writing;
    }
  }

  async #writeChunk(): Promise<void> {
    const text = this.#waiting;
    this.#waiting = "";
    this.#due = false;
    this.#leaving = text.length;
    const written = await this.#send(new TextEncoder().encode(text));
    this.#leaving = 0;
    this.#writing = undefined;
    if (written) this.#tellDropped();
    else this.#dropped += text.split("\n").length - 1;
    if (this.#due) this.write();
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
    const msg = `dropped ${this.#dropped} log ${this.#dropped === 1 ? "line" : "lines"}`;
    this.#dropped = 0;
    this.log(this.format(new LogRecord({ msg, args: [Date.now()], level: LogLevels.WARN, loggerName: "shouty" })));
    this.#due = true;
  }
}
