/**
 * The log: lines on stderr, written so that the server never waits for them.
 *
 * @module
 */

import type { FormatterFunction } from "@std/log/base-handler";
import type { LevelName } from "@std/log/levels";
import { Logger } from "@std/log/logger";
import { escapeUnsafe } from "../internal/api/errors.ts";
import { BufferedHandler, type Sink } from "./log_handler.ts";

/** The levels, as the flag `--log-level` names them. */
export type Level = "debug" | "info" | "warn" | "error";

/** Makes an event's fields, which only the format `json` writes. */
export type Fields = () => Record<string, unknown>;

/** An open log. */
export interface Log {
  /**
   * Logs one line, if its level is on.
   *
   * @param level The line's level.
   * @param text Makes the line's text; called only if the level is on.
   * @param fields Makes its fields; called only if they are written.
   */
  write(level: Level, text: () => string, fields?: Fields): void;
  /** Writes the lines that wait, for {@linkcode LAST_FLUSH_MS} at most. */
  flush(): Promise<void>;
}

/** Maximum time of the last flush in milliseconds: the reader of stderr may be stuck. */
const LAST_FLUSH_MS = 250;

/** Formats a record as one line. Unsafe characters are escaped: an error's message may repeat what a peer has sent. */
const FORMATTERS: Readonly<Record<"text" | "json", FormatterFunction>> = {
  text: ({ datetime, levelName, msg }) => `${iso(datetime)} ${levelName.toLowerCase()} ${escapeUnsafe(msg)}`,
  json({ datetime, levelName, msg, args }) {
    const fields = (args[0] as Fields | undefined)?.();
    return escapeUnsafe(JSON.stringify({ time: iso(datetime), level: levelName.toLowerCase(), msg, ...fields }));
  },
};

/**
 * Opens the log. Each line is formatted at once, and only its text is queued: queued events kept their connections in
 * memory, which at thousands per second made the garbage collector's pauses ten times as long.
 *
 * @param level The least level that is logged.
 * @param format The form of a line.
 * @param sink Where the bytes go.
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

/** Formats a date; the last result is reused, because many lines share a millisecond and this is their largest cost. */
function iso(date: Date): string {
  const ms = date.getTime();
  if (ms !== lastMs) {
    lastMs = ms;
    lastIso = date.toISOString();
  }
  return lastIso;
}
