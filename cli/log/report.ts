/**
 * Logs the server's events.
 *
 * @module
 */

import type { ClosedEvent, RejectedEvent, ServerEvent } from "../../internal/api/events.ts";
import { formatAddr } from "../../internal/api/transport.ts";
import { count, quote } from "../../internal/api/errors.ts";
import type { Trace } from "../../ops/metrics/spans.ts";
import { reasonOf } from "../system/errors.ts";
import type { Level, Log } from "./log.ts";

/** What the log's lines say that the events do not. */
export interface Context {
  /** The addresses of the listeners that speak TLS. */
  readonly secure?: ReadonlySet<string>;
  /** Finds a connection in the traces of OpenTelemetry, by its number. */
  readonly traceOf?: ((connId: number) => Trace | undefined) | undefined;
}

/** How one type of event is logged. */
interface Report<Event> {
  readonly level: Level;
  /** The line's text. */
  text(event: Event, secure: ReadonlySet<string>): string;
  /** The event's data, for the format `json`. */
  fields(event: Event, secure: ReadonlySet<string>): Record<string, unknown>;
}

type EventOf<Type> = Extract<ServerEvent, { type: Type }>;

const REPORTS: { readonly [Type in ServerEvent["type"]]: Report<EventOf<Type>> } = {
  "listening": {
    level: "info",
    text: ({ addr }, secure) => `listening on ${formatAddr(addr)}${secure.has(formatAddr(addr)) ? " (TLS)" : ""}`,
    fields: ({ addr }, secure) => ({
      addr: formatAddr(addr),
      ...(secure.has(formatAddr(addr)) && { tls: true }),
    }),
  },
  "accepted": {
    level: "info",
    text: ({ conn }) => `accepted connection from ${formatAddr(conn.remoteAddr)}`,
    fields: ({ conn }) => ({ id: conn.id, remote: formatAddr(conn.remoteAddr) }),
  },
  "closed": {
    level: "info",
    text: closing,
    fields: ({ conn, reason, detail, lines, bytesIn, bytesOut, durationMs }) => ({
      id: conn.id,
      remote: formatAddr(conn.remoteAddr),
      ...{ reason, ...(detail !== undefined && { detail }) },
      ...{ lines, bytesIn, bytesOut, durationMs: Math.round(durationMs) },
    }),
  },
  "rejected": {
    level: "warn",
    text: rejecting,
    fields: ({ remoteAddr, reason, limit, error }) => ({
      remote: formatAddr(remoteAddr),
      ...{ reason, limit },
      ...(error === undefined ? {} : { error: reasonOf(error) }),
    }),
  },
  "gone": {
    level: "debug",
    text: ({ remoteAddr, error }) => `${formatGone(remoteAddr)} left before it was served: ${reasonOf(error)}`,
    fields: ({ remoteAddr, error }) => ({
      ...(remoteAddr === undefined ? {} : { remote: formatAddr(remoteAddr) }),
      error: reasonOf(error),
    }),
  },
  "accept-error": {
    level: "warn",
    text: ({ error, retryMs }) =>
      `cannot accept (next try ${retryMs === 0 ? "now" : `in ${retryMs} ms`}): ${reasonOf(error)}`,
    fields: ({ error, retryMs }) => ({ error: reasonOf(error), retryMs }),
  },
  "handler-error": {
    level: "error",
    text: ({ conn, error }) => `handler failed for ${formatAddr(conn.remoteAddr)}: ${reasonOf(error)}`,
    fields: ({ conn, error }) => ({ id: conn.id, remote: formatAddr(conn.remoteAddr), error: reasonOf(error) }),
  },
  "paused": { level: "warn", text: () => "paused: accepting no connections", fields: () => ({}) },
  "resumed": { level: "info", text: () => "resumed: accepting connections again", fields: () => ({}) },
  "limits-changed": {
    level: "info",
    text: ({ limits }) => `changed limits: ${JSON.stringify(shownOptions(limits))}`,
    fields: ({ limits }) => ({ limits: shownOptions(limits) }),
  },
  "lame-duck": {
    level: "info",
    text: ({ delayMs }) => `shutting down in ${seconds(delayMs)}: still accepting connections`,
    fields: ({ delayMs }) => ({ delayMs }),
  },
  "draining": { level: "info", text: () => "shutting down", fields: ({ active }) => ({ active }) },
  "waiting": {
    level: "info",
    text: ({ active }) => `waiting on ${count(active, "connection")}`,
    fields: ({ active }) => ({ active }),
  },
  "stopped": {
    level: "info",
    text: () => "all connections closed",
    fields: ({ report }) => ({ closed: report.closed, durationMs: Math.round(report.durationMs) }),
  },
};

