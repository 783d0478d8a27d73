// `deno task chaos`: 500 bad clients beside 50 good ones, which must lose no reply and may only get it later.

import { riot } from "./crowd.ts";
import { Progress } from "../progress.ts";
import { talk } from "./good.ts";
import { Pulse } from "./pulse.ts";
import { type Findings, report, type Round } from "./report.ts";
import { type Footprint, Victim } from "./victim.ts";
import { parseCount, runTool, UsageError } from "../usage.ts";

const USAGE = `Usage: deno task chaos [options]

  --rounds N   number of rounds, each a quiet run and a riot (default 5); a first riot does not count
  --seconds N  how long a riot lasts (default 10); a quiet run takes half of that
  --good N     good clients (default 50)
  --bad N      bad clients, of twelve kinds (default 500)
  --bystanders N
               good clients of a second server without bad ones (default 0): their delays come
               from the machine, whose time they take themselves, too
  --help       show this`;

/** Maximum time in seconds after a riot until memory and descriptors are as before. */
const RECOVERY_SECONDS = 10;

/** Maximum memory and descriptors more than before the riots that do not count as a leak. */
const LEFT_BYTES = 64 * 2 ** 20;
const LEFT_DESCRIPTORS = 5;

interface Options {
  rounds: number;
  seconds: number;
  good: number;
  bad: number;
  bystanders: number;
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

/** Records the server's largest memory and number of descriptors, until it is stopped. */
function watchPeak(victim: Victim): { peak: Footprint; stop(): void } {
  const peak = { bytes: 0, descriptors: 0 };
  const timer = setInterval(async () => {
    const now = await victim.footprint();
    peak.bytes = Math.max(peak.bytes, now.bytes);
    peak.descriptors = Math.max(peak.descriptors, now.descriptors);
  }, 2000);
  return { peak, stop: () => clearInterval(timer) };
}

/** Waits until the server's memory and descriptors are as before, for {@linkcode RECOVERY_SECONDS} at most. */
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

async function chaos(options: Options): Promise<number> {
  await using victim = await Victim.start();
  await using spared = await Victim.start();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, () => {
      Promise.all([victim, spared].map((server) => server[Symbol.asyncDispose]())).finally(() => Deno.exit(130));
    });
  }
  const findings = await run(options, victim, spared);
  console.log(report(findings));
  const rounds = [...findings.quiet, ...findings.riots];
  const losses = rounds.flatMap(({ good, bystanders }) => [...good.losses, ...bystanders.losses]);
  for (const loss of losses) console.error(`lost: ${loss}`);
  const recovered = isBack(findings.footprints.after, findings.footprints.before);
  if (!recovered) console.error("Memory or descriptors have not come back");
  return losses.length > 0 || !recovered ? 1 : 0;
}

/** Runs all rounds. `victim` is the server with bad clients, `spared` the one of the bystanders. */
async function run(options: Options, victim: Victim, spared: Victim): Promise<Findings> {
  const { rounds, seconds, good, bad, bystanders } = options;
  const watch = async (seconds: number): Promise<Round> => {
    const talks = [talk(victim.port, good, seconds), talk(spared.port, bystanders, seconds)];
    const [here, there] = await Promise.all(talks);
    return { good: here, bystanders: there };
  };
  const half = Math.ceil(seconds / 2);
  using progress = new Progress({ total: rounds });
  progress.show("a riot that does not count");
  // A first run and riot do not count: code is compiled, and the runtime grows buffers that it keeps for later ones.
  await watch(1);
  const cold = await victim.footprint();
  await riot(victim.port, bad, half);
  const before = await recover(victim, cold);
  const [quiet, riots, times]: [Round[], Round[], Record<string, number>[]] = [[], [], []];
  const { peak, stop } = watchPeak(victim);
  const pulse = new Pulse();
  for (let round = 1; round <= rounds; round++) {
    progress.show(`round ${round} of ${rounds}: quiet`);
    quiet.push(await watch(half));
    progress.show(`round ${round} of ${rounds}: riot`);
    const [seen, came] = await Promise.all([watch(seconds), riot(victim.port, bad, seconds)]);
    riots.push(seen);
    times.push(came);
    progress.step(
      `round ${round} of ${rounds}: ${[seen.good, seen.bystanders].flatMap(({ losses }) => losses).length} lost`,
    );
  }
  progress.show("until memory and descriptors are as before");
  stop();
  const slowness = await pulse.stop();
  return { quiet, riots, slowness, times, footprints: { cold, before, peak, after: await recover(victim, before) } };
}

if (import.meta.main) {
  await runTool("chaos", USAGE, async (args) => {
    if (Deno.build.os === "linux") return await chaos(parseOptions(args));
    throw new UsageError("What a process takes is read from /proc, which needs Linux");
  });
}
