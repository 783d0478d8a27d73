// `deno task chaos`: 500 bad clients beside 50 good ones, who must not notice more than that it is busy.

import type { CrowdOrder } from "./chaos/crowd.ts";
import { type Experience, quantile, talk } from "./chaos/good.ts";
import { type Footprint, Victim } from "./chaos/victim.ts";

const USAGE = `Usage: deno task chaos [options]

  --seconds N  how long it lasts (default 20); a quiet run and a first riot before it take half of that each
  --good N     good clients (default 50)
  --bad N      bad clients, of twelve kinds (default 500)
  --help       show this`;

/** After the worst is over, so long at most until memory and descriptors are back. */
const RECOVERY_SECONDS = 10;

/** How much more than before is still about as much as before. */
const LEFT_BYTES = 64 * 2 ** 20;
const LEFT_DESCRIPTORS = 5;

interface Options {
  seconds: number;
  good: number;
  bad: number;
}

class UsageError extends Error {
  override name = "UsageError";
}

function parseOptions(args: string[]): Options {
  const options: Options = { seconds: 20, good: 50, bad: 500 };
  for (let i = 0; i < args.length; i += 2) {
    const [name, value = ""] = [args[i], args[i + 1]];
    if (name === "--seconds") options.seconds = parseCount(name, value, 2, 3600);
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

/** Lets the crowd loose; resolves to how often each kind came. */
async function riot(order: CrowdOrder): Promise<Record<string, number>> {
  const worker = new Worker(new URL("./chaos/crowd.ts", import.meta.url), { type: "module" });
  const { promise, resolve, reject } = Promise.withResolvers<Record<string, number>>();
  worker.onmessage = ({ data }) => resolve(data);
  worker.onerror = (event) => (event.preventDefault(), reject(new Error(`The crowd: ${event.message}`)));
  worker.postMessage(order);
  try {
    return await promise;
  } finally {
    worker.terminate();
  }
}

/** Notes the most that the server takes, until it is stopped. */
function watchPeak(victim: Victim): { peak: Footprint; stop(): void } {
  const peak = { bytes: 0, descriptors: 0 };
  const timer = setInterval(async () => {
    const now = await victim.footprint();
    peak.bytes = Math.max(peak.bytes, now.bytes);
    peak.descriptors = Math.max(peak.descriptors, now.descriptors);
  }, 250);
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

async function chaos({ seconds, good, bad }: Options): Promise<number> {
  await using victim = await Victim.start();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, () => void victim[Symbol.asyncDispose]().finally(() => Deno.exit(130)));
  }
  // What is compiled and grown in a first moment is no part of either run.
  await talk(victim.port, good, 1);
  const quiet = await talk(victim.port, good, Math.ceil(seconds / 2));
  const cold = await victim.footprint();
  // What the runtime keeps of a first riot for the next is no leak; what a second one adds to it would be.
  const half = Math.ceil(seconds / 2);
  await riot({ port: victim.port, count: bad, seconds: half });
  const before = await recover(victim, cold);
  const { peak, stop } = watchPeak(victim);
  const [busy, times] = await Promise.all([
    talk(victim.port, good, seconds),
    riot({ port: victim.port, count: bad, seconds }),
  ]).finally(stop);
  const after = await recover(victim, before);
  print({ quiet, busy, times, cold, before, peak, after });
  const losses = [...quiet.losses, ...busy.losses];
  for (const loss of losses) console.error(`lost: ${loss}`);
  if (!isBack(after, before)) console.error("Memory or descriptors have not come back");
  return losses.length > 0 || !isBack(after, before) ? 1 : 0;
}

interface Findings {
  quiet: Experience;
  busy: Experience;
  times: Record<string, number>;
  cold: Footprint;
  before: Footprint;
  peak: Footprint;
  after: Footprint;
}

function print({ quiet, busy, times, cold, before, peak, after }: Findings): void {
  const ratio = quantile(busy.latencies, 0.99) / quantile(quiet.latencies, 0.99);
  console.log(table([
    ["good clients", "replies", "lost", "p50 ms", "p99 ms"],
    ["quiet", ...describe(quiet)],
    ["chaos", ...describe(busy)],
  ]));
  console.log(`p99 is ${ratio.toFixed(1)} times that of the quiet run (aim: 3 at most)\n`);
  console.log(table([["bad clients", "times"], ...Object.entries(times).map(([kind, count]) => [kind, `${count}`])]));
  const row = (
    name: string,
    { bytes, descriptors }: Footprint,
  ) => [name, (bytes / 2 ** 20).toFixed(0), `${descriptors}`];
  console.log("The server, before and after a first riot, in the second one, and after it:");
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

function describe({ latencies, losses }: Experience): string[] {
  const [p50, p99] = [0.5, 0.99].map((part) => quantile(latencies, part).toFixed(2));
  return [`${latencies.length}`, `${losses.length}`, p50, p99];
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
