/**
 * Writes the results as text.
 *
 * @module
 */

import type { Experience } from "./good.ts";
import type { Slowness } from "./pulse.ts";
import type { Footprint } from "./victim.ts";

/** What the clients saw in one run. */
export interface Round {
  /** Good clients of the server under stress. */
  readonly good: Experience;
  /** Good clients of the second server, which has no bad ones, at the same time on the same machine. */
  readonly bystanders: Experience;
}

/** All results. */
export interface Findings {
  readonly quiet: Round[];
  /** Each follows the quiet run of the same index. */
  readonly riots: Round[];
  readonly slowness: Slowness;
  /** How often each kind of bad client ran, riot by riot. */
  readonly times: Record<string, number>[];
  readonly footprints: Record<"cold" | "before" | "peak" | "after", Footprint>;
}

/** Formats the results. */
export function report({ quiet, riots, slowness, times, footprints }: Findings): string {
  const of = (group: keyof Round, rounds: Round[]) => rounds.map((round) => round[group]);
  const rise = (group: keyof Round) => riseOf(of(group, quiet), of(group, riots), slowness);
  const any = quiet.some(({ bystanders }) => bystanders.replies.length > 0);
  return [
    table([
      ["medians of the rounds", "replies", "lost", "p50 ms", "p99 ms", "p99 at speed"],
      ["good clients, quiet", ...describe(of("good", quiet), slowness)],
      ["good clients, riot", ...describe(of("good", riots), slowness)],
      ...any ? [["bystanders, quiet", ...describe(of("bystanders", quiet), slowness)]] : [],
      ...any ? [["bystanders, riot", ...describe(of("bystanders", riots), slowness)]] : [],
    ]),
    `p99 in a riot, divided by that of the quiet run before it: ${rise("good")}; aim: 3 at most`,
    ...any ? [`bystanders, at the server without bad clients: ${rise("bystanders")}`] : [],
    `at speed: without the ${(100 * slowness.share).toFixed(1)} % of the time in which the machine itself was slow\n`,
    table([["bad clients", "times"], ...Object.keys(times[0]).map((kind) => [kind, `${sum(times, (t) => t[kind])}`])]),
    "The server, before and after a first riot, in the others, and after them:",
    table([["", "MiB", "descriptors"], ...Object.entries(footprints).map(row)]),
  ].join("\n");
}

function describe(rounds: Experience[], slowness: Slowness): string[] {
  const latency = (of: (round: Experience) => number) => median(rounds.map(of)).toFixed(2);
  return [
    `${sum(rounds, ({ replies }) => replies.length)}`,
    `${sum(rounds, ({ losses }) => losses.length)}`,
    latency((round) => quantile(latencies(round), 0.5)),
    latency(p99),
    latency((round) => p99(atSpeed(round, slowness))),
  ];
}

/** The p99 of each riot, divided by that of the quiet run before it. */
function riseOf(quiet: Experience[], riots: Experience[], slowness: Slowness): string {
  const all = riots.map((round, i) => p99(round) / p99(quiet[i]));
  const some = riots.map((round, i) => p99(atSpeed(round, slowness)) / p99(atSpeed(quiet[i], slowness)));
  const [middle, worst, rest] = [median(all), Math.max(...all), median(some)].map((times) => times.toFixed(1));
  return `${middle} times (worst round: ${worst}; at speed: ${rest})`;
}

function atSpeed({ replies, losses }: Experience, { spans }: Slowness): Experience {
  const overlaps = (from: number, to: number) => spans.some((span) => from < span.to && to > span.from);
  return { replies: replies.filter(({ at, took }) => !overlaps(at, at + took)), losses };
}

function latencies({ replies }: Experience): number[] {
  return replies.map(({ took }) => took);
}

function p99(round: Experience): number {
  return quantile(latencies(round), 0.99);
}

function median(values: number[]): number {
  return quantile(values, 0.5);
}

/** The value below which `part` of the values lie. */
function quantile(values: number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? NaN;
}

function sum<T>(values: T[], count: (value: T) => number): number {
  return values.reduce((sum, value) => sum + count(value), 0);
}

function row([name, { bytes, descriptors }]: [string, Footprint]): string[] {
  return [name, (bytes / 2 ** 20).toFixed(0), `${descriptors}`];
}

function table(rows: string[][]): string {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const lines = rows.map((row) =>
    row.map((cell, i) => i > 0 ? cell.padStart(widths[i]) : cell.padEnd(widths[i])).join("  ")
  );
  return lines.join("\n") + "\n";
}
