import { assertArrayIncludes, assertEquals, assertGreater, assertMatch } from "@std/assert";
import { INSTRUMENTS } from "../../ops/metrics/instruments.ts";
import { test } from "../kit/bounded.ts";
import { ask, flagsOf, makeFolder, PROJECT, shipped } from "../kit/project/deploy.ts";
import { missingPackage, missingProgram } from "../kit/foreign/foreign.ts";
import { load } from "../kit/foreign/npm.ts";
import { unknownIn, usesOf } from "../kit/figures/promql.ts";

const YAML = await load<{ parse(text: string): unknown }>("npm:yaml@2.9.1");
/** The fields of a dashboard, as types. */
const GRAFANA = "@grafana/schema@13.2.3";
const NO_GRAFANA = await missingPackage(GRAFANA);
const NO_PROMTOOL = await missingProgram("promtool", "--version");
const FOLDER = `${PROJECT}/deploy/prometheus`;

interface Rule {
  alert: string;
  expr: string;
  labels: { severity: string };
  annotations: { summary: string; description: string };
}

function rules(): Rule[] {
  const { groups } = YAML.module.parse(shipped("prometheus/alerts.yml")) as { groups: { rules: Rule[] }[] };
  return groups.flatMap(({ rules }) => rules);
}

interface Panel {
  type: string;
  title: string;
  description?: string;
  gridPos: { x: number; y: number; w: number; h: number };
  targets?: { expr: string; refId: string }[];
}

const DASHBOARD: {
  panels: Panel[];
  templating: { list: { name: string; query: string | { query: string } }[] };
  annotations: { list: { expr: string }[] };
} = JSON.parse(shipped("grafana/shouty.json"));
const PANELS = DASHBOARD.panels.filter(({ type }) => type !== "row");

/** All expressions of the dashboard, with values for Grafana's variables. */
function expressions(): string[] {
  const texts = [
    ...PANELS.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr)),
    ...DASHBOARD.annotations.list.map(({ expr }) => expr),
  ];
  return texts.map((text) => text.replaceAll("$__rate_interval", "5m").replaceAll(/\$(job|instance)/g, ".*"));
}

/** Lets promtool read expressions, as rules that record them. */
async function parsed(expressions: string[]): Promise<{ code: number; text: string }> {
  await using folder = await makeFolder();
  const rules = expressions.map((expr, i) =>
    `      - record: expression:${i}\n        expr: ${JSON.stringify(expr)}\n`
  );
  await Deno.writeTextFile(`${folder.path}/rules.yml`, `groups:\n  - name: all\n    rules:\n${rules.join("")}`);
  return await ask("promtool", ["check", "rules", `${folder.path}/rules.yml`]);
}

test(
  "promtool accepts the alerts",
  async () => {
    const { code, text } = await ask("promtool", [
      "check",
      "rules",
      "--lint=all",
      "--lint-fatal",
      `${FOLDER}/alerts.yml`,
    ]);
    assertEquals(code, 0, text);
    assertMatch(text, /SUCCESS: \d+ rules found/);
  },
  30,
  NO_PROMTOOL,
);

test(
  "promtool accepts what is to be added to Prometheus' configuration",
  async () => {
    const { code, text } = await ask("promtool", ["check", "config", "--syntax-only", `${FOLDER}/prometheus.yml`]);
    assertEquals(code, 0, text);
  },
  30,
  NO_PROMTOOL,
);

test(
  "the alerts fire when they should, and not before",
  async () => {
    const { code, text } = await ask("promtool", ["test", "rules", `${import.meta.dirname}/alerts.yml`]);
    assertEquals(code, 0, text);
  },
  60,
  NO_PROMTOOL,
);

test(
  "each metric, label and reason in the alerts is one of shouty's",
  () => {
    const all = rules();
    for (const { alert, expr } of all) assertEquals(unknownIn(expr), [], alert);
    const reasons = {
      closed_connections: INSTRUMENTS.closed.known!,
      rejected_connections: INSTRUMENTS.rejected.known!,
    };
    let found = 0;
    for (const [metric, known] of Object.entries(reasons)) {
      const selectors = new RegExp(`shouty_${metric}_total\\{reason(?:=|!=|=~|!~)"([^"]*)"\\}`, "g");
      for (const [, values] of all.flatMap(({ expr }) => [...expr.matchAll(selectors)])) {
        found++;
        assertArrayIncludes([...known], values.split("|"));
      }
    }
    assertGreater(found, 3);
  },
  20,
  YAML.missing,
);

