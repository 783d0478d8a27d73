// `deno task chaos`: 500 bad clients beside 50 good ones, who must not notice more than that it is busy.

import { riot } from "./chaos/crowd.ts";
import { type Experience, quantile, talk } from "./chaos/good.ts";
import { type Footprint, Victim } from "./chaos/victim.ts";

const USAGE = `Usage: deno task chaos [options]

  --rounds N   quiet runs and riots in turn (default 5), after a first riot that does not count
  --seconds N  how long a riot lasts (default 10); a quiet run takes half of that
  --good N     good clients (default 50)
  --bad N      bad clients, of twelve kinds (default 500)
  --help       show this`;

/** After the worst is over, so long at most until memory and descriptors are back. */
const RECOVERY_SECONDS = 10;

/** How much more than before is still about as much as before. */
const LEFT_BYTES = 64 * 2 ** 20;
const LEFT_DESCRIPTORS = 5;

interface Options {
  rounds: number;
  seconds: number;
  good: number;
  bad: number;
}

class UsageError extends Error {
  override name = "UsageError";
}

function parseOptions(args: string[]): Options {
  const options: Options = { rounds: 5, seconds: 10, good: 50, bad: 500 };
  for (let i = 0; i < args.length; i += 2) {
    const [name, value = ""] = [args[i], args[i + 1]];
    if (name === "--rounds") options.rounds = parseCount(name, value, 1, 100);
    else if (name === "--seconds") options.seconds = parseCount(name, value, 2, 3600);
    else if (name === "--good") options.good = parseCount(name, value, 1, 1000);
    else if (name === "--bad") options.bad = parseCount(name, value, 1, 2000);
    else throw new UsageError(`Unknown option "${name}"; --help lists what there is`);
  }
  return options;
}

function parseCount(name: string, value: string, least: number, most: number): number {
  if (/^\d+$/.test(value) && Number(value) >= least && Number(value) <= most) return Number(value);
  throw new UsageError(`${name} wants a whole number from ${least} to ${most}, not "${value}"`);
}

/** Notes the most that the server takes, until it is stopped. */
function watchPeak(victim: Victim): { peak: Footprint; stop(): void } {
  const peak = { bytes: 0, descriptors: 0 };
  const timer = setInterval(async () => {
    const now = await victim.footprint();
    peak.bytes = Math.max(peak.bytes, now.bytes);
    peak.descriptors = Math.max(peak.descriptors, now.descriptors);
  }, 2000);
  return { peak, stop: () => clearInterval(timer) };
}

/** Waits until the server is about what it was, but not for ever. */
async function recover(victim: Victim, before: Footprint): Promise<Footprint> {
  let now = await victim.footprint();
  for (let left = 2 * RECOVERY_SECONDS; left > 0 && !isBack(now, before); left--) {
    await new Promise((resolve) => setTimeout(resolve, 500));
    now = await victim.footprint();
  }
  return now;
}

function isBack(now: Footprint, before: Footprint): boolean {
  return now.bytes <= before.bytes + LEFT_BYTES && now.descriptors <= before.descriptors + LEFT_DESCRIPTORS;
}

async function chaos({ rounds, seconds, good, bad }: Options): Promise<number> {
  await using victim = await Victim.start();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, () => void victim[Symbol.asyncDispose]().finally(() => Deno.exit(130)));
  }
  const half = Math.ceil(seconds / 2);
  // What is compiled and grown in a first moment is no part of any run, and what the runtime keeps of a first riot for
  // the next is no leak; what others add to it would be.
  await talk(victim.port, good, 1);
  const cold = await victim.footprint();
  await riot(victim.port, bad, half);
  const before = await recover(victim, cold);
  const findings: Findings = { quiet: [], busy: [], times: [], cold, before, peak: before, after: before };
  const { peak, stop } = watchPeak(victim);
  for (let round = 0; round < rounds; round++) {
    findings.quiet.push(await talk(victim.port, good, half));
    const [busy, times] = await Promise.all([talk(victim.port, good, seconds), riot(victim.port, bad, seconds)]);
    findings.busy.push(busy);
    findings.times.push(times);
  }
  stop();
  const after = await recover(victim, before);
  print({ ...findings, peak, after });
  const losses = [...findings.quiet, ...findings.busy].flatMap(({ losses }) => losses);
  for (const loss of losses) console.error(`lost: ${loss}`);
  if (!isBack(after, before)) console.error("Memory or descriptors have not come back");
  return losses.length > 0 || !isBack(after, before) ? 1 : 0;
}

interface Findings {
  quiet: Experience[];
  busy: Experience[];
  times: Record<string, number>[];
  cold: Footprint;
  before: Footprint;
  peak: Footprint;
  after: Footprint;
}

function print({ quiet, busy, times, cold, before, peak, after }: Findings): void {
  console.log(table([
    ["good clients, medians of the rounds", "replies", "lost", "p50 ms", "p99 ms"],
    ["quiet", ...describe(quiet)],
    ["chaos", ...describe(busy)],
  ]));
  const ratios = busy.map(({ latencies }, i) => quantile(latencies, 0.99) / quantile(quiet[i].latencies, 0.99)).sort(
    byValue,
  );
  const [median, worst] = [quantile(ratios, 0.5), ratios.at(-1)!].map((ratio) => ratio.toFixed(1));
  console.log(`p99 is ${median} times that of the quiet run before it (worst round: ${worst}; aim: 3 at most)\n`);
  const kinds = Object.keys(times[0]).map((kind) => [kind, `${times.reduce((sum, round) => sum + round[kind], 0)}`]);
  console.log(table([["bad clients", "times"], ...kinds]));
  const row = (name: string, { bytes, descriptors }: Footprint) => [
    name,
    (bytes / 2 ** 20).toFixed(0),
    `${descriptors}`,
  ];
  console.log("The server, before and after a first riot, in the others, and after them:");
  console.log(
    table([
      ["", "MiB", "descriptors"],
      row("cold", cold),
      row("before", before),
      row("peak", peak),
      row("after", after),
    ]),
  );
}

function byValue(a: number, b: number): number {
  return a - b;
}

function describe(rounds: Experience[]): string[] {
  const sum = (count: (round: Experience) => number) => `${rounds.reduce((sum, round) => sum + count(round), 0)}`;
  const [p50, p99] = [0.5, 0.99].map((part) =>
    quantile(rounds.map(({ latencies }) => quantile(latencies, part)).sort(byValue), 0.5).toFixed(2)
  );
  return [sum(({ latencies }) => latencies.length), sum(({ losses }) => losses.length), p50, p99];
}

function table(rows: string[][]): string {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const lines = rows.map((row) =>
    row.map((cell, i) => i > 0 ? cell.padStart(widths[i]) : cell.padEnd(widths[i])).join("  ")
  );
  return lines.join("\n") + "\n";
}

if (import.meta.main) {
  try {
    if (Deno.args.includes("--help")) console.log(USAGE);
    else if (Deno.build.os !== "linux") {
      throw new UsageError("What a process takes is read from /proc, which needs Linux");
    } else Deno.exitCode = await chaos(parseOptions(Deno.args));
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(`chaos: ${error.message}`);
    Deno.exitCode = 2;
  }
}
