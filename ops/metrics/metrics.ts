/**
 * Counts and times what a server does.
 *
 * This folder holds the class that does it (here), the table of what is measured (`instruments.ts`), the values
 * (`figures.ts`), durations of the last minutes (`recent.ts`), the measuring of handlers (`timed.ts`), and two exporters:
 * to Deno's telemetry (`telemetry.ts`, with `spans.ts`) and to Prometheus (`prometheus.ts`).
 *
 * @module
 */

import { checkFunction, checkMethods, checkOptions } from "../../internal/api/check.ts";
import type { ClosedEvent, ServerEvent } from "../../internal/api/events.ts";
import type { ConnHandler, LineHandler } from "../../internal/api/handlers.ts";
import type { CloseReason } from "../../internal/api/reasons.ts";
import type { Server } from "../../internal/server/running.ts";
import type { HandshakeEvent } from "../tls/observed.ts";
import { type Attributes, countOf, Figures, type Reading, type Series, type Sink } from "./figures.ts";
import { type Instrument, INSTRUMENTS } from "./instruments.ts";
import { type Quantiles, RecentTimes } from "./recent.ts";
import { timeCalls } from "./timed.ts";

/** Figures for people, as {@linkcode ServerMetrics.snapshot} returns them; plain values, ready for JSON. */
export interface MetricsSnapshot {
  /** The number of connections that are open now. */
  readonly active: number;
  /** The number of connections that were accepted and are not served yet. */
  readonly queued: number;
  /** The number of connections rejected so far, by reason; a reason with none is left out. */
  readonly rejected: Readonly<Record<string, number>>;
  /** How long the calls of handlers took that ended in the last one to two minutes, in milliseconds. */
  readonly handlerMs: Quantiles;
  /** TLS handshakes. */
  readonly handshakes: {
    /** The number in progress. */
    readonly active: number;
    /** The number that succeeded, by version of TLS. */
    readonly done: Readonly<Record<string, number>>;
    /** The number that failed, by {@linkcode HandshakeFailure}. */
    readonly failed: Readonly<Record<string, number>>;
    /** How long those took that succeeded in the last one to two minutes, in milliseconds. */
    readonly ms: Quantiles;
  };
}

/** Maximum number of classes of errors that are counted by themselves: a handler could make their names of input. */
const MAX_ERROR_TYPES = 30;

/** Maximum length of such a name, in characters: each is kept until the end. */
const MAX_NAME_LENGTH = 64;

/** The ends that are no errors: a peer or a handler has had enough, or the server lets go of it in an orderly way. */
const ORDINARY: ReadonlySet<CloseReason> = new Set<CloseReason>(["end", "closed", "max-age", "max-lines", "drained"]);

/**
 * Returns the `error.type` of a connection's end.
 *
 * @param event The event.
 * @returns The close reason; undefined if the end is an ordinary one.
 */
export function errorTypeOf({ reason }: Pick<ClosedEvent, "reason">): string | undefined {
  return ORDINARY.has(reason) ? undefined : reason;
}

/**
 * Counts and times what one server does, for the exporters {@linkcode exportTelemetry} and {@linkcode prometheus}.
 *
 * It costs less than a microsecond for each connection, and, with {@linkcode ServerMetrics.timed}, for each call of the
 * handler. Figures without a source stay 0: lines, bytes, queued connections and handlers need
 * {@linkcode ServerMetrics.watch}; times of handlers `timed`; handshakes `onHandshake`.
 *
 * @example Counting what a server does
 * ```ts
 * import { serve } from "@x/shouty";
 * import { ServerMetrics } from "@x/shouty/ops";
 * import { assertEquals } from "@std/assert";
 *
 * const metrics = new ServerMetrics();
 * const handler = metrics.timed((line: string) => `Hello, ${line}!`);
 * await using server = serve({ hostname: "127.0.0.1", port: 0, onEvent: metrics.onEvent }, handler);
 * metrics.watch(server);
 *
 * const { port } = server.addr;
 * using conn = await Deno.connect({ port });
 * await conn.write(new TextEncoder().encode("Ada\n"));
 * await conn.closeWrite();
 * assertEquals(await new Response(conn.readable).text(), "Hello, Ada!\n");
 * assertEquals(metrics.snapshot().handlerMs.count, 1);
 * ```
 */
