/**
 * A server's figures as text for Prometheus.
 *
 * @module
 */

import { checkMethods } from "../../internal/api/check.ts";
import { countOf, type Reading, type Series } from "./figures.ts";
import { type Instrument, INSTRUMENTS } from "./instruments.ts";
import type { ServerMetrics } from "./metrics.ts";

/** A server's figures for Prometheus. */
export interface PrometheusMetrics {
  /** The media type of the text, for the header `Content-Type`. */
  readonly contentType: string;
  /** Returns the figures as they are now, in Prometheus's text format. */
  text(): Promise<string>;
}

/**
 * The name and version of what writes the text, below `npm:@prometheus-io/`. A variable, and not part of the text of the
 * `import`: Deno asks the registry for each package that an `import` names in full, at the start, and also for those that
 * are never imported.
 */
const CLIENT = "client@0.16.1";

/** The part of the package that is used. Its own metrics of the process are not: one of them fails on Deno. */
interface Client {
  Registry: new () => {
    readonly contentType: string;
    metrics(): Promise<string>;
    registerMetric(metric: Metric): void;
  };
}

/** A metric that holds no values, but gets them when they are asked for. */
interface Metric {
  readonly name: string;
  readonly help: string;
  readonly type: Instrument["kind"];
  get(): Promise<Metric & { readonly values: readonly Value[] }>;
}

interface Value {
  readonly metricName?: string;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
}

/**
 * Makes a server's figures readable for Prometheus. It loads `npm:@prometheus-io/client` 0.16.1, which needs no permission
 * at run time; Deno downloads the package unless it is in its cache.
 *
 * @param metrics What counts the server's events.
 * @returns What writes the figures as text.
 * @throws {Error} (As a rejection.) If the package cannot be loaded; `cause` says why.
 * @throws {TypeError} (As a rejection.) If it is no {@linkcode ServerMetrics}.
 *
 * @example A page for Prometheus (not run here: it needs a package from npm)
 * ```ts ignore
 * import { serve } from "@x/shouty";
 * import { prometheus, ServerMetrics } from "@x/shouty/ops";
 *
 * const metrics = new ServerMetrics();
 * metrics.watch(serve({ onEvent: metrics.onEvent }));
 * const { contentType, text } = await prometheus(metrics);
 * Deno.serve({ hostname: "127.0.0.1", port: 9090 }, async () => {
 *   return new Response(await text(), { headers: { "content-type": contentType } });
 * });
 * ```
 */
export async function prometheus(metrics: ServerMetrics): Promise<PrometheusMetrics> {
  checkMethods("metrics", metrics, "a ServerMetrics", ["read"]);
  const registry = new (await load()).Registry();
  let readings: ReadonlyMap<Instrument, Reading> = new Map();
  for (const instrument of Object.values(INSTRUMENTS)) {
    const { prometheus: name, description: help, kind: type } = instrument;
    const get = () =>
      Promise.resolve({ ...metric, values: readings.get(instrument)!.series.flatMap(valuesOf(instrument)) });
    const metric: Metric = { name, help, type, get };
    registry.registerMetric(metric);
  }
  return {
    contentType: registry.contentType,
    text() {
      // All figures are from one moment, so that sums hold between them.
      readings = new Map(metrics.read().map((reading) => [reading.instrument, reading]));
      return registry.metrics();
    },
  };
}

async function load(): Promise<Client> {
  try {
    return await import(`npm:@prometheus-io/${CLIENT}`);
  } catch (cause) {
    const [reason] = `${cause instanceof Error ? cause.message : cause}`.split("\n");
    throw new Error(`Cannot load npm:@prometheus-io/${CLIENT}: ${reason}`, { cause });
  }
}

function valuesOf(instrument: Instrument): (series: Series) => Value[] {
  const { prometheus: name, boundaries } = instrument;
  return (series) => {
    const labels = labelsOf(instrument, series);
    if (boundaries === undefined) return [{ labels, value: series.value }];
    let below = 0;
    const buckets = boundaries.map((le, i) => {
      below += series.buckets[i];
      return { metricName: `${name}_bucket`, labels: { ...labels, le }, value: below };
    });
    const count = countOf(series);
    return [
      ...buckets,
      { metricName: `${name}_bucket`, labels: { ...labels, le: "+Inf" }, value: count },
      { metricName: `${name}_sum`, labels, value: series.value },
      { metricName: `${name}_count`, labels, value: count },
    ];
  };
}

function labelsOf(instrument: Instrument, { attributes = {} }: Series): Record<string, string> {
  const named = Object.entries(attributes).map(([name, value]) => [instrument.attributes[name], value]);
  return Object.fromEntries(named);
}
