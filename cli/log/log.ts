/**
 * The log: lines on stderr, written so that the server never waits for them.
 *
 * @module
 */

import type { FormatterFunction } from "@std/log/base-handler";
import type { LevelName } from "@std/log/levels";
import { Logger } from "@std/log/logger";
import { count, escapeUnsafe } from "../../internal/api/errors.ts";
import type { ServerEvent } from "../../internal/api/events.ts";
import type { Clock } from "../../internal/api/serve_options.ts";
import { SYSTEM_CLOCK } from "../../internal/time/clock.ts";
import type { WorkerEvent } from "../../ops/workers/options.ts";
import { within } from "../system/within.ts";
import { BufferedHandler, type Sink } from "./handler.ts";
import { Sampler } from "./sampler.ts";

/** The levels, as the flag `--log-level` names them. */
export type Level = "debug" | "info" | "warn" | "error";

/** What a line tells of: an event of the server, or one of the command. `docs/logs.md` describes each. */
export type LogEvent =
  | ServerEvent["type"]
  | WorkerEvent["type"]
  | ("options" | "engine" | "ignored-variable" | "certificate" | "certificate-dates" | "certificate-kept")
  | ("admin" | "admin-drain")
  | ("signal" | "ignored-signal" | "ending" | "cut" | "failed")
  | ("upgrade-begun" | "upgraded" | "upgrade-failed" | "systemd-error" | "admin-failed")
  | ("tracing" | "wire" | "left-out" | "dropped");

/** Makes an event's fields, which only the format `json` writes. */
export type Fields = () => Record<string, unknown>;

/** An open log. */
export interface Log {
  /**
   * Logs one line, if its level is on.
   *
   * @param level The line's level.
   * @param event What it tells of.
   * @param text Makes the line's text; called only if the line is written.
   * @param fields Makes its fields; called only if they are written.
   * @param kind A name under which `--log-sample` counts the line: above its number in a second, further lines of that
   * name are left out. Without a name the line is always written.
   */
  write(level: Level, event: LogEvent, text: () => string, fields?: Fields, kind?: string): void;
  /** Writes the lines that wait, for {@linkcode LAST_FLUSH_MS} at most. */
  flush(): Promise<void>;
}

/** Maximum time of the last flush in milliseconds: the reader of stderr may be stuck. */
const LAST_FLUSH_MS = 250;

/** Formats a record as one line. Unsafe characters are escaped: an error's message may repeat what a peer has sent. */
const FORMATTERS: Readonly<Record<"text" | "json", FormatterFunction>> = {
  text: ({ datetime, levelName, msg }) => `${iso(datetime)} ${levelName.toLowerCase()} ${escapeUnsafe(msg)}`,
  json({ datetime, levelName, msg, args }) {
    const [event, fields] = args as [LogEvent, Fields | undefined];
    const line = { time: iso(datetime), level: levelName.toLowerCase(), msg, event, ...fields?.() };
    return escapeUnsafe(JSON.stringify(line));
  },
};

/** How many lines of one kind are written in a second. */
export interface Sampling {
  /** The number; `Infinity` for all. */
  readonly most: number;
  /** Tells when a second is over. */
  readonly clock?: Clock;
}

/**
 * Opens the log. Each line is formatted at once, and only its text is queued: queued events kept their connections in
 * memory, which at thousands per second made the garbage collector's pauses ten times as long.
 *
 * @param level The least level that is logged.
 * @param format The form of a line.
 * @param sink Where the bytes go.
 * @param sampling How many lines of one kind are written in a second.
 * @returns The log.
 */
export function openLog(
  level: Level,
  format: keyof typeof FORMATTERS,
  sink: Sink,
  { most, clock = SYSTEM_CLOCK }: Sampling = { most: Infinity },
): Log {
  const levelName = level.toUpperCase() as LevelName;
  const handler = new BufferedHandler(levelName, FORMATTERS[format], sink);
  const logger = new Logger("shouty", levelName, { handlers: [handler] });
  const sampler = new Sampler(most, clock, (level, kind, lines, ms) => {
    const text = () => `left out ${count(lines, "line")} of the kind "${kind}" in ${(ms / 1000).toFixed(1)} s`;
    logger[level](text, "left-out", () => ({ kind, lines, durationMs: Math.round(ms) }));
  });
  return {
    write(level, event, text, fields, kind) {
      if (kind === undefined || sampler.takes(level, kind)) logger[level](text, event, fields);
    },
    flush() {
      sampler.tell();
      return within(LAST_FLUSH_MS, handler.flush());
    },
  };
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