export class ServerMetrics {
  /** Counts an event of the server; give it to `serve({ onEvent })`, or call it from a hook of your own. */
  readonly onEvent: (event: ServerEvent) => void;
  /** Counts a TLS handshake; give it to `tlsCredentials({ onHandshake })`, or to `listenTls`. */
  readonly onHandshake: (event: HandshakeEvent) => void;
  readonly #figures = new Figures();
  readonly #handlerTimes = new RecentTimes();
  readonly #handshakeTimes = new RecentTimes();
  readonly #errorTypes = new Set<string>();
  readonly #now: () => number;
  #server: Pick<Server<unknown>, "stats"> | undefined;

  /**
   * Creates figures that are all 0.
   *
   * @param options What tells the time in milliseconds, such as a test's clock; by default the machine's.
   * @throws {TypeError} If it is no clock.
   */
  constructor(options: { clock?: { now(): number } | undefined } = {}) {
    checkOptions("ServerMetrics options", options);
    const { clock = performance } = options;
    checkMethods("clock", clock, "a clock", ["now"]);
    this.#now = () => clock.now();
    this.onEvent = (event) => this.#count(event);
    this.onHandshake = (event) => this.#countHandshake(event);
  }

  /**
   * Measures how long each call of a handler takes, to the end of its promise. A line handler is called for each line,
   * or, if it has `block`, for each block of lines that have come together. A conversation handler is called once for
   * each connection, so that its time is that of the whole conversation.
   *
   * @param handler The handler.
   * @returns The handler to give to `serve` or `serveConnections`. Its `block` is that of the handler at the time of this
   * call.
   * @throws {TypeError} If it is no function.
   */
  // deno-lint-ignore no-explicit-any
  timed<H extends LineHandler<any> | ConnHandler<any>>(handler: H): H {
    checkFunction("handler", handler);
    return timeCalls(handler, this.#now, (since, thrown) => {
      const now = this.#now();
      this.#handlerTimes.add(now - since, now);
      const attributes = thrown === undefined ? undefined : { "error.type": this.#className(thrown.error) };
      this.#figures.record(INSTRUMENTS.handler, (now - since) / 1000, attributes);
    });
  }

  /**
   * Reads the server's own counters whenever the figures are read: lines, bytes, handlers at work, queued connections.
   *
   * @param server The server.
   * @throws {TypeError} If it is no server.
   */
  // deno-lint-ignore no-explicit-any
  watch(server: Pick<Server<any>, "stats">): void {
    checkMethods("server", server, "a server", ["stats"]);
    this.#server = server;
  }

