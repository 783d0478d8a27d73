/**
 * What the log says about each of the server's events.
 *
 * @module
 */

import type { ClosedEvent, RejectedEvent, ServerEvent } from "../internal/api/events.ts";
import { formatAddr } from "../internal/api/transport.ts";
import { count } from "../internal/api/errors.ts";
import { reasonOf } from "./errors.ts";
import type { Level, Log } from "./log.ts";

/** What is said about one type of event. */
interface Report<Event> {
  readonly level: Level;
  /** The line. */
  text(event: Event): string;
  /** What a machine would like to know as well. */
  fields(event: Event): Record<string, unknown>;
}

type EventOf<Type> = Extract<ServerEvent, { type: Type }>;

const REPORTS: { readonly [Type in ServerEvent["type"]]: Report<EventOf<Type>> } = {
  "listening": {
    level: "info",
    text: ({ addr }) => `listening on ${formatAddr(addr)}`,
    fields: ({ addr }) => ({ addr: formatAddr(addr) }),
  },
  "accepted": {
    level: "info",
    text: ({ conn }) => `accepted connection from ${formatAddr(conn.remoteAddr)}`,
    fields: ({ conn }) => ({ id: conn.id, remote: formatAddr(conn.remoteAddr) }),
  },
  "closed": {
    level: "info",
    text: closing,
    fields: ({ conn, reason, lines, bytesIn, bytesOut, durationMs }) => ({
      id: conn.id,
      remote: formatAddr(conn.remoteAddr),
      ...{ reason, lines, bytesIn, bytesOut, durationMs: Math.round(durationMs) },
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

/**
 * Logs an event.
 *
 * @param log Where.
 * @param event What.
 */
export function report(log: Log, event: ServerEvent): void {
  const { level, text, fields } = REPORTS[event.type] as Report<ServerEvent>;
  if (event.type === "stopped") reportCut(log, event.report.closed["drain-timeout"]);
  log.write(level, () => text(event), () => ({ event: event.type, ...fields(event) }));
}

/** Clients that a shutdown did not wait for have lost something. */
function reportCut(log: Log, cut = 0): void {
  if (cut > 0) log.write("warn", () => `cut ${count(cut, "connection")} at the drain timeout`, () => ({ cut }));
}

function rejecting({ remoteAddr, reason, limit, error }: RejectedEvent): string {
  const cause = limit === undefined ? reason : `${reason} ${limit}`;
  const line = `rejected connection from ${formatAddr(remoteAddr)} (${cause})`;
  return error === undefined ? line : `${line}: ${reasonOf(error)}`;
}

function closing({ conn, reason, error, lines, bytesIn, bytesOut, durationMs }: ClosedEvent): string {
  const traffic = `${count(lines, "line")}, ${count(bytesIn, "byte")} in, ${count(bytesOut, "byte")} out`;
  const line = `closing connection from ${formatAddr(conn.remoteAddr)} (${reason}, ${traffic}, ${seconds(durationMs)})`;
  // The other reasons say it all, or a line before this one has.
  return reason === "transport-error" ? `${line}: ${reasonOf(error)}` : line;
}

/** The kernel forgets a peer that has reset its connection. */
function formatGone(remoteAddr: Deno.Addr | undefined): string {
  return remoteAddr === undefined ? "a client" : formatAddr(remoteAddr);
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
