import { assertAlmostEquals, assertEquals, assertGreater, assertMatch, assertThrows } from "@std/assert";
import { againstTable, reading } from "../../../bench/against.ts";
import { AGAINST, ALL_CASES, ALL_SERVERS, isOwn, QUICK, takesPart } from "../../../bench/cases/all.ts";
import { allocatedBytes } from "../../../bench/cases/garbage.ts";
import { formatHistory, type HistoryRow, parseHistory, rowOf, withRow } from "../../../bench/report/history.ts";
import { Lab } from "../../../bench/servers/lab.ts";
import { parseOptions } from "../../../bench/options.ts";
import { UsageError } from "../../../tools/usage.ts";
import { isThere, versionOf } from "../../../bench/servers/process.ts";
import { fit, kernelBytes } from "../../../bench/programs/quiet.ts";
import { columns, figuresOf, type Report } from "../../../bench/report/report.ts";
import { chanceOf, compare, median } from "../../../bench/report/statistics.ts";
import { test } from "../../kit/bounded.ts";

const HISTORY = `${import.meta.dirname}/../../../bench/history.jsonl`;
const MISSING = await missing();

/** Why the load generator cannot be tested here; empty if it can. */
async function missing(): Promise<string> {
  if (Deno.build.os !== "linux") return " (skipped: the load generator needs Linux)";
  const there = await versionOf(["cc", "--version"]) !== null && await isThere("/usr/include/openssl/ssl.h");
  return there ? "" : " (skipped: it needs cc and the headers of OpenSSL)";
}

function report(figures: Partial<Report["figures"][number]>[]): Report {
  const figure = {
    ...{ case: "single", title: "one line", server: "shouty", unit: "lines/s", samples: [] },
    ...{ median: 2, min: 1, max: 3, loadBound: false, disturbed: false },
  };
  return {
    ...{ date: "2026-01-02T03:04:05.678Z", machine: "a machine", pinned: true, rounds: 5, seconds: 2 },
    ...{ versions: { shouty: "deno 2" }, figures: figures.map((other) => ({ ...figure, ...other })), failures: [] },
  };
}

test("The bench refuses options that it does not know, or that do not go together, and says what is allowed", () => {
  const cases: [args: string[], error: RegExp][] = [
    [["--rounds", "0"], /^--rounds wants a number from 1 to 1000, not "0"$/],
    [["--rounds"], /^--rounds wants a value$/],
    [["--qiuck"], /^Unknown option "--qiuck"; --help lists what there is$/],
    [["--case", "single,sinlge"], /^--case has no "sinlge", only single, /],
    [["--against", "HEAD", "--case", "riot"], /^--case with --against has no "riot", only single, /],
    [["--peer", "rust"], /^--peer has no "rust", only shouty, /],
    [["--quick", "--record"], /^--record goes not together with --quick/],
    [["--against", "HEAD", "--record"], /^--record goes not together with --against$/],
    [["--against", "HEAD", "--pairs", "5"], /^--pairs wants a number from 6 to 1000, not "5"$/],
    [["--tolerance", "10"], /^--tolerance goes only with --against$/],
  ];
  for (const [args, error] of cases) {
    assertMatch(assertThrows(() => parseOptions(args), UsageError).message, error);
  }
});

test("The bench measures everything, or what is named, or less of it in a hurry", () => {
  const names = (items: { name: string }[]) => items.map(({ name }) => name);
  const all = parseOptions([]);
  assertEquals([all.cases, all.servers, all.rounds, all.seconds], [ALL_CASES, ALL_SERVERS, 5, 2]);
  assertEquals(names(parseOptions(["--case", "churn,single"]).cases), ["single", "churn"]);
  const quick = parseOptions(["--quick"]);
  assertEquals(
    [names(quick.cases).sort(), names(quick.servers).sort()],
    [QUICK.cases, QUICK.servers].map((x) => x.toSorted()),
  );
  assertEquals([quick.rounds, quick.seconds], [1, 0.5]);
  const named = parseOptions(["--quick", "--case", "long"]);
  assertEquals([names(named.cases), named.servers], [["long"], ALL_SERVERS]);
  const against = parseOptions(["--against", "HEAD~1", "--tolerance", "15"]);
  assertEquals([against.against, against.tolerance, against.pairs], ["HEAD~1", 0.15, 15]);
  assertEquals(
    [names(against.cases).sort(), names(against.servers).sort()],
    [AGAINST.cases, AGAINST.servers].map((x) => x.toSorted()),
  );
  assertEquals(parseOptions(["--against", "HEAD", "--case", "long"]).servers, ALL_SERVERS.filter(isOwn));
});