  /** Returns the figures for people. */
  snapshot(): MetricsSnapshot {
    const now = this.#now();
    this.collect();
    const handshakes = this.#figures.of(INSTRUMENTS.handshake);
    return {
      active: this.#sum(INSTRUMENTS.active),
      queued: this.#sum(INSTRUMENTS.queued),
      rejected: byAttribute("error.type", this.#figures.of(INSTRUMENTS.rejected), ({ value }) => value),
      handlerMs: this.#handlerTimes.read(now),
      handshakes: {
        active: this.#sum(INSTRUMENTS.handshakes),
        done: byAttribute("tls.protocol.version", handshakes, countOf),
        failed: byAttribute("error.type", handshakes, countOf),
        ms: this.#handshakeTimes.read(now),
      },
    };
  }

  /** Returns all figures as they are now, for an exporter. */
  read(): readonly Reading[] {
    this.collect();
    return this.#figures.read();
  }

  /**
   * Passes each change on to an exporter, from now on; first what was counted until now, but not the durations.
   *
   * @param sink The exporter; it must not throw.
   * @returns A function that takes the exporter away again.
   */
  addSink(sink: Sink): () => void {
    for (const { instrument, series } of this.#figures.read()) {
      if (instrument.kind === "histogram") continue;
      for (const { value, attributes } of series) if (value !== 0) sink.add(instrument, value, attributes);
    }
    const { sinks } = this.#figures;
    sinks.add(sink);
    return () => void sinks.delete(sink);
  }

  /** Takes what the watched server has counted itself. `read` and `snapshot` do so, too. */
  collect(): void {
    const figures = this.#figures;
    if (this.#server === undefined) return;
    const { lines, bytesIn, bytesOut, handlers, hookErrors, queued } = this.#server.stats();
    figures.set(INSTRUMENTS.lines, lines);
    figures.set(INSTRUMENTS.bytes, bytesIn, RECEIVE);
    figures.set(INSTRUMENTS.bytes, bytesOut, TRANSMIT);
    figures.set(INSTRUMENTS.handlers, handlers);
    figures.set(INSTRUMENTS.hookErrors, hookErrors);
    figures.set(INSTRUMENTS.queued, queued);
  }

  #count(event: ServerEvent): void {
    const figures = this.#figures;
    if (event.type === "accepted") {
      figures.add(INSTRUMENTS.accepted, 1);
      figures.add(INSTRUMENTS.active, 1);
    } else if (event.type === "closed") this.#countClosed(event);
    else if (event.type === "rejected") figures.add(INSTRUMENTS.rejected, 1, { "error.type": event.reason });
    else if (event.type === "gone") figures.add(INSTRUMENTS.gone, 1);
    else if (event.type === "handler-error") figures.add(INSTRUMENTS.handlerErrors, 1);
    else if (event.type === "accept-error") {
      figures.add(INSTRUMENTS.acceptErrors, 1, { "error.type": this.#className(event.error) });
    } // The process may end before an exporter asks again.
    else if (event.type === "stopped") this.collect();
    for (const sink of figures.sinks) sink.event(event);
  }

  #countClosed(event: ClosedEvent): void {
    const error = errorTypeOf(event);
    this.#figures.add(INSTRUMENTS.active, -1);
    this.#figures.add(INSTRUMENTS.closed, 1, { "shouty.close.reason": event.reason });
    const attributes = error === undefined ? undefined : { "error.type": error };
    this.#figures.record(INSTRUMENTS.duration, event.durationMs / 1000, attributes);
  }

  #countHandshake(event: HandshakeEvent): void {
    this.#figures.add(INSTRUMENTS.handshakes, event.type === "begun" ? 1 : -1);
    if (event.type === "begun") return;
    const { durationMs, tls, failure } = event;
    if (tls !== undefined) this.#handshakeTimes.add(durationMs, this.#now());
    const attributes: Attributes = tls === undefined
      ? { "error.type": failure ?? OTHER }
      : { "tls.protocol.version": tls.version.replace("TLSv", "") };
    this.#figures.record(INSTRUMENTS.handshake, durationMs / 1000, attributes);
  }

  /** The class of an error. OpenTelemetry's word for all others is used past a number of classes. */
  #className(error: unknown): string {
    const name = nameOf(error) ?? OTHER;
    if (!this.#errorTypes.has(name) && this.#errorTypes.size >= MAX_ERROR_TYPES) return OTHER;
    this.#errorTypes.add(name);
    return name;
  }

  #sum(instrument: Instrument): number {
    return this.#figures.of(instrument).reduce((sum, { value }) => sum + value, 0);
  }
}

/** The name of an error; undefined if a class of the caller's has given it none that is text. */
function nameOf(error: unknown): string | undefined {
  try {
    const name: unknown = error instanceof Error ? error.name : undefined;
    return typeof name === "string" ? name.slice(0, MAX_NAME_LENGTH) : undefined;
  } catch {
    return undefined;
  }
}

const OTHER = "_OTHER";
const RECEIVE = { "network.io.direction": "receive" };
const TRANSMIT = { "network.io.direction": "transmit" };

/** Values by an attribute; those that are 0, and series without the attribute, are left out. */
function byAttribute(name: string, series: readonly Series[], valueOf: (series: Series) => number) {
  const values: Record<string, number> = {};
  for (const one of series) {
    const key = one.attributes?.[name];
    if (key !== undefined && valueOf(one) > 0) values[key] = valueOf(one);
  }
  return values;
}
