/**
 * A server's figures as text for Prometheus.
 *
 * The text format is a line for each value, so it is written here. `npm:@prometheus-io/client` would hold the values a
 * second time, and `deno compile` of Deno 2.9 overflows its stack over a package that it depends on (`bintrees`): the
 * compiled command would have no admin port.
 *
 * @module
 */

import { checkMethods } from "../../internal/api/check.ts";
import { countOf, type Reading, type Series } from "./figures.ts";
import type { Instrument } from "./instruments.ts";
import type { ServerMetrics } from "./metrics.ts";

/** A server's figures for Prometheus. */
export interface PrometheusMetrics {
  /** The media type of the text, for the header `Content-Type`. */
  readonly contentType: string;
  /** Returns the figures as they are now, in Prometheus's text format; all are from one moment. */
  text(): string;
}

/** The labels of one value, in their order. */
type Labels = readonly (readonly [name: string, value: string | number])[];

/**
 * Makes a server's figures readable for Prometheus, in version 0.0.4 of its text format.
 *
 * @param metrics What counts the server's events.
 * @returns What writes the figures as text.
 * @throws {TypeError} If it is no {@linkcode ServerMetrics}.
 *
 * @example A page for Prometheus
 * ```ts
 * import { serve } from "@x/shouty";
 * import { prometheus, ServerMetrics } from "@x/shouty/ops";
 * import { assertMatch } from "@std/assert";
 *
 * const metrics = new ServerMetrics();
 * await using server = serve({ hostname: "127.0.0.1", port: 0, onEvent: metrics.onEvent });
 * metrics.watch(server);
 * const { contentType, text } = prometheus(metrics);
 * await using page = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, () => {
 *   return new Response(text(), { headers: { "content-type": contentType } });
 * });
 *
 * const response = await fetch(`http://127.0.0.1:${page.addr.port}/`);
 * assertMatch(await response.text(), /^shouty_active_connections 0$/m);
 * ```
 */
export function prometheus(metrics: ServerMetrics): PrometheusMetrics {
  checkMethods("metrics", metrics, "a ServerMetrics", ["read"]);
  return {
    contentType: "text/plain; version=0.0.4; charset=utf-8",
    text: () => metrics.read().map(write).join(""),
  };
}

/** Writes one metric with all its values. */
function write({ instrument, series }: Reading): string {
  const { prometheus: name, description, kind } = instrument;
  const values = series.flatMap((one) => valuesOf(instrument, one));
  return `# HELP ${name} ${escape(description)}\n# TYPE ${name} ${kind}\n${values.join("")}`;
}

function valuesOf(instrument: Instrument, series: Series): string[] {
  const { prometheus: name, boundaries } = instrument;
  const labels: Labels = Object.entries(series.attributes ?? {}).map((
    [key, value],
  ) => [instrument.attributes[key], value]);
  if (boundaries === undefined) return [line(name, labels, series.value)];
  let below = 0;
  const buckets = boundaries.map((le, i) =>
    line(`${name}_bucket`, [...labels, ["le", le]], below += series.buckets[i])
  );
  const count = countOf(series);
  return [
    ...buckets,
    line(`${name}_bucket`, [...labels, ["le", "+Inf"]], count),
    line(`${name}_sum`, labels, series.value),
    line(`${name}_count`, labels, count),
  ];
}

function line(name: string, labels: Labels, value: number): string {
  const pairs = labels.map(([label, text]) => `${label}="${escape(`${text}`).replaceAll('"', '\\"')}"`);
  return `${name}${pairs.length > 0 ? `{${pairs}}` : ""} ${value}\n`;
}

/** Escapes what would end a line of the format, or begin an escape. */
function escape(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}
