// From samples to figures, and from figures to the table.

import { type Case, isDisturbed, type Sample } from "../cases/cases.ts";
import { median } from "./statistics.ts";

/** The figures of one server in one case. */
export interface Figure {
  case: string;
  title: string;
  server: string;
  unit: string;
  samples: Sample[];
  median: number;
  min: number;
  max: number;
  /** Median of the rounds, in microseconds. */
  p50?: number | undefined;
  p99?: number | undefined;
  /** The load generator's share of its core, median of the rounds, from 0 to 1. */
  load?: number | undefined;
  /** The server's processor time for one line, connection or byte, in nanoseconds, median of the rounds. */
  cpu?: number | undefined;
  /** The server's share of its core, median of the rounds, from 0 to 1. */
  busy?: number | undefined;
  /** Whether the load, not the server, was the limit. */
  loadBound: boolean;
  /** Whether something else ran on both cores, so that the figure is too low. */
  disturbed: boolean;
  /** The median as a multiple of Go's and of C's. */
  overGo?: number | undefined;
  overC?: number | undefined;
  /** The p99 as a multiple of Go's. */
  p99OverGo?: number | undefined;
}

/** A run that failed, and why. */
export interface Failure {
  case: string;
  server: string;
  message: string;
}

/** The whole result, as `--json` writes it. */
export interface Report {
  date: string;
  machine: string;
  pinned: boolean;
  rounds: number;
  seconds: number;
  versions: Record<string, string>;
  figures: Figure[];
  failures: Failure[];
}

// Above this share of its core the load generator may be the limit.
const BOUND = 0.9;

function medianOf(samples: Sample[], key: "p50" | "p99" | "load" | "server" | "cpu"): number | undefined {
  const values = samples.map((sample) => sample[key]).filter((value) => value !== undefined);
  return values.length > 0 ? median(values) : undefined;
}

function ratio(value: number | undefined, base: number | undefined): number | undefined {
  return value !== undefined && base ? value / base : undefined;
}

/** Sums up one case; the servers keep their order. */
export function figuresOf(test: Case, samples: Map<string, Sample[]>): Figure[] {
  const figures: Figure[] = [...samples].map(([server, samples]) => {
    const values = samples.map((sample) => sample.value);
    const load = medianOf(samples, "load");
    const busy = medianOf(samples, "server");
    return {
      ...{ case: test.name, title: test.title, server, unit: test.unit, samples },
      ...{ median: median(values), min: Math.min(...values), max: Math.max(...values) },
      ...{ p50: medianOf(samples, "p50"), p99: medianOf(samples, "p99") },
      ...{ cpu: medianOf(samples, "cpu"), load, busy, loadBound: (load ?? 0) > BOUND },
      disturbed: isDisturbed({ server: busy, load }),
    };
  });
  if (test.unit === "×") return figures; // a ratio of ratios would say nothing
  const go = figures.find((figure) => /(^|-)go$/.test(figure.server)); // `tls-go` is the Go of the cases of TLS
  const c = figures.find((figure) => figure.server === "c");
  return figures.map((figure) => ({
    ...figure,
    overGo: ratio(figure.median, go?.median),
    overC: ratio(figure.median, c?.median),
    p99OverGo: ratio(figure.p99, go?.p99),
  }));
}

/** Formats a value with three significant digits. */
function short(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** A value with its unit's prefix: `98.2 k`, `8.31 M`, `9.12 KiB`. */
export function amount(value: number, unit: string): string {
  if (unit === "×") return short(value);
  if (unit === "bytes") return value >= 1024 ? `${short(value / 1024)} KiB` : `${value.toFixed(0)} B`;
  if (value >= 1e6) return `${short(value / 1e6)} M`;
  return value >= 1e3 ? `${short(value / 1e3)} k` : short(value);
}

const HEADS = ["", "median", "min – max", "× Go", "× C", "p50 µs", "p99 µs", "× Go", "cpu ns", "server", "load"];

function row(figure: Figure): string[] {
  const optional = (value: number | undefined) => value === undefined ? "" : short(value);
  const percent = (share: number | undefined) => share === undefined ? "" : `${(share * 100).toFixed(0)} %`;
  const mark = figure.loadBound ? " load-bound" : figure.disturbed ? " disturbed" : "";
  return [
    `  ${figure.server}`,
    amount(figure.median, figure.unit),
    `${amount(figure.min, figure.unit)} – ${amount(figure.max, figure.unit)}`,
    ...[optional(figure.overGo), optional(figure.overC)],
    ...[optional(figure.p50), optional(figure.p99), optional(figure.p99OverGo)],
    optional(figure.cpu),
    percent(figure.busy),
    percent(figure.load) + mark,
  ];
}

/** Lays rows out in columns: those at the indices `left` begin at the left, the others end at the right. */
export function columns(rows: string[][], left: number[]): string[] {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((cells) => cells[i].length)));
  return rows.map((cells) => {
    const padded = cells.map((cell, i) => left.includes(i) ? cell.padEnd(widths[i]) : cell.padStart(widths[i]));
    return padded.join("  ").trimEnd();
  });
}

/** The one table: a heading per case, a row per server. */
export function table(report: Report): string {
  const [head, ...rows] = columns([HEADS, ...report.figures.map(row)], [0, HEADS.length - 1]);
  const lines = [head];
  report.figures.forEach((figure, i) => {
    if (figure.case !== report.figures[i - 1]?.case) {
      lines.push("", `${figure.case}: ${figure.title}${figure.unit === "×" ? "" : `, ${figure.unit}`}`);
    }
    lines.push(rows[i]);
  });
  for (const failure of report.failures) {
    lines.push("", `failed: ${failure.case}, ${failure.server}: ${failure.message}`);
  }
  return lines.join("\n");
}