test("Every case of the bench has a server that is shouty; Go, C, Node.js, Bun and what is by hand are peers", () => {
  for (const item of ALL_CASES) {
    const own = ALL_SERVERS.filter((spec) => isOwn(spec) && takesPart(item, spec));
    assertGreater(own.length, 0, item.name);
  }
  const peers = ALL_SERVERS.filter((spec) => !isOwn(spec)).map(({ name }) =>
    name.split("-").at(-1)!.replace(/\d$/, "")
  );
  assertEquals(new Set(peers), new Set(["go", "c", "node", "bun", "naive", "raw"]));
});

test("The median of readings is their middle, or the mean of the two in the middle", () => {
  assertEquals([median([3, 1, 2]), median([4, 1, 3, 2]), median([7])], [2, 2.5, 7]);
});

test("Pairs have a verdict only if they agree more than chance would have it", () => {
  assertAlmostEquals(chanceOf(12, 15), 0.0176, 1e-4);
  assertEquals([chanceOf(0, 9), chanceOf(6, 6)], [1, 1 / 64]);
  const pairs = (...groups: [count: number, ratio: number][]) =>
    groups.flatMap(([count, ratio]) => Array<number>(count).fill(ratio));
  const verdict = (ratios: number[]) => compare(ratios, 0.03).verdict;
  assertEquals(verdict(pairs([12, 1.05], [3, 0.97])), "slower");
  assertEquals(verdict(pairs([11, 1.05], [4, 0.97])), "unclear");
  assertEquals(verdict(pairs([13, 0.9], [2, 1.5])), "faster");
  assertEquals(verdict(pairs([15, 1.02])), "same");
  assertEquals(verdict(pairs([5, 0.8], [5, 1], [5, 1.2])), "unclear");
  assertEquals(verdict(pairs([5, 2])), "unclear");
  assertEquals(compare([2, 1, 4], 0.03), { median: 2, min: 1, max: 4, verdict: "unclear" });
});

test("--against compares processor time, and bytes where the case counts them", () => {
  assertEquals(reading({ unit: "lines/s" }, { value: 100_000, cpu: 7000 }), { value: 7000, unit: "ns" });
  assertEquals(reading({ unit: "bytes" }, { value: 900, cpu: 1 }), { value: 900, unit: "bytes" });
});

test("--against prints a row per case and server, with a verdict or with why there is none", () => {
  const plan = { revision: "v1", cases: [], servers: [], pairs: 15, seconds: 1, idle: 1, tolerance: 0.03 };
  const comparison = { median: 1.5, min: 1.25, max: 2, verdict: "slower" as const };
  const lines = againstTable(plan, [
    { case: "single", server: "shouty", unit: "ns", old: 5000.4, new: 7500, comparison },
    { case: "garbage-conn", server: "deno", unit: "bytes", old: 1024, new: 1536, comparison },
    { case: "tls-single", server: "tls", unit: "ns", missing: "no such flag" },
  ]).split("\n");
  assertMatch(lines[0], /^Against v1: .*15 alternating pairs/);
  assertMatch(lines[1], /more than 3 %/);
  assertMatch(lines[4], /^single +shouty +5000 ns +7500 ns +1\.500 +1\.25 – 2\.00 +slower$/);
  assertMatch(lines[5], /^garbage-conn +deno +1\.00 KiB +1\.50 KiB +1\.500 /);
  assertMatch(lines[6], /^tls-single +tls +failed: no such flag$/);
});

test("A row of the history has the medians of one release and machine, and says which are doubtful", () => {
  const row = rowOf(
    report([{ cpu: 7123.456, p99: 1 }, { server: "go", loadBound: true }, { case: "churn" }]),
    "1.2.3",
    "abc+",
  );
  assertEquals(row.figures, {
    single: {
      shouty: { median: 2, min: 1, max: 3, p99: 1, cpu: 7123 },
      go: { median: 2, min: 1, max: 3, doubtful: true },
    },
    churn: { shouty: { median: 2, min: 1, max: 3 } },
  });
  assertEquals(parseHistory(formatHistory([row, row])), [row, row]);
});

