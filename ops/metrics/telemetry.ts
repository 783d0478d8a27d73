/**
 * Exports a server's figures, and a span for each connection, through Deno's own OpenTelemetry.
 *
 * @module
 */

import { checkMethods } from "../../internal/api/check.ts";
import type { Attributes, Sink } from "./figures.ts";
import { type Instrument, INSTRUMENTS } from "./instruments.ts";
import type { ServerMetrics } from "./metrics.ts";
import { Spans, type Trace, type Tracer } from "./spans.ts";

/** The export of a server's figures and spans. */
export interface Telemetry {
  /**
   * Finds an open connection in the traces, for log lines. While the event `closed` is handled, its connection is still
   * found.
   *
   * @param connId The connection's number, {@linkcode Conn.id}.
   * @returns Its trace; undefined if there is no open connection of this number.
   */
  traceOf(connId: number): Trace | undefined;
}

/** The part of OpenTelemetry's `Meter` that is used. */
interface Meter {
  createCounter(name: string, options: MeterOptions): { add: Change };
  createUpDownCounter(name: string, options: MeterOptions): { add: Change };
  createHistogram(name: string, options: MeterOptions): { record: Change };
  createObservableUpDownCounter(name: string, options: MeterOptions): {
    addCallback(callback: (result: { observe(value: number): void }) => void): void;
  };
}

interface MeterOptions {
  readonly unit: string;
  readonly description: string;
  readonly advice?: { readonly explicitBucketBoundaries: number[] };
}

type Change = (value: number, attributes?: Attributes) => void;

/**
 * Exports a server's figures, and one span for each connection, as OpenTelemetry. Deno does that itself, without a
 * package, a flag or a permission, if the environment variable `OTEL_DENO` is `true`; further variables such as
 * `OTEL_EXPORTER_OTLP_ENDPOINT` say how and where to.
 *
 * It costs about 20 microseconds for each connection, nearly all of that for its span, and a tenth of a microsecond for
 * each call of a timed handler. Call it before the server starts: durations and connections from before are not exported.
 *
 * @param metrics What counts the server's events; one server's, as spans are found by the numbers of connections.
 * @returns The export.
 * @throws {Deno.errors.NotSupported} If Deno's telemetry is off.
 * @throws {TypeError} If it is no {@linkcode ServerMetrics}.
 *
 * @example Exporting, if the environment asks for it
 * ```ts
 * import { exportTelemetry, ServerMetrics } from "@x/shouty/ops";
 * import { assertThrows } from "@std/assert";
 *
 * const metrics = new ServerMetrics();
 * // Without OTEL_DENO=true:
 * assertThrows(() => exportTelemetry(metrics), Deno.errors.NotSupported);
 * ```
 */
export function exportTelemetry(metrics: ServerMetrics): Telemetry {
  checkMethods("metrics", metrics, "a ServerMetrics", ["addSink", "snapshot"]);
  const { meter, tracer } = providers();
  const spans = new Spans(tracer);
  metrics.addSink(new Exporter(meter, metrics, spans));
  return { traceOf: (connId) => spans.traceOf(connId) };
}

/** Deno's providers throw while its telemetry is off; there is no other way to tell that needs no permission. */
function providers(): { meter: Meter; tracer: Tracer } {
  const { meterProvider, tracerProvider } = Deno.telemetry;
  try {
    return { meter: meterProvider.getMeter("shouty"), tracer: tracerProvider.getTracer("shouty") };
  } catch (cause) {
    throw new Deno.errors.NotSupported("Cannot export telemetry: it is on only with OTEL_DENO=true", { cause });
  }
}

/** Passes changes on as they happen: what is only observed now and then would be lost at the end of the process. */
class Exporter implements Sink {
  readonly #changes = new Map<Instrument, Change>();
  readonly #spans: Spans;

  constructor(meter: Meter, metrics: ServerMetrics, spans: Spans) {
    this.#spans = spans;
    for (const instrument of Object.values(INSTRUMENTS)) {
      if (instrument !== INSTRUMENTS.queued) this.#changes.set(instrument, changeOf(meter, instrument));
    }
    // Each export begins with this callback, and only after it takes what has been added.
    const queued = meter.createObservableUpDownCounter(INSTRUMENTS.queued.name, optionsOf(INSTRUMENTS.queued));
    queued.addCallback((result) => result.observe(metrics.snapshot().queued));
  }

  add(instrument: Instrument, amount: number, attributes: Attributes): void {
    this.#changes.get(instrument)?.(amount, attributes);
  }

  record(instrument: Instrument, seconds: number, attributes: Attributes): void {
    this.#changes.get(instrument)?.(seconds, attributes);
  }

  event(event: Parameters<Sink["event"]>[0]): void {
    this.#spans.event(event);
  }
}

function changeOf(meter: Meter, instrument: Instrument): Change {
  const options = optionsOf(instrument);
  if (instrument.kind === "histogram") {
    const histogram = meter.createHistogram(instrument.name, options);
    return (value, attributes) => histogram.record(value, attributes);
  }
  const counter = instrument.kind === "counter"
    ? meter.createCounter(instrument.name, options)
    : meter.createUpDownCounter(instrument.name, options);
  return (value, attributes) => counter.add(value, attributes);
}

function optionsOf({ unit, description, boundaries }: Instrument): MeterOptions {
  const advice = boundaries && { explicitBucketBoundaries: [...boundaries] };
  return { unit, description, ...(advice !== undefined && { advice }) };
}
