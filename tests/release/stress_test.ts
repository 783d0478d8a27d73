import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Load } from "../../tools/stress/load.ts";
import { failures, SUITE } from "../../tools/stress/suite.ts";
import project from "../../deno.json" with { type: "json" };
import { test } from "../kit/bounded.ts";
import { NO_SIGNALS } from "../kit/command.ts";

const TOOL = `${import.meta.dirname}/../../tools/stress/main.ts`;

async function stress(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", TOOL, ...args],
    env: { NO_COLOR: "1" },
  }).output();
  return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
}

test("stress fails and names a test that is red in one of its runs", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const flaky = `${folder}/flaky_test.ts`;
    // The test fails in the first run only, which leaves a file behind.
    await Deno.writeTextFile(
      flaky,
      `Deno.test("always green", () => {});
       Deno.test("green but once", () => Deno.mkdirSync(${JSON.stringify(`${folder}/ran`)}, { recursive: false }));`,
    );
    await Deno.mkdir(`${folder}/ran`);
    const first = await stress("--runs", "1", flaky);
    assertEquals(first.code, 1, first.stderr);
    assertMatch(first.stdout, /run 1 of 1: 1 red.*\n +red: green but once \(.*flaky_test\.ts\)\n +AlreadyExists/);
    assertMatch(
      first.stdout,
      /Tests that were red at least once \(1\):\n +green but once .*: red in 1 of 1 runs \(1\)/,
    );
    await Deno.remove(`${folder}/ran`);
    const both = await stress("--runs=2", flaky);
    assertMatch(both.stdout, /green but once .*: red in 1 of 2 runs \(2\)/);
    const { code, stdout } = await stress("--runs", "1", "--filter", "always", flaky);
    assertEquals([code, stdout.split("\n").at(-2)], [0, "All tests were green in all runs (1)"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}, 120);

test("stress runs what deno task test runs", () => {
  const { jobs, flags, ignore } = SUITE;
  assertEquals(project.tasks.test.command, `DENO_JOBS=${jobs} deno test ${[...flags, ignore].join(" ")}`);
});

test("stress refuses what it does not know, with what is allowed", async () => {
  const cases: [args: string[], error: string][] = [
    [["--runs", "0"], 'stress: --runs wants a whole number from 1 to 1000, not "0"\n'],
    [["--runs"], 'stress: --runs wants a whole number from 1 to 1000, not ""\n'],
    [["--filter", ""], 'stress: --filter wants a part of a test\'s name, not ""\n'],
    [["--rnus", "3"], 'stress: Unknown option "--rnus"; --help lists what there is\n'],
    [["no_test.ts"], 'stress: Cannot run "no_test.ts": there is no such file\n'],
  ];
  const outcomes = await Promise.all(cases.map(([args]) => stress(...args)));
  assertEquals(outcomes.map(({ code, stderr }) => [code, stderr]), cases.map(([, error]) => [2, error]));
  assertStringIncludes((await stress("--help")).stdout, "--runs N");
}, 60);

test("stress finds failures in and outside of tests in the test runner's output", () => {
  const report = `<testsuites><testsuite>
    <testcase name="good" classname="./a_test.ts" time="0.1">
    </testcase>
    <testcase name="is &quot;x&quot; &lt; y" classname="./a_test.ts" time="0.1">
      <failure message="why">Error: a &amp; b
    at x</failure>
    </testcase></testsuite></testsuites>`;
  assertEquals(failures(report, "./b_test.ts (uncaught error)\nx\n./b_test.ts (uncaught error)\n"), [
    { name: 'is "x" < y (a_test.ts)', message: "Error: a & b\n    at x" },
    { name: "(outside of a test) (b_test.ts)", message: "an uncaught error" },
  ]);
  const [red, ...others] = failures("", "TS2322 [ERROR]: wrong\n");
  assertEquals([red, others], [{ name: "(outside of a test)", message: "TS2322 [ERROR]: wrong" }, []]);
});

test(
  "the load of stress is three processes, which end with it",
  async () => {
    const load = new Load();
    const isThere = (pid: number) => {
      try {
        // Signal 0 would do, but Deno has no name for it.
        Deno.kill(pid, "SIGCONT");
        return true;
      } catch {
        return false;
      }
    };
    assertEquals(load.pids.map(isThere), [true, true, true]);
    await load[Symbol.asyncDispose]();
    assertEquals(load.pids.map(isThere), [false, false, false]);
  },
  60,
  NO_SIGNALS,
);