test("The history replaces the figures of the same release and machine, and keeps the cases that were not measured", () => {
  const [first, again] = [rowOf(report([{}, { case: "churn" }]), "1", "a"), rowOf(report([{ median: 3 }]), "1", "b")];
  const others = [{ ...first, release: "0" }, { ...first, machine: "another" }];
  const rows = withRow(withRow(others, first), again);
  assertEquals(rows.slice(0, 2), others);
  assertEquals([rows.length, rows[2].commit, rows[2].figures.single.shouty.median], [3, "b", 3]);
  assertEquals(rows[2].figures.churn, first.figures.churn);
});

test("The history tells which line is no row, and what is wrong with it", () => {
  const row: HistoryRow = rowOf(report([{}]), "1", "a");
  const wrong: [row: unknown, error: RegExp][] = [
    [null, /line 2: no object/],
    [{ ...row, machine: "" }, /line 2: machine is no text/],
    [{ ...row, rounds: "many" }, /line 2: rounds is no number above 0/],
    [{ ...row, versions: { go: 1 } }, /line 2: a version is no text/],
    [{ ...row, figures: {} }, /line 2: there are no figures/],
    [{ ...row, figures: { single: { go: { median: 5, min: 1, max: 3 } } } }, /line 2: a median is not between/],
  ];
  for (const [bad, error] of wrong) {
    const text = `${JSON.stringify(row)}\n${JSON.stringify(bad)}\n`;
    assertMatch(assertThrows(() => parseHistory(text), SyntaxError).message, error);
  }
});

test("bench/history.jsonl has rows of that shape, one per release and machine", async () => {
  const rows = await isThere(HISTORY) ? parseHistory(await Deno.readTextFile(HISTORY)) : [];
  const keys = rows.map(({ release, machine }) => `${release} on ${machine}`);
  assertEquals(new Set(keys).size, keys.length);
});

test("What was allocated is what each heap has grown by between collections", () => {
  const collection = (isolate: string, before: number, after: number) =>
    `[7:0x${isolate}]      148 ms: Scavenge ${before} (9.0) -> ${after} (9.0) MB, pooled: 0.0 MB, 4.09 / 0.00 ms\n`;
  const first = collection("a", 5, 4);
  assertEquals(allocatedBytes(first), 0);
  assertEquals(
    allocatedBytes(`${first}a line of the server\n${collection("a", 6, 4.5)}${collection("b", 50, 40)}`),
    2 * 2 ** 20,
  );
  // The last line is still being written.
  assertEquals(allocatedBytes(first + collection("a", 6, 4.5) + collection("a", 9, 1).trimEnd()), 2 * 2 ** 20);
  assertEquals(allocatedBytes(first + collection("a", 6, 4).replace("Scavenge", "Mark-Compact (reduce)")), 2 * 2 ** 20);
});

test("Figures are compared with the Go and the C of their case", () => {
  const samples = (entries: [server: string, value: number][]) =>
    new Map(entries.map(([server, value]) => [server, [{ value, p99: 2 * value }]]));
  const single = ALL_CASES.find(({ name }) => name === "tls-single")!;
  const [tls] = figuresOf(single, samples([["tls", 30], ["tls-go", 60]]));
  assertEquals([tls.overGo, tls.overC, tls.p99OverGo], [0.5, undefined, 0.5]);
  assertEquals(figuresOf(single, samples([["deno", 3], ["c", 4]]))[0].overC, 0.75);
});

test("Columns are as wide as their widest cell, with words at the left and numbers at the right", () => {
  assertEquals(columns([["name", "n"], ["a", "100"]], [0]), ["name    n", "a     100"]);
});

test("What fits into memory is extrapolated from the memory of each connection", () => {
  assertEquals(fit(1000, { base: 100, each: 9, kernel: 1 }), { process: 100, all: 90 });
  assertEquals(kernelBytes("MemFree: 9 kB\nSlab:    2 kB\nPercpu: 1 kB\nPageTables:  3 kB\n"), 6 * 1024);
});

test(
  "The load generator gets right answers on each way to a server that the bench knows",
  async () => {
    const lab = await Lab.open();
    try {
      for (const name of ["shouty", "unix-deno", "tls", "tls-proxy", "tls-unix-deno", "tls-client", "starttls"]) {
        const spec = ALL_SERVERS.find((spec) => spec.name === name)!;
        assertEquals(await lab.prepare(spec), null, name);
        const server = await lab.start(spec, false);
        const held = await lab.hold(server, 3); // each connection has had its line answered by then
        await held.release();
        await server.stop();
      }
    } finally {
      await lab.close();
    }
  },
  120,
  MISSING,
);
