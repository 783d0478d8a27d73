/**
 * The log: lines on stderr that cost the server little and can never hold it up.
 *
 * @module
 */

import { BaseHandler, type FormatterFunction } from "@std/log/base-handler";
import { type LevelName, LogLevels } from "@std/log/levels";
import { Logger, LogRecord } from "@std/log/logger";

/** The levels, as the command calls them. */
export type Level = "debug" | "info" | "warn" | "error";

/** What an event adds to its line where the format has fields; worked out only there. */
export type Fields = () => Record<string, unknown>;

/** An open log. */
export interface Log {
  /**
   * Logs one line, if its level is on.
   *
   * @param level Its level.
   * @param text What it says; called only if the level is on.
   * @param fields What it says besides.
   */
  write(level: Level, text: () => string, fields?: Fields): void;
  /** Lets go of the lines that wait, but spends a quarter of a second on it at most. */
  flush(): Promise<void>;
}

/** Where bytes go, some at a time. */
export interface Sink {
  write(bytes: Uint8Array): Promise<number>;
}

/** A line waits so long for others to share its system call. */
const FLUSH_MS = 100;

/** So much, in characters, is not kept waiting. */
const CHUNK = 64 * 1024;

/** So much, in characters, waits at most for a reader that does not read. */
const MOST_WAITING = 1024 * 1024;

/** So long may the last flush take: whoever reads may be stuck. */
const LAST_FLUSH_MS = 250;

/** Ways to write a record. */
const FORMATTERS: Readonly<Record<"text" | "json", FormatterFunction>> = {
  text: ({ datetime, levelName, msg }) => `${iso(datetime)} ${levelName.toLowerCase()} ${msg}`,
  json({ datetime, levelName, msg, args }) {
    const fields = (args[0] as Fields | undefined)?.();
    return JSON.stringify({ time: iso(datetime), level: levelName.toLowerCase(), msg, ...fields });
  },
};

/**
 * Opens the log.
 *
 * @param level The least level that is logged.
 * @param format How.
 * @param sink Where to.
 * @returns The log.
 */
export function openLog(level: Level, format: keyof typeof FORMATTERS, sink: Sink = Deno.stderr): Log {
  const levelName = level.toUpperCase() as LevelName;
  const handler = new BufferedHandler(levelName, FORMATTERS[format], sink);
  const logger = new Logger("shouty", levelName, { handlers: [handler] });
  return {
    write: (level, text, fields) => logger[level](text, fields),
    flush: () => within(LAST_FLUSH_MS, handler.flush()),
  };
}

/**
 * Gathers lines, and writes them together without ever waiting for it: whoever logs goes on.
 *
 * Nobody may be reading, or too slowly: past a limit lines are dropped, and later their number is told. Writing may
 * fail: stderr is a closed pipe, or a file on a full disk. Then its lines count as dropped too; the server goes on.
 */
class BufferedHandler extends BaseHandler {
  readonly #sink: Sink;
  #waiting = "";
  /** How many characters are on their way to the sink. */
  #leaving = 0;
  #dropped = 0;
  /** Set while lines wait for others; without it, those that wait are due. */
  #timer: ReturnType<typeof setTimeout> | undefined;
  #writing: Promise<void> | undefined;

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
    if (this.#waiting.length >= CHUNK) this.#write();
    else this.#timer ??= setTimeout(() => this.#write(), FLUSH_MS);
  }

  /** Writes all that waits, however long that takes; never rejects. */
  async flush(): Promise<void> {
    while (this.#waiting !== "" || this.#writing !== undefined) {
      this.#write();
      await this.#writing;
    }
  }

  /** What waits is due; one chunk is written at a time. */
  #write(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#waiting !== "") this.#writing ??= this.#writeChunk();
  }

  async #writeChunk(): Promise<void> {
    const text = this.#waiting;
    this.#waiting = "";
    this.#leaving = text.length;
    const written = await this.#send(new TextEncoder().encode(text));
    this.#leaving = 0;
    this.#writing = undefined;
    if (this.#timer === undefined) this.#write();
    if (written) this.#tellDropped();
    else this.#dropped += text.split("\n").length - 1;
  }

  async #send(bytes: Uint8Array): Promise<boolean> {
    for (let sent = 0; sent < bytes.length;) {
      try {
        sent += await this.#sink.write(bytes.subarray(sent));
      } catch (error) {
        if (!(error instanceof Deno.errors.WouldBlock)) return false;
        // Whoever shares the pipe has made it non-blocking, and it is full.
        await new Promise((resolve) => setTimeout(resolve, FLUSH_MS));
      }
    }
    return true;
  }

  #tellDropped(): void {
    if (this.#dropped === 0) return;
    const msg = `dropped ${this.#dropped} log ${this.#dropped === 1 ? "line" : "lines"}`;
    this.#dropped = 0;
    this.log(this.format(new LogRecord({ msg, args: [], level: LogLevels.WARN, loggerName: "shouty" })));
  }
}

async function within(ms: number, promise: Promise<void>): Promise<void> {
  const late = Promise.withResolvers<void>();
  const timer = setTimeout(late.resolve, ms);
  await Promise.race([promise, late.promise]);
  clearTimeout(timer);
}

let lastMs: number | undefined;
let lastIso = "";

/** Many lines share a millisecond, and this is the dearest part of a line. */
function iso(date: Date): string {
  const ms = date.getTime();
  if (ms !== lastMs) {
    lastMs = ms;
    lastIso = date.toISOString();
  }
  return lastIso;
}
