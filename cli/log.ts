/**
 * The log: lines on stderr that cost the server little and can never hold it up.
 *
 * @module
 */

import type { FormatterFunction } from "@std/log/base-handler";
import { type LevelName, LogLevels } from "@std/log/levels";
import { Logger } from "@std/log/logger";
import { BufferedHandler, type Sink } from "./log_handler.ts";

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
   * @param text What it says; called only if the level is on, when the line is made, a tenth of a second later at most.
   * @param fields What it says besides.
   */
  write(level: Level, text: () => string, fields?: Fields): void;
  /** Lets go of the lines that wait, but spends a quarter of a second on it at most. */
  flush(): Promise<void>;
}

/** A line waits so long for others to share its system call. */
const FLUSH_MS = 100;

/** So long may the last flush take: whoever reads may be stuck. */
const LAST_FLUSH_MS = 250;

/** So many lines are made at once: one by one, each with cold caches, they cost a connection 4 % more. */
const BATCH = 64;

const LEVELS = { debug: LogLevels.DEBUG, info: LogLevels.INFO, warn: LogLevels.WARN, error: LogLevels.ERROR } as const;

/** Ways to write a record, whose own time is that at which the line is made. */
const FORMATTERS: Readonly<Record<"text" | "json", FormatterFunction>> = {
  text({ levelName, msg, args }) {
    const [time] = args as Details;
    return `${iso(time)} ${levelName.toLowerCase()} ${msg}`;
  },
  json({ levelName, msg, args }) {
    const [time, fields] = args as Details;
    return JSON.stringify({ time: iso(time), level: levelName.toLowerCase(), msg, ...fields?.() });
  },
};

/** What a record carries besides its message: when it happened, in milliseconds, and more for machines. */
type Details = [time: number, fields?: Fields];

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
  return new BatchingLog(LEVELS[level], new Logger("shouty", levelName, { handlers: [handler] }), handler);
}

/** A line that is still to be made. */
interface Draft {
  readonly level: Level;
  readonly text: () => string;
  readonly details: Details;
}

/** Makes lines in batches. */
class BatchingLog implements Log {
  readonly #least: number;
  readonly #logger: Logger;
  readonly #handler: BufferedHandler;
  #drafts: Draft[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(least: number, logger: Logger, handler: BufferedHandler) {
    this.#least = least;
    this.#logger = logger;
    this.#handler = handler;
  }

  write(level: Level, text: () => string, fields?: Fields): void {
    if (LEVELS[level] < this.#least) return;
    this.#drafts.push({ level, text, details: [Date.now(), fields] });
    if (this.#drafts.length === BATCH) this.#make();
    this.#timer ??= setTimeout(() => this.#letGo(), FLUSH_MS);
  }

  async flush(): Promise<void> {
    this.#letGo();
    await within(LAST_FLUSH_MS, this.#handler.flush());
  }

  #letGo(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#make();
    this.#handler.write();
  }

  #make(): void {
    const drafts = this.#drafts;
    this.#drafts = [];
    for (const { level, text, details } of drafts) this.#logger[level](text, ...details);
  }
}

async function within(ms: number, promise: Promise<void>): Promise<void> {
  const late = Promise.withResolvers<void>();
  const timer = setTimeout(late.resolve, ms);
  await Promise.race([promise, late.promise]);
  clearTimeout(timer);
}

let lastTime: number | undefined;
let lastIso = "";

/** Many lines share a millisecond, and this is the dearest part of a line. */
function iso(time: number): string {
  if (time !== lastTime) {
    lastTime = time;
    lastIso = new Date(time).toISOString();
  }
  return lastIso;
}