/** The events of which thousands may come in a second, because peers cause them. */
const STORMS: ReadonlySet<ServerEvent["type"]> = new Set(["accepted", "closed", "rejected", "gone", "accept-error"]);

/** What lines have to have in common for `--log-sample` to count them together; `undefined` if none is left out. */
function kindOf(event: ServerEvent): string | undefined {
  if (!STORMS.has(event.type)) return undefined;
  return "reason" in event ? `${event.type} ${event.reason}` : event.type;
}

/**
 * Logs an event.
 *
 * @param log The log.
 * @param event The event.
 * @param context What the lines say that the event does not.
 */
export function report(log: Log, event: ServerEvent, { secure = NONE, traceOf }: Context = {}): void {
  const { level, text, fields } = REPORTS[event.type] as Report<ServerEvent>;
  if (event.type === "stopped") reportCut(log, event.report.closed["drain-timeout"]);
  const all = () => ({ ...fields(event, secure), ...traceFields(event, traceOf) });
  log.write(level, event.type, () => text(event, secure), all, kindOf(event));
}

/** The names of OpenTelemetry's fields, by which collectors join log lines and traces. */
function traceFields(event: ServerEvent, traceOf: Context["traceOf"]): Record<string, string> | undefined {
  const found = "conn" in event ? traceOf?.(event.conn.id) : undefined;
  return found && { trace_id: found.traceId, span_id: found.spanId };
}

const NONE: ReadonlySet<string> = new Set();

/** Warns of connections that the drain timeout closed: their clients may have lost replies. */
function reportCut(log: Log, cut = 0): void {
  if (cut > 0) log.write("warn", "cut", () => `cut ${count(cut, "connection")} at the drain timeout`, () => ({ cut }));
}

/** Options as the log shows them: JSON has no `Infinity`, which is `off` as on the command line. */
export function shownOptions(options: object): object {
  return JSON.parse(JSON.stringify(options, (_, value) => value === Infinity ? "off" : value));
}

function rejecting({ remoteAddr, reason, limit, error }: RejectedEvent): string {
  const cause = limit === undefined ? reason : `${reason} ${limit}`;
  const line = `rejected connection from ${formatAddr(remoteAddr)} (${cause})`;
  return error === undefined ? line : `${line}: ${reasonOf(error)}`;
}

function closing({ conn, reason, detail, error, lines, bytesIn, bytesOut, durationMs }: ClosedEvent): string {
  const traffic = `${count(lines, "line")}, ${count(bytesIn, "byte")} in, ${count(bytesOut, "byte")} out`;
  const cause = detail === undefined ? reason : `${reason} ${quote(detail)}`;
  const line = `closing connection from ${formatAddr(conn.remoteAddr)} (${cause}, ${traffic}, ${seconds(durationMs)})`;
  // With any other reason, the reason is enough, or another event's line has the error.
  return reason === "transport-error" ? `${line}: ${reasonOf(error)}` : line;
}

/** The peer's address, which the kernel may have forgotten after a reset. */
function formatGone(remoteAddr: Deno.Addr | undefined): string {
  return remoteAddr === undefined ? "a client" : formatAddr(remoteAddr);
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
