// `deno task fuzz`: runs random cases until the time is up, and shrinks the first that fails.

import { anyBytes, anyCut, cutInput, feed } from "./bytes.ts";
import { anyOutgoing, anyScenario, anyUpgrade, toJson } from "./scenario/scenario.ts";
import { play } from "./world.ts";
import { Progress } from "../progress.ts";
import { parseCount, runTool, UsageError } from "../usage.ts";
import { fc } from "../../tests/kit/property.ts";

const USAGE = `Usage: deno task fuzz [options]

  --seed S     seed of the first random cases (default: a different one in each run)
  --time T     how long, such as 30s or 10m (default 1m)
  --only KIND  only cases of this kind: bytes, lines, connections, upgrades or outgoing
  --help       show this`;

const KINDS = ["bytes", "lines", "connections", "upgrades", "outgoing"] as const;
type Kind = typeof KINDS[number];

/** Number of seeds. */
const SEEDS = 2 ** 31;

interface Options {
  seed: number;
  seconds: number;
  kinds: readonly Kind[];
}

/** Number of cases of each kind per seed; small, so that the kinds alternate. */
const ROUND: Readonly<Record<Kind, number>> = {
  bytes: 10_000,
  lines: 10_000,
  connections: 1000,
  upgrades: 1000,
  outgoing: 1000,
};

function parseOptions(args: string[]): Options {
  const options: Options = { seed: Date.now() % SEEDS, seconds: 60, kinds: KINDS };
  for (let i = 0; i < args.length; i += 2) {
    const [name, value = ""] = [args[i], args[i + 1]];
    if (name === "--seed") options.seed = parseCount(name, value, 0, SEEDS - 1);
    else if (name === "--time") options.seconds = parseTime(value);
    else if (name === "--only") options.kinds = [parseKind(value)];
    else throw new UsageError(`Unknown option "${name}"; --help lists what there is`);
  }
  return options;
}

function parseTime(value: string): number {
  const [, number, unit] = /^(\d+)(s|m|h)$/.exec(value) ?? [];
  if (Number(number) > 0) return Number(number) * { s: 1, m: 60, h: 3600 }[unit as "s" | "m" | "h"];
  throw new UsageError(`--time wants a time such as 30s or 10m, not "${value}"`);
}

function parseKind(value: string): Kind {
  const kind = KINDS.find((kind) => kind === value);
  if (kind !== undefined) return kind;
  throw new UsageError(`--only wants ${KINDS.join(", ")}, not "${value}"`);
}

const SCENARIOS = { connections: anyScenario, upgrades: anyUpgrade, outgoing: anyOutgoing };

/** Runs random cases of one kind. */
async function check(kind: Kind, parameters: { seed: number; numRuns: number }) {
  if (kind === "bytes") return await fc.check(fc.property(anyBytes, feed), parameters);
  if (kind === "lines") return await fc.check(fc.property(anyCut, cutInput), parameters);
  return await fc.check(fc.asyncProperty(SCENARIOS[kind], play), parameters);
}

/** Runs one round; returns the text of its failure, if there is one. */
async function playRound(kind: Kind, seed: number): Promise<string | undefined> {
  const parameters = { seed, numRuns: ROUND[kind] };
  const details = await check(kind, parameters);
  if (!details.failed) return undefined;
  const { counterexample, errorInstance, numShrinks } = details;
  const found = kind in SCENARIOS ? toJson((counterexample as [never])[0]) : fc.stringify(counterexample);
  const why = errorInstance instanceof Error ? errorInstance.stack : String(errorInstance);
  return `seed ${seed}, ${kind}, shrunk ${numShrinks} times:\n${found}\n${why}`;
}

async function fuzz({ seed, seconds, kinds }: Options): Promise<number> {
  console.log(`seed ${seed}`);
  const counts: Record<Kind, number> = { bytes: 0, lines: 0, connections: 0, upgrades: 0, outgoing: 0 };
  const [start, until] = [performance.now(), performance.now() + 1000 * seconds];
  // The cases leave a timer no time to draw: each round does.
  using progress = new Progress({ total: seconds });
  for (let round = 0; performance.now() < until; round++) {
    const cases = Object.values(counts).reduce((sum, count) => sum + count);
    progress.show(`${cases} cases`, Math.min(seconds, Math.floor((performance.now() - start) / 1000)));
    const kind = kinds[round % kinds.length];
    const failure = await playRound(kind, (seed + Math.floor(round / kinds.length)) % SEEDS);
    if (failure !== undefined) {
      progress.print(failure);
      return 1;
    }
    counts[kind] += ROUND[kind];
  }
  const { bytes, lines, connections, upgrades, outgoing } = counts;
  const whole = `${connections} of whole connections, ${upgrades} that begin TLS, ${outgoing} that this side opens`;
  progress.print(`${bytes} cases of bytes, ${lines} of lines, ${whole}: all went well`, console.log);
  return 0;
}

if (import.meta.main) await runTool("fuzz", USAGE, (args) => fuzz(parseOptions(args)));
