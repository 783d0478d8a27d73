// `deno task chaos`: 500 bad clients beside 50 good ones, who must not notice more than that it is busy.

import { riot } from "./chaos/crowd.ts";
import { talk } from "./chaos/good.ts";
import { Pulse } from "./chaos/pulse.ts";
import { report, type Round } from "./chaos/report.ts";
import { type Footprint, Victim } from "./chaos/victim.ts";

const USAGE = `Usage: deno task chaos [options]

  --rounds N   quiet runs and riots in turn (default 5), after a first riot that does not count
  --seconds N  how long a riot lasts (default 10); a quiet run takes half of that
  --good N     good clients (default 50)
  --bad N      bad clients, of twelve kinds (default 500)
  --bystanders N
               good clients of another server, which nobody attacks: what they notice is the
               machine's doing, of which they take a share themselves (default 0)
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
  bystanders: number;
}

class UsageError extends Error {
  override name = "UsageError";
}

function parseOptions(args: string[]): Options {
  const options: Options = { rounds: 5, seconds: 10, good: 50, bad: 500, bystanders: 0 };
  for (let i = 0; i < args.length; i += 2) {
    const [name, value = ""] = [args[i], args[i + 1]];
    if (name === "--rounds") options.rounds = parseCount(name, value, 1, 100);
    else if (name === "--seconds") options.seconds = parseCount(name, value, 2, 3600);
    else if (name === "--good") options.good = parseCount(name, value, 1, 1000);
    else if (name === "--bad") options.bad = parseCount(name, value, 1, 2000);
    else if (name === "--bystanders") options.bystanders = parseCount(name, value, 0, 1000);
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

async function chaos({ rounds, seconds, good, bad, bystanders }: Options): Promise<number> {
  await using victim = await Victim.start();
  await using spared = await Victim.start();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, () => {
      Promise.all([victim, spared].map((server) => server[Symbol.asyncDispose]())).finally(() => Deno.exit(130));
    });
  }
  const watch = async (seconds: number): Promise<Round> => {
    const talks = [talk(victim.port, good, seconds), talk(spared.port, bystanders, seconds)];
    const [here, there] = await Promise.all(talks);
    return { good: here, bystanders: there };
  };
  const half = Math.ceil(seconds / 2);
  // What is compiled and grown in a first moment is no part of any run, and what the runtime keeps of a first riot for
  // the next is no leak; what others add to it would be.
  await watch(1);
  const cold = await victim.footprint();
  await riot(victim.port, bad, half);
  const before = await recover(victim, cold);
  const [quiet, riots, times]: [Round[], Round[], Record<string, number>[]] = [[], [], []];
  const { peak, stop } = watchPeak(victim);
  const pulse = new Pulse();
  for (let round = 0; round < rounds; round++) {
    quiet.push(await watch(half));
    const [seen, came] = await Promise.all([watch(seconds), riot(victim.port, bad, seconds)]);
    riots.push(seen);
    times.push(came);
  }
  stop();
  const slowness = await pulse.stop();
  const after = await recover(victim, before);
  console.log(report({ quiet, riots, slowness, times, footprints: { cold, before, peak, after } }));
  const losses = [...quiet, ...riots].flatMap(({ good, bystanders }) => [...good.losses, ...bystanders.losses]);
  for (const loss of losses) console.error(`lost: ${loss}`);
  if (!isBack(after, before)) console.error("Memory or descriptors have not come back");
  return losses.length > 0 || !isBack(after, before) ? 1 : 0;
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
