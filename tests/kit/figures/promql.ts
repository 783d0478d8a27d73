/**
 * Which metrics and labels of shouty an expression of Prometheus uses, and which there are.
 *
 * @module
 */

import { INSTRUMENTS } from "../../../ops/metrics/instruments.ts";

/** Labels that Prometheus itself adds to each series. */
const OF_PROMETHEUS = ["job", "instance"];

/** The names of all series of shouty, and the labels of each. */
const SERIES = new Map<string, readonly string[]>();
for (const { prometheus, kind, attributes } of Object.values(INSTRUMENTS)) {
  const labels = [...OF_PROMETHEUS, ...Object.values(attributes)];
  if (kind === "histogram") {
    SERIES.set(`${prometheus}_bucket`, [...labels, "le"]);
    for (const part of ["sum", "count"]) SERIES.set(`${prometheus}_${part}`, labels);
  } else {
    SERIES.set(prometheus, labels);
  }
}

/**
 * Finds the uses of metrics in an expression.
 *
 * @param expression The expression.
 * @returns Each metric by its name, with the labels that select its series; those of `by (…)` are with all of them.
 */
export function usesOf(expression: string): { name: string; labels: string[] }[] {
  const grouped = [...expression.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, labels]) => labels.split(/\s*,\s*/));
  const bare = expression.replaceAll(/"[^"]*"/g, '""').replaceAll(/\bby \([^)]*\)/g, "");
  return Array.from(bare.matchAll(/\b(shouty_\w+)(?:\{([^}]*)\})?/g), ([, name, selected = ""]) => {
    const labels = [...selected.matchAll(/(\w+)\s*[=!]/g)].map(([, label]) => label);
    return { name, labels: [...labels, ...grouped] };
  });
}

/** The metrics and labels of an expression that shouty does not have; none if the expression is right. */
export function unknownIn(expression: string): string[] {
  const uses = usesOf(expression);
  const known = new Set(uses.flatMap(({ name }) => SERIES.get(name) ?? []));
  return uses.flatMap(({ name, labels }) =>
    SERIES.has(name) ? labels.filter((label) => !known.has(label)).map((label) => `${name}{${label}}`) : [name]
  );
}
