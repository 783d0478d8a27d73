// `deno task stress`: runs the tests again and again on a busy machine, and lists every test that failed at least once.

import { Progress } from "../progress.ts";
import { Load } from "./load.ts";
import { type Failure, runSuite, type Selection } from "./suite.ts";
import { parseCount, runTool, UsageError } from "../usage.ts";

const USAGE = `Usage: deno task stress [options] [files]

Runs the test suite several times beside two processes that compute without a pause and one
that starts children, one after the other. A test that fails once fails the whole.

  files          run only these test files or folders (default: what deno task test runs)
  --runs N       how many runs, from 1 to 1000 (default 5)
  --filter TEXT  run only tests with this text, or /regular expression/, in their names
  --help         show this

Exit codes: 0, all runs passed; 1, a test failed at least once; 2, wrong options.`;

interface Options extends Selection {
  readonly runs: number;
}

function parseOptions(args: readonly string[]): Options {
  const [files, words]: [string[], string[]] = [
    [],
    args.flatMap((arg) => /^(--\w+)=(.*)$/s.exec(arg)?.slice(1) ?? arg),
  ];
  let [runs, filter]: [number, string | undefined] = [5, undefined];
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    if (word === "--runs") runs = parseCount(word, words.shift() ?? "", 1, 1000);
    else if (word === "--filter") filter = parseFilter(words.shift());
    else if (word.startsWith("-")) throw new UsageError(`Unknown option "${word}"; --help lists what there is`);
    else files.push(parseFile(word));
  }
  return { runs, filter, files };
}

function parseFilter(value = ""): string {
  if (value !== "") return value;
  throw new UsageError('--filter wants a part of a test\'s name, not ""');
}

function parseFile(path: string): string {
  try {
    Deno.statSync(path);
    return path;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new UsageError(`Cannot run "${path}": there is no such file`);
  }
}

/** Runs the tests, and prints each failure when its run has ended. */
async function stress({ runs, ...selection }: Options, signal: AbortSignal): Promise<number> {
  await using _load = new Load();
  using progress = new Progress({ total: runs });
  const failedIn = new Map<string, number[]>();
  for (let run = 1; run <= runs; run++) {
    const start = performance.now();
    progress.show(`run ${run} of ${runs}`);
    const failures = await runSuite(selection, signal);
    if (signal.aborted) return 130;
    const seconds = Math.round((performance.now() - start) / 1000);
    const found = failures.length === 0 ? "green" : `${failures.length} red`;
    progress.step(`run ${run} of ${runs}: ${found}, ${seconds} s`, console.log);
    for (const failure of failures) {
      progress.print(describe(failure), console.log);
      failedIn.set(failure.name, [...failedIn.get(failure.name) ?? [], run]);
    }
  }
  progress.print(summary(failedIn, runs), console.log);
  return failedIn.size > 0 ? 1 : 0;
}

function describe({ name, message }: Failure): string {
  return `  red: ${name}\n${message.replace(/^/gm, "    ")}`;
}

function summary(failedIn: ReadonlyMap<string, readonly number[]>, runs: number): string {
  if (failedIn.size === 0) return `All tests were green in all runs (${runs})`;
  const rows = [...failedIn].map(([name, which]) =>
    `  ${name}: red in ${which.length} of ${runs} runs (${which.join(", ")})`
  );
  return `Tests that were red at least once (${failedIn.size}):\n${rows.join("\n")}`;
}

if (import.meta.main) {
  await runTool("stress", USAGE, async (args) => {
    const options = parseOptions(args);
    const interrupted = new AbortController();
    // Without a handler, a signal would end this process, and leave the load running.
    for (const name of ["SIGINT", ...(Deno.build.os === "windows" ? [] : ["SIGTERM"] as const)] as const) {
      Deno.addSignalListener(name, () => interrupted.abort());
    }
    Deno.exit(await stress(options, interrupted.signal));
  });
}
