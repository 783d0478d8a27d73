/**
 * Reads the figures about a server under test.
 *
 * @module
 */

import type { ServerMetrics } from "@x/shouty/ops";

/** Values by an instrument's Prometheus name, and the value of its attribute, if it has one. */
export function values(metrics: ServerMetrics): Record<string, number> {
  const all: Record<string, number> = {};
  for (const { instrument, series } of metrics.read()) {
    for (const { attributes, value, buckets } of series) {
      const count = buckets.reduce((sum, count) => sum + count, 0);
      const name = [instrument.prometheus, ...Object.values(attributes ?? {})].join(" ");
      all[name] = instrument.kind === "histogram" ? count : value;
    }
  }
  return all;
}
