// The options of `deno task bench`.

import { AGAINST, ALL_CASES, ALL_SERVERS, isOwn, QUICK } from "./cases/all.ts";
import type { Case } from "./cases/cases.ts";
import { UsageError } from "../tools/usage.ts";
import type { ServerSpec } from "./servers/servers.ts";

/** What `--help` prints. */
export const USAGE: string = `Usage: deno task bench [options]

  --rounds N      alternating rounds (default 5)
  --seconds N     length of one run (default 2)
  --case A,B      only these cases: ${ALL_CASES.map((test) => test.name).join(", ")}
  --peer A,B      only these servers: ${ALL_SERVERS.map((spec) => spec.name).join(", ")}
  --quick         one round of short runs, of fewer cases and servers, in two minutes: no figures to publish
  --json FILE     write every figure and sample
  --plot FILE     draw the medians as an SVG
  --record        write the medians into bench/history.jsonl, as those of this release and machine
  --against REV   compare with the code of another revision, by processor time and bytes
  --pairs N       with --against: alternating pairs of runs (default 15)
  --tolerance N   with --against: the change in percent that matters (default 3)
  --help          show this`;

/** What to measure, and what to do with it. */
export interface Options {
  rounds: number;
  seconds: number;
  cases: Case[];
  servers: ServerSpec[];
  quick: boolean;
  record: boolean;
  json?: string;
  plot?: string;
  against?: string;
  pairs: number;
  /** A share, such as 0.03. */
  tolerance: number;
}

function parseNumber(name: string, value: string, least: number, most: number): number {
  const number = /^\d+(\.\d+)?$/.test(value) ? Number(value) : NaN;
  if (number >= least && number <= most) return number;
  throw new UsageError(`${name} wants a number from ${least} to ${most}, not "${value}"`);
}

function pick<T extends { name: string }>(option: string, value: string, known: T[]): T[] {
  const names = value.split(",");
  const unknown = names.find((name) => !known.some((item) => item.name === name));
  if (unknown === undefined) return known.filter((item) => names.includes(item.name));
  throw new UsageError(`${option} has no "${unknown}", only ${known.map((item) => item.name).join(", ")}`);
}

const SWITCHES = ["--quick", "--record"];
const VALUES = ["--rounds", "--seconds", "--case", "--peer", "--json", "--plot", "--against", "--pairs", "--tolerance"];

/** The values of the options that are given, by name; those of switches are empty. */
function readArgs(args: string[]): Map<string, string> {
  const given = new Map<string, string>();
  for (let i = 0; i < args.length; i++) {
    const name = args[i];
    if (SWITCHES.includes(name)) given.set(name, "");
    else if (!VALUES.includes(name)) throw new UsageError(`Unknown option "${name}"; --help lists what there is`);
    else if (!args[i + 1]) throw new UsageError(`${name} wants a value`);
    else given.set(name, args[++i]);
  }
  return given;
}

/** Refuses options that do not go together. */
function checkTogether(given: Map<string, string>): void {
  const other = given.has("--against") ? ["--rounds", "--quick", "--record", "--plot"] : ["--pairs", "--tolerance"];
  const wrong = other.find((name) => given.has(name));
  if (wrong !== undefined) {
    throw new UsageError(`${wrong} goes ${given.has("--against") ? "not together" : "only"} with --against`);
  }
  if (given.has("--quick") && given.has("--record")) {
    throw new UsageError("--record goes not together with --quick, whose figures are too rough to keep");
  }
}

/** The cases that can be measured. A case that is a ratio is not compared: whether more of it is better depends on the case. */
function casesFor(given: Map<string, string>): Case[] {
  return given.has("--against") ? ALL_CASES.filter(({ unit }) => unit !== "×") : ALL_CASES;
}

/** The cases and servers to measure if none are named. A caller that names cases wants them from all servers. */
function defaults(given: Map<string, string>): Pick<Options, "cases" | "servers"> {
  const all = given.has("--against") ? ALL_SERVERS.filter(isOwn) : ALL_SERVERS;
  const short = given.has("--against") ? AGAINST : given.has("--quick") ? QUICK : undefined;
  const named = <T extends { name: string }>(known: T[], names: string[]) =>
    known.filter(({ name }) => names.includes(name));
  return {
    cases: short === undefined || given.has("--peer") ? casesFor(given) : named(ALL_CASES, short.cases),
    servers: short === undefined || given.has("--case") ? all : named(all, short.servers),
  };
}

/**
 * Reads the command line.
 *
 * @throws {UsageError} If it is wrong.
 */
export function parseOptions(args: string[]): Options {
  const given = readArgs(args);
  checkTogether(given);
  const number = (name: string, least: number, most: number, fallback: number) =>
    given.has(name) ? parseNumber(name, given.get(name)!, least, most) : fallback;
  const text = (name: string) => given.has(name) ? { [name.slice(2)]: given.get(name)! } : {};
  const { cases, servers } = defaults(given);
  const quick = given.has("--quick");
  const caseOption = given.has("--against") ? "--case with --against" : "--case";
  return {
    rounds: Math.trunc(number("--rounds", 1, 1000, quick ? 1 : 5)),
    seconds: number("--seconds", 0.1, 600, quick ? 0.5 : given.has("--against") ? 1 : 2),
    cases: given.has("--case") ? pick(caseOption, given.get("--case")!, casesFor(given)) : cases,
    servers: given.has("--peer") ? pick("--peer", given.get("--peer")!, ALL_SERVERS) : servers,
    ...{ quick, record: given.has("--record"), ...text("--json"), ...text("--plot"), ...text("--against") },
    pairs: Math.trunc(number("--pairs", 6, 1000, 15)),
    tolerance: number("--tolerance", 0.1, 100, 3) / 100,
  };
}