test(
  "each alert says how urgent it is and what to do, and its numbers fit the defaults",
  () => {
    const all = rules();
    for (const { alert, labels, annotations } of all) {
      assertMatch(alert, /^Shouty[A-Z]/);
      assertMatch(labels.severity, /^(page|ticket)$/, alert);
      assertMatch(annotations.summary, /\$labels\.instance/, alert);
      assertGreater(annotations.description.length, 20, alert);
    }
    const { expr } = all.find(({ alert }) => alert === "ShoutyNearlyFull")!;
    assertEquals(Number(expr.split(" > ")[1]), 0.8 * flagsOf([]).maxConnections);
  },
  20,
  YAML.missing,
);

test(
  "Prometheus scrapes under the name that the alerts look for",
  () => {
    const { scrape_configs: [{ job_name }], rule_files } = YAML.module.parse(shipped("prometheus/prometheus.yml")) as {
      scrape_configs: { job_name: string }[];
      rule_files: string[];
    };
    assertEquals([job_name, rule_files], ["shouty", ["alerts.yml"]]);
    assertMatch(rules().find(({ alert }) => alert === "ShoutyDown")!.expr, /^up\{job="shouty"\}/);
  },
  20,
  YAML.missing,
);

test(
  "promtool can read each expression of the dashboard",
  async () => {
    const { code, text } = await parsed(expressions());
    assertEquals(code, 0, text);
  },
  30,
  NO_PROMTOOL,
);

test("each metric and label of the dashboard is one of shouty's, and no metric is missing there", () => {
  for (const expression of expressions()) assertEquals(unknownIn(expression), [], expression);
  const shown = expressions().flatMap(usesOf).map(({ name }) => name);
  for (const { prometheus } of Object.values(INSTRUMENTS)) {
    assertEquals(shown.some((name) => name.startsWith(prometheus)), true, `${prometheus} is shown`);
  }
  for (const { name, query } of DASHBOARD.templating.list) {
    if (typeof query === "string") continue;
    assertEquals(usesOf(query.query).map(({ name }) => name), [INSTRUMENTS.active.prometheus], name);
  }
});

test(
  "each field of the dashboard is one that Grafana knows",
  async () => {
    await using folder = await makeFolder();
    const lines = [
      `import type { Dashboard } from "npm:${GRAFANA}";`,
      // Its types have enums, for which the compiler takes no text.
      "type Plain<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;",
      // The fields of an annotation are those of its data source, which the type does not know.
      `export const dashboard: Plain<Omit<Dashboard, "annotations">> = ${
        JSON.stringify({ ...DASHBOARD, annotations: undefined })
      };`,
    ];
    await Deno.writeTextFile(`${folder.path}/dashboard.ts`, lines.join("\n"));
    const { code, text } = await ask(Deno.execPath(), ["check", "--quiet", "dashboard.ts"], { cwd: folder.path });
    assertEquals(code, 0, text);
  },
  120,
  NO_GRAFANA,
);

test("each panel of the dashboard says what to look for, and lies beside the others", () => {
  const taken = new Map<string, string>();
  for (const { title, description = "", gridPos: { x, y, w, h } } of DASHBOARD.panels) {
    if (PANELS.some((panel) => panel.title === title)) assertGreater(description.length, 20, title);
    for (let row = y; row < y + h; row++) {
      for (let column = x; column < x + w; column++) {
        assertEquals(taken.get(`${row} ${column}`), undefined, `${title} lies on another panel`);
        taken.set(`${row} ${column}`, title);
      }
    }
    assertEquals(x + w <= 24, true, title);
  }
  assertEquals(new Set(PANELS.map(({ title }) => title)).size, PANELS.length);
});

test("a wrong metric or label in an expression is noticed", () => {
  assertEquals(unknownIn("rate(shouty_line_total[5m])"), ["shouty_line_total"]);
  assertEquals(unknownIn('shouty_closed_connections_total{reasons="end"}'), [
    "shouty_closed_connections_total{reasons}",
  ]);
  assertEquals(unknownIn("sum by (reason) (shouty_lines_total)"), ["shouty_lines_total{reason}"]);
});
