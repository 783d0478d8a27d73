/**
 * A receiver of OpenTelemetry's protocol (OTLP over HTTP, in JSON), for processes under test.
 *
 * @module
 */

/** One value of a metric. */
export interface Point {
  /** The attributes, as `name=value`. */
  attributes: string;
  /** The value of a sum; of a histogram, the sum of all values. */
  value: number;
  /** Of a histogram: the number of values, and how many are in each bucket. */
  count: number;
  buckets: number[];
}

/** A metric as it was exported last. */
export interface Exported {
  unit: string;
  kind: "counter" | "gauge" | "histogram";
  bounds: number[];
  points: Point[];
}

/** A span. */
export interface Span {
  traceId: string;
  spanId: string;
  name: string;
  kind: number;
  failed: boolean;
  attributes: Record<string, string | number>;
}

// deno-lint-ignore no-explicit-any
type Json = any;

/** Receives what processes export, and keeps what is of the scope `shouty`. */
export class OtlpReceiver implements AsyncDisposable {
  readonly metrics: Map<string, Exported> = new Map();
  readonly spans: Span[] = [];
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  #news = Promise.withResolvers<void>();

  constructor() {
    const options = { hostname: "127.0.0.1", port: 0, onListen() {} };
    this.#server = Deno.serve(options, async (request) => {
      this.#take(await request.json());
      this.#news.resolve();
      this.#news = Promise.withResolvers();
      return Response.json({});
    });
  }

  /** The environment of a process that exports to this receiver, as often as it can. */
  get env(): Record<string, string> {
    return {
      OTEL_DENO: "true",
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${this.#server.addr.port}`,
      OTEL_METRIC_EXPORT_INTERVAL: "100",
      OTEL_BSP_SCHEDULE_DELAY: "100",
    };
  }

  /** Returns the points of a metric that was exported. */
  points(name: string): Point[] {
    return this.metrics.get(name)?.points ?? [];
  }

  /** Waits until a condition holds. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await this.#news.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }

  #take({ resourceMetrics = [], resourceSpans = [] }: Json): void {
    for (const { metrics } of ours(resourceMetrics, "scopeMetrics")) {
      for (const metric of metrics) this.metrics.set(metric.name, exported(metric));
    }
    for (const { spans } of ours(resourceSpans, "scopeSpans")) {
      for (const { traceId, spanId, name, kind, status, attributes } of spans) {
        const named = Object.fromEntries(attributes.map(({ key, value }: Json) => [key, valueOf(value)]));
        this.spans.push({ traceId, spanId, name, kind, failed: status.code === 2, attributes: named });
      }
    }
  }
}

function ours(resources: Json[], scopes: string): Json[] {
  return resources.flatMap((resource) => resource[scopes]).filter(({ scope }: Json) => scope.name === "shouty");
}

function exported({ unit, sum, histogram }: Json): Exported {
  const { dataPoints } = sum ?? histogram;
  return {
    unit,
    kind: histogram !== undefined ? "histogram" : sum.isMonotonic ? "counter" : "gauge",
    bounds: histogram === undefined ? [] : dataPoints[0].explicitBounds,
    points: dataPoints.map((point: Json) => ({
      attributes: point.attributes.map(({ key, value }: Json) => `${key}=${valueOf(value)}`).join(","),
      value: Number(point.asDouble ?? point.asInt ?? point.sum),
      count: Number(point.count ?? 0),
      buckets: (point.bucketCounts ?? []).map(Number),
    })),
  };
}

/** 64-bit integers are text in JSON. A `doubleValue` stays recognisable: a port must not be one. */
function valueOf({ stringValue, intValue, doubleValue }: Json): string | number {
  return stringValue ?? (intValue === undefined ? `double ${doubleValue}` : Number(intValue));
}
