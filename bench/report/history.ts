// The history of figures: `bench/history.jsonl` has a row, in JSON, per release and machine.

import type { Report } from "./report.ts";

/** The median of a case, its range over the rounds, and what else was measured in these runs. */
export interface HistoryFigure {
  /** In the unit of the case: lines or connections per second, bytes, or a ratio. */
  median: number;
  min: number;
  max: number;
  /** In microseconds. */
  p99?: number;
  /** The server's processor time for one line, connection or byte, in nanoseconds. */
  cpu?: number;
  /** Whether the load was the limit, or something else ran on the cores: then the figure is too low. */
  doubtful?: true;
}

/** One row. */
export interface HistoryRow {
  /** The version in `deno.json`. */
  release: string;
  /** The commit that was measured, with `+` if files had been changed since. */
  commit: string;
  /** The processor, the number of cores, and the kernel. */
  machine: string;
  /** When the last of its cases was measured, in ISO 8601. */
  date: string;
  rounds: number;
  seconds: number;
  /** The versions of the programs that ran the servers, by server. */
  versions: Record<string, string>;
  /** By case, and in that by server. */
  figures: Record<string, Record<string, HistoryFigure>>;
}

const TEXTS = ["release", "commit", "machine", "date"] as const;
const NUMBERS = ["rounds", "seconds"] as const;

/** Makes a row of a report. */
export function rowOf(report: Report, release: string, commit: string): HistoryRow {
  const figures: HistoryRow["figures"] = {};
  for (const { case: test, server, median, min, max, p99, cpu, loadBound, disturbed } of report.figures) {
    (figures[test] ??= {})[server] = {
      ...{ median: round(median), min: round(min), max: round(max) },
      ...(p99 === undefined ? {} : { p99: round(p99) }),
      ...(cpu === undefined ? {} : { cpu: round(cpu) }),
      ...(loadBound || disturbed ? { doubtful: true as const } : {}),
    };
  }
  const { machine, date, rounds, seconds, versions } = report;
  return { release, commit, machine, date, rounds, seconds, versions, figures };
}

/** Four significant digits: the readings are not better. */
function round(value: number): number {
  return Number(value.toPrecision(4));
}

/**
 * Adds a row to the others. The row of the same release and machine keeps the cases that were not measured this time;
 * the rest of it is replaced.
 */
export function withRow(rows: HistoryRow[], row: HistoryRow): HistoryRow[] {
  const at = rows.findIndex(({ release, machine }) => release === row.release && machine === row.machine);
  if (at < 0) return [...rows, row];
  const old = rows[at];
  const versions = { ...old.versions, ...row.versions };
  return rows.with(at, { ...row, versions, figures: { ...old.figures, ...row.figures } });
}

/**
 * Reads the file's text.
 *
 * @throws {SyntaxError} If a line is no row; the message has its number and what is wrong.
 */
export function parseHistory(text: string): HistoryRow[] {
  return text.split("\n").filter((line) => line !== "").map((line, i) => {
    const row = JSON.parse(line);
    const problem = problemOf(row);
    if (problem !== undefined) throw new SyntaxError(`history, line ${i + 1}: ${problem}`);
    return row;
  });
}

function problemOf(row: Record<string, unknown> | null): string | undefined {
  if (typeof row !== "object" || row === null) return "no object";
  const text = TEXTS.find((key) => typeof row[key] !== "string" || row[key] === "");
  if (text !== undefined) return `${text} is no text`;
  const number = NUMBERS.find((key) => !(Number(row[key]) > 0));
  if (number !== undefined) return `${number} is no number above 0`;
  if (Object.values(row.versions ?? {}).some((version) => typeof version !== "string")) return "a version is no text";
  const figures = Object.values(row.figures ?? {}).flatMap((servers) => Object.values(servers)) as HistoryFigure[];
  if (figures.length === 0) return "there are no figures";
  const ordered = figures.every(({ median, min, max }) => min <= median && median <= max);
  return ordered ? undefined : "a median is not between its least and its greatest value";
}

/** The file's text. */
export function formatHistory(rows: HistoryRow[]): string {
  return rows.map((row) => `${JSON.stringify(row)}\n`).join("");
}
