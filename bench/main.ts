// `deno task bench`: shouty against its peers, in alternating rounds, on this machine.

import { type Case, CASES, type Sample, type Setting } from "./cases.ts";
import { Lab, maxFiles, versionOf } from "./lab.ts";
import { plot } from "./plot.ts";
import { Progress } from "../tools/progress.ts";
import { amount, type Failure, figuresOf, type Report, table } from "./report.ts";
import { SERVERS, type ServerSpec } from "./servers.ts";

const USAGE = `Usage: deno task bench [options]

  --rounds N      alternating rounds (default 5)
  --seconds N     length of one run (default 2)
  --case A,B      only these cases: ${CASES.map((test) => test.name).join(", ")}
  --peer A,B      only these servers: ${SERVERS.map((spec) => spec.name).join(", ")}
  --json FILE     write every figure and sample
  --plot FILE     draw the medians as an SVG
  --help          show this`;

interface Options {
  rounds: number;
  seconds: number;
  cases: Case[];
  servers: ServerSpec[];
  json?: string;
  plot?: string;
}

class UsageError extends Error {
  override name = "UsageError";
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

function parseOptions(args: string[]): Options {
  const options: Options = { rounds: 5, seconds: 2, cases: CASES, servers: SERVERS };
  for (let i = 0; i < args.length; i += 2) {
    const [name, value] = [args[i], args[i + 1]];
    if (!["--rounds", "--seconds", "--case", "--peer", "--json", "--plot"].includes(name)) {
      throw new UsageError(`Unknown option "${name}"; --help lists what there is`);
    }
    if (!value) throw new UsageError(`${name} wants a value`);
    if (name === "--rounds") options.rounds = Math.trunc(parseNumber(name, value, 1, 1000));
    else if (name === "--seconds") options.seconds = parseNumber(name, value, 0.1, 600);
    else if (name === "--case") options.cases = pick(name, value, CASES);
    else if (name === "--peer") options.servers = pick(name, value, SERVERS);
    else if (name === "--json") options.json = value;
    else options.plot = value;
  }
  return options;
}

/** Builds the servers; prints which cannot take part, and why. */
async function prepare(lab: Lab, servers: ServerSpec[]): Promise<ServerSpec[]> {
  const ready: ServerSpec[] = [];
  for (const spec of servers) {
    const missing = await lab.prepare(spec);
    if (missing === null) ready.push(spec);
    else console.error(`without ${spec.name} (${spec.title}): ${missing}`);
  }
  return ready;
}

function roundsOf(test: Case, options: Options): number {
  return Math.min(options.rounds, test.rounds ?? Infinity);
}

function takesPart(test: Case, spec: ServerSpec): boolean {
  return test.protocol === spec.protocol && test.allCores === spec.allCores &&
    (test.servers?.includes(spec.name) ?? true);
}

/** Runs all rounds. The first server changes from round to round, because the first place may be faster or slower. */
async function measure(setting: Setting, options: Options, servers: ServerSpec[]) {
  const failures: Failure[] = [];
  const samples = new Map(options.cases.map((test) => {
    const names = servers.filter((spec) => takesPart(test, spec)).map((spec) => spec.name);
    return [test, new Map(names.map((name) => [name, [] as Sample[]]))];
  }));
  const total = [...samples].reduce((sum, [test, bySpec]) => sum + roundsOf(test, options) * bySpec.size, 0);
  using progress = new Progress({ total });
  for (let round = 0; round < options.rounds; round++) {
    const order = servers.map((_, i) => servers[(i + round) % servers.length]);
    for (const test of options.cases.filter((test) => round < roundsOf(test, options))) {
      for (const spec of order.filter((spec) => takesPart(test, spec))) {
        const label = `round ${round + 1}/${roundsOf(test, options)}  ${test.name} ${spec.name}`;
        progress.show(label);
        try {
          const sample = await test.measure(setting, spec);
          samples.get(test)!.get(spec.name)!.push(sample);
          const unit = test.unit === "bytes" ? "" : ` ${test.unit}`;
          progress.step(`${label}: ${amount(sample.value, test.unit)}${unit}`);
        } catch (error) {
          const message = error instanceof Error ? error.message : String(error);
          failures.push({ case: test.name, server: spec.name, message });
          progress.step(`${label}: failed: ${message}`);
        }
      }
    }
  }
  return { samples, failures };
}

async function describeMachine(): Promise<string> {
  const cpu = (await Deno.readTextFile("/proc/cpuinfo")).match(/^model name\s*:\s*(.*)$/m)?.[1] ?? Deno.build.arch;
  return `${cpu}, ${navigator.hardwareConcurrency} cores, Linux ${Deno.osRelease()}`;
}

async function bench(lab: Lab, options: Options): Promise<Report> {
  const servers = await prepare(lab, options.servers);
  const versions: Record<string, string> = {};
  for (const spec of servers) versions[spec.name] = await versionOf(spec.tool) ?? "";
  if (!lab.cores) console.error("not pinned: without two cores and taskset, server and load share what there is");
  // Both ends of every connection need a descriptor, each in its own process; a few more are taken already.
  const idle = Math.min(10_000, await maxFiles() - 200);
  if (idle < 10_000) console.error(`${idle} idle connections instead of 10 000: raise "ulimit -n"`);
  const { samples, failures } = await measure({ lab, seconds: options.seconds, idle }, options, servers);
  const figures = options.cases.flatMap((test) => {
    const measured = new Map([...samples.get(test)!].filter(([_, list]) => list.length > 0));
    return figuresOf(test, measured);
  });
  return {
    date: new Date().toISOString(),
    machine: await describeMachine(),
    pinned: lab.cores !== null,
    rounds: options.rounds,
    seconds: options.seconds,
    versions,
    figures,
    failures,
  };
}

async function main(args: string[]): Promise<number> {
  if (args.includes("--help")) {
    console.log(USAGE);
    return 0;
  }
  const options = parseOptions(args);
  if (Deno.build.os !== "linux") throw new UsageError("The load generator needs Linux (epoll)");
  // The servers run with their default flags: the caller's environment variables must not change them.
  for (const name of Object.keys(Deno.env.toObject())) if (name.startsWith("SHOUTY_")) Deno.env.delete(name);
  const lab = await Lab.open();
  const interrupt = () => void lab.close().finally(() => Deno.exit(130));
  Deno.addSignalListener("SIGINT", interrupt);
  Deno.addSignalListener("SIGTERM", interrupt);
  try {
    const report = await bench(lab, options);
    console.log(`${report.machine}; ${report.rounds} rounds of ${report.seconds} s`);
    for (const [name, version] of Object.entries(report.versions)) console.log(`  ${name}: ${version}`);
    console.log(`\n${table(report)}`);
    if (options.json) await Deno.writeTextFile(options.json, JSON.stringify(report, null, 2) + "\n");
    if (options.plot) await Deno.writeTextFile(options.plot, plot(report));
    return report.failures.length > 0 ? 1 : 0;
  } finally {
    Deno.removeSignalListener("SIGINT", interrupt);
    Deno.removeSignalListener("SIGTERM", interrupt);
    await lab.close();
  }
}

if (import.meta.main) {
  try {
    Deno.exitCode = await main(Deno.args);
  } catch (error) {
    console.error(`bench: ${error instanceof Error ? error.message : error}`);
    Deno.exitCode = error instanceof UsageError ? 2 : 1;
  }
}
