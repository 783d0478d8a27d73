// `deno task bench --against REV`: whether this code is slower than that of another revision.

import { takesPart } from "./cases/all.ts";
import type { Case, Sample, Setting } from "./cases/cases.ts";
import { Lab } from "./servers/lab.ts";
import { atInterrupt, isThere, output, ROOT } from "./servers/process.ts";
import { amount, columns } from "./report/report.ts";
import type { ServerSpec } from "./servers/servers.ts";
import { compare, type Comparison, median } from "./report/statistics.ts";

/** Maximum number of pairs for a case that takes long: the fewest that still have a verdict if one of them disagrees. */
const LONG_PAIRS = 9;

/** What to compare, and how. */
export interface Plan {
  revision: string;
  cases: Case[];
  servers: ServerSpec[];
  pairs: number;
  seconds: number;
  idle: number;
  /** The change that matters, such as 0.03. */
  tolerance: number;
}

/** The outcome for one server in one case. */
export interface Outcome {
  case: string;
  server: string;
  /** What was compared: processor time for one line or connection in nanoseconds, or the case's own bytes or ratio. */
  unit: "ns" | "bytes" | "×";
  /** Medians of the readings; absent with `missing`. */
  old?: number;
  new?: number;
  comparison?: Comparison;
  /** Why there is no comparison. */
  missing?: string;
}

/** The other revision's files, in a folder of their own. */
interface Checkout extends AsyncDisposable {
  readonly root: string;
}

/**
 * Checks a revision out into a temporary clone, with this revision's `bench/` in it: so both run the same servers, each
 * with its own library. What `deno task setup` has put into `vendor/` serves both; where JSR can be reached, Deno fills
 * that of the clone.
 */
async function checkOut(revision: string): Promise<Checkout> {
  const commit = (await output(["git", "rev-parse", "--verify", "--end-of-options", `${revision}^{commit}`])).trim();
  const folder = await Deno.makeTempDir({ prefix: "shouty-against-" });
  const root = `${folder}/shouty/`;
  const remove = () => Deno.remove(folder, { recursive: true });
  const forget = atInterrupt(remove);
  try {
    await output(["git", "clone", "--quiet", "--shared", "--no-checkout", ROOT, root]);
    await output(["git", "-C", root, "checkout", "--quiet", "--detach", commit]);
    await output(["rm", "-rf", `${root}bench`]);
    await output(["cp", "-r", `${ROOT}bench`, `${root}bench`]);
    if (await isThere(`${ROOT}vendor`)) await Deno.symlink(`${ROOT}vendor`, `${root}vendor`);
  } catch (error) {
    await remove();
    throw error;
  }
  return { root, [Symbol.asyncDispose]: () => (forget(), remove()) };
}

/** What of a sample is compared: processor time, which varies less than the rate, or else the value. */
export function reading(test: Pick<Case, "unit">, sample: Sample): { value: number; unit: Outcome["unit"] } {
  if (test.unit === "bytes" || test.unit === "×") return { value: sample.value, unit: test.unit };
  return { value: sample.cpu!, unit: "ns" };
}

/** Runs the pairs of one server in one case; the first of a pair is the old code and the new one in turn. */
async function comparePairs(plan: Plan, labs: { old: Lab; new: Lab }, test: Case, spec: ServerSpec): Promise<Outcome> {
  const taken: { old: number[]; new: number[] } = { old: [], new: [] };
  let unit: Outcome["unit"] = "ns";
  const pairs = test.rounds === undefined ? plan.pairs : Math.min(plan.pairs, LONG_PAIRS);
  try {
    for (let pair = 0; pair < pairs; pair++) {
      for (const side of pair % 2 === 0 ? ["old", "new"] as const : ["new", "old"] as const) {
        const setting: Setting = { lab: labs[side], seconds: plan.seconds, idle: plan.idle, tries: 1 };
        const read = reading(test, await test.measure(setting, spec));
        taken[side].push(read.value);
        unit = read.unit;
      }
    }
  } catch (error) {
    return { case: test.name, server: spec.name, unit, missing: error instanceof Error ? error.message : `${error}` };
  } finally {
    await Promise.all([labs.old.stopAll(), labs.new.stopAll()]);
  }
  const comparison = compare(taken.new.map((value, i) => value / taken.old[i]), plan.tolerance);
  return { case: test.name, server: spec.name, unit, old: median(taken.old), new: median(taken.new), comparison };
}

/** Compares; calls `told` with each outcome as it comes. */
export async function against(plan: Plan, told: (outcome: Outcome) => void): Promise<Outcome[]> {
  await using checkout = await checkOut(plan.revision);
  const labs = { new: await Lab.open(), old: await Lab.open(checkout.root) };
  const outcomes: Outcome[] = [];
  try {
    for (const test of plan.cases) {
      for (const spec of plan.servers.filter((spec) => takesPart(test, spec))) {
        const missing = await labs.new.prepare(spec) ?? await labs.old.prepare(spec);
        const outcome = missing === null
          ? await comparePairs(plan, labs, test, spec)
          : { case: test.name, server: spec.name, unit: "ns" as const, missing };
        outcomes.push(outcome);
        told(outcome);
      }
    }
  } finally {
    await Promise.all([labs.new.close(), labs.old.close()]);
  }
  return outcomes;
}

const HEADS = ["case", "server", "old", "new", "new ÷ old", "min – max", "verdict"];

/** One outcome as the cells of a row. */
function cells({ case: test, server, unit, old, new: now, comparison, missing }: Outcome): string[] {
  if (comparison === undefined) return [test, server, "", "", "", "", `failed: ${missing}`];
  const shown = (value: number) => unit === "ns" ? `${value.toFixed(0)} ns` : amount(value, unit);
  const { median, min, max, verdict } = comparison;
  const range = `${min.toFixed(2)} – ${max.toFixed(2)}`;
  return [test, server, shown(old!), shown(now!), median.toFixed(3), range, verdict];
}

/** The table of all outcomes, and a sentence on how to read it. */
export function againstTable({ revision, pairs, tolerance }: Plan, outcomes: Outcome[]): string {
  const rows = columns([HEADS, ...outcomes.map(cells)], [0, 1, 6]);
  const percent = (tolerance * 100).toFixed(0);
  return [
    `Against ${revision}: processor time for one line or connection, or bytes; medians of ${pairs} alternating pairs.`,
    `slower, faster: a change of more than ${percent} %, on which the pairs agree more than chance would have it.`,
    "",
    ...rows,
  ].join("\n");
}
