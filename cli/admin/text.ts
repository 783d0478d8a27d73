/**
 * What `shouty admin` writes for people.
 *
 * @module
 */

import { count, escapeUnsafe } from "../../internal/api/errors.ts";
import type { ConnectionList, Row } from "../../ops/admin/connections.ts";
import type { Status } from "../../ops/admin/status.ts";
import type { MetricsSnapshot } from "../../ops/metrics/metrics.ts";
import { flagName } from "../flags/flags.ts";

/** Words a server's status. */
export function statusText(status: Status): string {
  const { name, version, pid, uptimeMs, addrs, ready, reasons, stats, metrics } = status;
  const { active, accepted, rejected, gone, lines, bytesIn, bytesOut, handlers } = stats;
  const rows = [
    ["server", `${name} ${version ?? ""}, process ${pid}, up ${time(uptimeMs)}`.replace(" ,", ",")],
    ["state", ready ? "ready" : `not ready: ${reasons.join(", ")}`],
    ["listening", addrs.join(", ")],
    ["connections", `${active} open, ${accepted} accepted, ${rejected} rejected, ${gone} gone`],
    ["closed", counts(stats.closed)],
    ...metrics === null ? [] : [["rejected", counts(metrics.rejected)]],
    ["traffic", `${count(lines, "line")}, ${size(bytesIn)} in, ${size(bytesOut)} out`],
    ...status.workers?.map(({ worker, state, active, accepted, crashes, lines }) => {
      const crashed = crashes === 0 ? "" : `, crashed ${count(crashes, "time")}`;
      return [`worker ${worker}`, `${state}, ${active} open, ${accepted} accepted, ${count(lines, "line")}${crashed}`];
    }) ?? [],
    ["handlers", `${handlers} at work${metrics === null ? "" : quantiles(metrics)}`],
  ];
  return table(rows.filter(([, text]) => text !== ""));
}

/** Words a list of connections. */
export function connectionsText({ total, matched, connections }: ConnectionList): string {
  const heads = ["ID", "PEER", "AGE", "IDLE", "LINES", "IN", "OUT", "PHASE", "WAITS FOR", "DETAIL"];
  const shown = `${connections.length} of ${count(matched, "connection")}`;
  const all = matched === total ? shown : `${shown}, ${total} in all`;
  return `${connections.length === 0 ? "" : `${table([heads, ...connections.map(cells)])}\n`}${all}`;
}

/** Words limits, each as the flag that sets it. */
export function limitsText(limits: Readonly<Record<string, unknown>>): string {
  return table(Object.entries(limits).map(([name, value]) => [`--${flagName(name)}`, limit(name, value)]));
}

function cells({ id, peer, ageMs, idleMs, lines, bytesIn, bytesOut, phase, waitsFor, detail = "" }: Row): string[] {
  return [
    String(id),
    peer,
    time(ageMs),
    time(idleMs),
    String(lines),
    size(bytesIn),
    size(bytesOut),
    phase,
    waitsFor,
    detail,
  ];
}

/** Lines of columns. What comes from peers is made safe to show. */
function table(rows: readonly (readonly string[])[]): string {
  const safe = rows.map((row) => row.map(escapeUnsafe));
  const widths = safe[0].map((_, column) => Math.max(...safe.map((row) => row[column].length)) + 2);
  return safe.map((row) => row.map((cell, column) => cell.padEnd(widths[column])).join("").trimEnd()).join("\n");
}

function counts(numbers: Readonly<Record<string, number>>): string {
  return Object.entries(numbers).filter(([, number]) => number > 0).map(([name, number]) => `${number} ${name}`)
    .join(", ");
}

function quantiles({ handlerMs: { count: calls, p50, p90, p99 } }: MetricsSnapshot): string {
  if (calls === 0) return "";
  const [half, most, all] = [p50, p90, p99].map((ms) => `${Number(Number(ms).toPrecision(2))} ms`);
  return `; ${count(calls, "call")} in the last minutes: half within ${half}, 90 % within ${most}, 99 % within ${all}`;
}

/** A time, in its two largest units. */
function time(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 24 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

function size(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const unit = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  return `${unit === 0 ? bytes : (bytes / 2 ** (10 * unit)).toFixed(1)} ${units[unit]}`;
}

/** A limit's value, as its flag takes it. */
function limit(name: string, value: unknown): string {
  if (value === null || value === 0) return "off";
  if (typeof value === "boolean") return value ? "on" : "off";
  if (typeof value === "number" && /(Timeout|Ms|Age)$/.test(name)) {
    return value % 1000 === 0 ? `${value / 1000}s` : `${value}ms`;
  }
  return String(value);
}
