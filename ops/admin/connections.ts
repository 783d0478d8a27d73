/**
 * The list of open connections, as a client of the admin port asks for it.
 *
 * @module
 */

import { quote } from "../../internal/api/errors.ts";
import type { ConnStats } from "../../internal/api/handlers.ts";
import { formatAddr } from "../../internal/api/transport.ts";
import { Refusal } from "./http/exchange.ts";
import type { Steered, SteeredConn } from "./steered.ts";

/** One open connection. */
export interface Row extends ConnStats {
  readonly id: number;
  readonly peer: string;
  readonly local: string;
}

/** The list: how many connections are open, how many of them match, and those that were asked for. */
export interface ConnectionList {
  readonly total: number;
  readonly matched: number;
  readonly connections: readonly Row[];
}

/** An open connection before it is a row: of thousands, only few become one. */
interface Entry {
  readonly conn: SteeredConn;
  readonly stats: ConnStats;
  /** The peer's address as text, if something has asked for it. */
  peer?: string;
}

/** How to put two entries in order, by the name of the column. */
const COLUMNS: Readonly<Record<string, (a: Entry, b: Entry) => number>> = {
  id: (a, b) => a.conn.id - b.conn.id,
  age: (a, b) => a.stats.ageMs - b.stats.ageMs,
  idle: (a, b) => a.stats.idleMs - b.stats.idleMs,
  lines: (a, b) => a.stats.lines - b.stats.lines,
  bytesIn: (a, b) => a.stats.bytesIn - b.stats.bytesIn,
  bytesOut: (a, b) => a.stats.bytesOut - b.stats.bytesOut,
  peer: (a, b) => peerOf(a) < peerOf(b) ? -1 : peerOf(a) > peerOf(b) ? 1 : 0,
};

/** The names of the columns by which the list can be sorted. */
export const SORTS: readonly string[] = Object.keys(COLUMNS);

/** The phases of a connection, and what it can wait for, as keys: the compiler reports one that is missing. */
const ALL_PHASES: Record<ConnStats["phase"], true> = {
  "open": true,
  "ending": true,
  "leaving": true,
  "lingering": true,
  "closed": true,
};
const ALL_WAITS: Record<ConnStats["waitsFor"], true> = {
  "first-byte": true,
  "peer": true,
  "line": true,
  "body": true,
  "handler": true,
  "write": true,
  "close": true,
  "turn": true,
};

/** The words for them, by which the list can be filtered. */
export const PHASES = Object.keys(ALL_PHASES) as readonly ConnStats["phase"][];
export const WAITS = Object.keys(ALL_WAITS) as readonly ConnStats["waitsFor"][];

/** Maximum number of connections in one answer. */
export const MOST_ROWS = 1000;

const PARAMETERS = ["sort", "filter", "phase", "waitsFor", "limit", "offset"] as const;

/**
 * Lists the open connections.
 *
 * @param server The server.
 * @param query The parameters of the request.
 * @throws {Refusal} If one of them is wrong.
 */
export function listConnections(server: Steered, query: URLSearchParams): ConnectionList {
  const get = readerOf(query);
  const order = orderOf(get("sort") ?? "id");
  const filter = get("filter")?.toLowerCase() ?? "";
  const phase = wordOf("phase", get("phase"), PHASES);
  const waitsFor = wordOf("waitsFor", get("waitsFor"), WAITS);
  const limit = wholeOf("limit", get("limit") ?? "100", 1, MOST_ROWS);
  const offset = wholeOf("offset", get("offset") ?? "0", 0, Number.MAX_SAFE_INTEGER);
  let total = 0;
  const entries: Entry[] = [];
  for (const conn of server.connections) {
    total++;
    const entry: Entry = { conn, stats: conn.stats() };
    const { stats } = entry;
    if (phase !== undefined && stats.phase !== phase || waitsFor !== undefined && stats.waitsFor !== waitsFor) continue;
    if (filter === "" || `${peerOf(entry)}\n${stats.detail ?? ""}`.toLowerCase().includes(filter)) entries.push(entry);
  }
  entries.sort(order);
  return { total, matched: entries.length, connections: entries.slice(offset, offset + limit).map(rowOf) };
}

/**
 * Closes a connection, as `conn.close` does.
 *
 * @param server The server.
 * @param id The connection's number.
 * @param detail The word for the end; by default `admin`.
 * @throws {Refusal} If there is no such connection.
 */
export function closeConnection(server: Steered, id: number, detail: string): void {
  for (const conn of server.connections) {
    if (conn.id !== id) continue;
    conn.close({ detail });
    return;
  }
  throw new Refusal(404, `Cannot close connection ${id}: there is none`);
}

function rowOf(entry: Entry): Row {
  const { conn, stats } = entry;
  const times = { ageMs: Math.round(stats.ageMs), idleMs: Math.round(stats.idleMs) };
  return { id: conn.id, peer: peerOf(entry), local: localOf(conn), ...stats, ...times };
}

/** This side's address; empty if a transport of the caller's own does not tell it. */
function localOf(conn: SteeredConn): string {
  try {
    return formatAddr(conn.localAddr);
  } catch {
    return "";
  }
}

function peerOf(entry: Entry): string {
  return entry.peer ??= formatAddr(entry.conn.remoteAddr);
}

/** Returns what looks parameters up, after a check that there are no others. */
function readerOf(query: URLSearchParams): (name: typeof PARAMETERS[number]) => string | undefined {
  for (const name of query.keys()) {
    if (!PARAMETERS.some((known) => known === name)) throw wrong("parameter", name, PARAMETERS.join(", "));
    if (query.getAll(name).length > 1) throw new Refusal(400, `Cannot use ${name} twice: expected it once`);
  }
  return (name) => query.get(name) ?? undefined;
}

function orderOf(sort: string): (a: Entry, b: Entry) => number {
  const compare = Object.hasOwn(COLUMNS, sort.replace(/^-/, "")) ? COLUMNS[sort.replace(/^-/, "")] : undefined;
  if (compare === undefined) throw wrong("sort", sort, `one of ${SORTS.join(", ")}, or one of them after a -`);
  const direction = sort.startsWith("-") ? -1 : 1;
  // Equal ones are in the order in which they have come, so that the pages of a long list fit together.
  return (a, b) => direction * compare(a, b) || a.conn.id - b.conn.id;
}

function wordOf<Word extends string>(
  name: string,
  value: string | undefined,
  words: readonly Word[],
): Word | undefined {
  const word = words.find((word) => word === value);
  if (value !== undefined && word === undefined) throw wrong(name, value, `one of ${words.join(", ")}`);
  return word;
}

function wholeOf(name: string, value: string, least: number, most: number): number {
  const number = /^\d{1,16}$/.test(value) ? Number(value) : NaN;
  if (number >= least && number <= most) return number;
  throw wrong(name, value, `a whole number from ${least} to ${most}`);
}

function wrong(name: string, value: string, expected: string): Refusal {
  return new Refusal(400, `Cannot use ${name} ${quote(value)}: expected ${expected}`);
}
