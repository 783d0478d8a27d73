// `deno task bench`: shouty against its peers, in alternating rounds, on this machine.

import { against, againstTable, type Plan } from "./against.ts";
import { takesPart } from "./cases/all.ts";
import type { Case, Sample, Setting } from "./cases/cases.ts";
import { formatHistory, parseHistory, rowOf, withRow } from "./report/history.ts";
import { Lab } from "./servers/lab.ts";
import { type Options, parseOptions, USAGE } from "./options.ts";
import { plot } from "./report/plot.ts";
import { interruptible, isThere, maxFiles, output, ROOT, versionOf } from "./servers/process.ts";
import { Progress } from "../tools/progress.ts";
import { UsageError } from "../tools/usage.ts";
import { amount, type Failure, figuresOf, type Report, table } from "./report/report.ts";
import type { ServerSpec } from "./servers/servers.ts";

const HISTORY = `${ROOT}bench/history.jsonl`;

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

/** How many connections "10 000" are here: both ends need a descriptor, each in its own process. */
async function idleConnections(options: Options): Promise<number> {
  const wanted = options.quick ? 1000 : 10_000;
  const idle = Math.min(wanted, await maxFiles() - 200); // a few descriptors are taken already
  if (idle < wanted) console.error(`${idle} idle connections instead of ${wanted}: raise "ulimit -n"`);
  return idle;
}

async function bench(lab: Lab, options: Options): Promise<Report> {
  const wanted = options.servers.filter((spec) => options.cases.some((test) => takesPart(test, spec)));
  const servers = await prepare(lab, wanted);
  const versions: Record<string, string> = {};
  for (const spec of servers) versions[spec.name] = await versionOf(spec.tool) ?? "";
  if (!lab.cores) console.error("not pinned: without two cores and taskset, server and load share what there is");
  const { seconds, rounds, quick } = options;
  const setting = { lab, seconds, idle: await idleConnections(options), tries: quick ? 1 : 3 };
  const { samples, failures } = await measure(setting, options, servers);
  const figures = options.cases.flatMap((test) => {
    const measured = new Map([...samples.get(test)!].filter(([_, list]) => list.length > 0));
    return figuresOf(test, measured);
  });
  const date = new Date().toISOString();
  return {
    date,
    machine: await describeMachine(),
    pinned: lab.cores !== null,
    rounds,
    seconds,
    versions,
    figures,
    failures,
  };
}

/** Writes the report's medians into the history. */
async function record(report: Report): Promise<void> {
  const { version } = JSON.parse(await Deno.readTextFile(`${ROOT}deno.json`));
  const changed = await output(["git", "status", "--porcelain", "--untracked-files=no"]) !== "";
  const commit = (await output(["git", "rev-parse", "HEAD"])).trim() + (changed ? "+" : "");
  const rows = await isThere(HISTORY) ? parseHistory(await Deno.readTextFile(HISTORY)) : [];
  await Deno.writeTextFile(HISTORY, formatHistory(withRow(rows, rowOf(report, version, commit))));
}

async function benchAll(options: Options): Promise<number> {
  const lab = await Lab.open();
  try {
    const report = await bench(lab, options);
    console.log(`${report.machine}; ${report.rounds} rounds of ${report.seconds} s`);
    for (const [name, version] of Object.entries(report.versions)) console.log(`  ${name}: ${version}`);
    console.log(`\n${table(report)}`);
    if (options.json) await Deno.writeTextFile(options.json, JSON.stringify(report, null, 2) + "\n");
    if (options.plot) await Deno.writeTextFile(options.plot, plot(report));
    if (options.record) await record(report);
    return report.failures.length > 0 ? 1 : 0;
  } finally {
    await lab.close();
  }
}

async function benchAgainst(revision: string, options: Options): Promise<number> {
  const plan: Plan = { ...options, revision, idle: await idleConnections(options) };
  const outcomes = await against(plan, (outcome) => {
    const { case: test, server, comparison, missing } = outcome;
    console.error(`${test} ${server}: ${comparison?.verdict ?? `failed: ${missing}`}`);
  });
  console.log(againstTable(plan, outcomes));
  if (options.json) await Deno.writeTextFile(options.json, JSON.stringify(outcomes, null, 2) + "\n");
  return outcomes.some(({ comparison }) => comparison?.verdict === "slower") ? 1 : 0;
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
  const { against: revision } = options;
  return await interruptible(() => revision === undefined ? benchAll(options) : benchAgainst(revision, options));
}

if (import.meta.main) {
  try {
    Deno.exitCode = await main(Deno.args);
  } catch (error) {
    console.error(`bench: ${error instanceof Error ? error.message : error}`);
    Deno.exitCode = error instanceof UsageError ? 2 : 1;
  }
}
