/**
 * The log: lines on stderr that cost the server little and can never hold it up.
 *
 * @module
 */

import type { FormatterFunction } from "@std/log/base-handler";
import type { LevelName } from "@std/log/levels";
import { Logger } from "@std/log/logger";
import { escapeUnsafe } from "../internal/api/errors.ts";
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
   * @param text What it says; called only if the level is on.
   * @param fields What it says besides.
   */
  write(level: Level, text: () => string, fields?: Fields): void;
  /** Lets go of the lines that wait, but spends a quarter of a second on it at most. */
  flush(): Promise<void>;
}

/** So long may the last flush take: whoever reads may be stuck. */
const LAST_FLUSH_MS = 250;

/** Ways to write a record, in one line whatever is in it: an error's message may repeat what a peer sent. */
const FORMATTERS: Readonly<Record<"text" | "json", FormatterFunction>> = {
  text: ({ datetime, levelName, msg }) => `${iso(datetime)} ${levelName.toLowerCase()} ${escapeUnsafe(msg)}`,
  json({ datetime, levelName, msg, args }) {
    const fields = (args[0] as Fields | undefined)?.();
    return escapeUnsafe(JSON.stringify({ time: iso(datetime), level: levelName.toLowerCase(), msg, ...fields }));
  },
};

/**
 * Opens the log. Each line is made at once, and only its text waits: an event that waits keeps its connection, and with
 * thousands per second these made the collector's pauses ten times as long.
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
