/**
 * One run of the test suite, and which tests failed in it.
 *
 * @module
 */

/** Maximum time of one run in milliseconds; the suite takes four to six minutes on two busy cores. */
const LIMIT_MS = 20 * 60_000;

/** The suite, as `deno task test` runs it. */
export const SUITE = {
  jobs: "4",
  flags: ["--allow-all", "--parallel", "--doc", "--sanitize-ops", "--sanitize-resources"],
  ignore: "--ignore=tests/release",
} as const;

/** The name of a failure that happened outside of any test. */
const NO_TEST = "(outside of a test)";

/** A failure in one run. */
export interface Failure {
  /** The test's name, and behind it the file that it is in. */
  readonly name: string;
  /** The test runner's message. */
  readonly message: string;
}

/** Which tests to run. */
export interface Selection {
  /** Text that a test's name contains, or a regular expression between slashes, as `deno test --filter` takes it. */
  readonly filter: string | undefined;
  /** Files to run in place of the whole suite. */
  readonly files: readonly string[];
}

/**
 * Runs the suite once.
 *
 * @param selection The tests to run.
 * @param signal Ends the run when it aborts.
 * @returns The failures; empty if the suite passed.
 */
export async function runSuite({ filter, files }: Selection, signal: AbortSignal): Promise<Failure[]> {
  const report = await Deno.makeTempFile({ prefix: "shouty_stress_", suffix: ".xml" });
  const limit = AbortSignal.timeout(LIMIT_MS);
  try {
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        ...["test", ...SUITE.flags, `--junit-path=${report}`, ...(filter === undefined ? [] : [`--filter=${filter}`])],
        ...(files.length === 0 ? [SUITE.ignore] : files),
      ],
      env: { NO_COLOR: "1", DENO_JOBS: SUITE.jobs },
      stdin: "null",
      signal: AbortSignal.any([signal, limit]),
    }).output();
    if (limit.aborted) return [{ name: NO_TEST, message: `the run did not end within ${LIMIT_MS / 60_000} minutes` }];
    const output = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes)).join("");
    return code === 0 ? [] : failures(await Deno.readTextFile(report), output);
  } finally {
    await Deno.remove(report);
  }
}

/**
 * Finds the failures of a run that failed.
 *
 * @param report The test runner's report, in JUnit's form; it is empty if the types were wrong.
 * @param output The test runner's output, which alone has the errors outside of a test.
 * @returns At least one failure.
 */
export function failures(report: string, output: string): Failure[] {
  const found: Failure[] = [];
  for (const [, attributes, body] of report.matchAll(/<testcase ([^>]*)>([\s\S]*?)<\/testcase>/g)) {
    const failure = /<failure message="[^"]*">([\s\S]*?)<\/failure>/.exec(body);
    if (failure === null) continue;
    const [, name = "", file = ""] = /name="([^"]*)" classname="([^"]*)"/.exec(attributes) ?? [];
    found.push({ name: unescape(`${name} (${file.replace(/^\.\//, "")})`), message: unescape(failure[1]).trim() });
  }
  const broken = new Set(Array.from(output.matchAll(/^(\S+) \(uncaught error\)$/gm), ([, file]) => file));
  for (const file of broken) {
    found.push({ name: `${NO_TEST} (${file.replace(/^\.\//, "")})`, message: "an uncaught error" });
  }
  return found.length > 0 ? found : [{ name: NO_TEST, message: output.trim().split("\n").slice(-10).join("\n") }];
}

const ENTITIES: Readonly<Record<string, string>> = { quot: '"', apos: "'", lt: "<", gt: ">", amp: "&" };

function unescape(text: string): string {
  return text.replace(/&(\w+);/g, (entity, name) => ENTITIES[name] ?? entity);
}
