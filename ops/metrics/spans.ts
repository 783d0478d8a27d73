/**
 * One span for each connection, in Deno's telemetry.
 *
 * @module
 */

import type { ClosedEvent, ConnInfo, ServerEvent } from "../../internal/api/events.ts";
import { ClearingMap } from "../../internal/memory/clearing_map.ts";
import { errorTypeOf } from "./metrics.ts";

/** The value of an attribute. Deno exports a number as a floating-point one, and OpenTelemetry's ports are whole. */
type Value = string | bigint;

/** The part of OpenTelemetry's `Span` that is used. */
interface Span {
  spanContext(): Trace;
  setAttribute(name: string, value: Value): unknown;
  setStatus(status: { code: number }): unknown;
  end(): void;
}

/** The part of OpenTelemetry's `Tracer` that is used. */
export interface Tracer {
  startSpan(name: string, options: { kind: number; root: boolean; attributes: Record<string, Value> }): Span;
}

/** Where a connection is found in the traces. */
export interface Trace {
  /** The trace, 32 hexadecimal digits. */
  readonly traceId: string;
  /** The connection's span in it, 16 hexadecimal digits. */
  readonly spanId: string;
}

/** OpenTelemetry's `SpanKind.SERVER`. */
const SERVER = 1;
/** OpenTelemetry's `SpanStatusCode.ERROR`. */
const ERROR = 2;

/** The spans of the open connections. */
export class Spans {
  readonly #tracer: Tracer;
  readonly #spans = new ClearingMap<number, Span>();

  /** @param tracer Makes the spans. */
  constructor(tracer: Tracer) {
    this.#tracer = tracer;
  }

  /** Begins or ends the span of an event's connection. */
  event(event: ServerEvent): void {
    if (event.type === "accepted") this.#begin(event.conn);
    if (event.type === "closed") this.#end(event);
  }

  /** Finds a connection by its number. */
  traceOf(id: number): Trace | undefined {
    const context = this.#spans.get(id)?.spanContext();
    return context && { traceId: context.traceId, spanId: context.spanId };
  }

  #begin(conn: ConnInfo): void {
    const attributes = { "shouty.connection.id": BigInt(conn.id), ...addressesOf(conn) };
    this.#spans.set(conn.id, this.#tracer.startSpan("connection", { kind: SERVER, root: true, attributes }));
  }

  #end(event: ClosedEvent): void {
    const { id } = event.conn;
    const span = this.#spans.get(id);
    if (span === undefined) return;
    const { reason, detail, lines, bytesIn, bytesOut } = event;
    const error = errorTypeOf(event);
    span.setAttribute("shouty.close.reason", reason);
    if (detail !== undefined) span.setAttribute("shouty.close.detail", detail);
    span.setAttribute("shouty.lines", BigInt(lines));
    span.setAttribute("shouty.bytes_in", BigInt(bytesIn));
    span.setAttribute("shouty.bytes_out", BigInt(bytesOut));
    if (error !== undefined) span.setAttribute("error.type", error);
    if (error !== undefined) span.setStatus({ code: ERROR });
    span.end();
    // Not at once: a log line about the same event may still ask for the trace.
    SETTLED.then(() => this.#spans.delete(id));
  }
}

const SETTLED = Promise.resolve();

/** Both ends of a connection, by OpenTelemetry's names. */
function addressesOf({ remoteAddr, localAddr }: ConnInfo): Record<string, Value> {
  return {
    ...named("network.peer.address", "network.peer.port", remoteAddr),
    ...named("server.address", "server.port", localAddr),
    "network.transport": "hostname" in localAddr ? localAddr.transport : "unix",
    ...("hostname" in localAddr && { "network.type": localAddr.hostname.includes(":") ? "ipv6" : "ipv4" }),
  };
}

/** A client of a Unix socket has no address. */
function named(address: string, port: string, addr: Deno.Addr): Record<string, Value> {
  if ("hostname" in addr) return { [address]: addr.hostname, [port]: BigInt(addr.port) };
  return "path" in addr && addr.path ? { [address]: addr.path } : {};
}
