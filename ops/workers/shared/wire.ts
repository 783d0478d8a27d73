/**
 * The messages between the main isolate and its workers, and errors in a form that can be sent.
 *
 * @module
 */

import type { ConnLimits } from "../../../internal/api/conn_options.ts";
import type { ConnInfo, ServerEvent } from "../../../internal/api/events.ts";
import type { CloseOptions, ConnStats } from "../../../internal/api/handlers.ts";
import type { AdmissionRejectReason } from "../../../internal/api/reasons.ts";
import type { ServeOptions, ShutdownOptions } from "../../../internal/api/serve_options.ts";
import type { ServerStats } from "../../../internal/server/counters.ts";
import type { LoadCells } from "./loads.ts";

/** The sockets that workers can share: Deno's own, or Linux's `epoll`. */
export type Engine = "deno" | "epoll";

/** One socket to listen on. */
export interface Place {
  readonly hostname: string;
  readonly port: number;
  /** The descriptor of a socket that all workers share; without one, each binds its own. */
  readonly fd?: number;
}

/** The options of a server that are plain values, and that a worker's server gets. */
export type PlainOptions =
  & ConnLimits
  & Pick<ServeOptions, "keepAliveMs" | "maxBufferedBytes" | "framing" | "admitTimeout">;

/** What a worker needs to begin. */
export interface Setup {
  readonly index: number;
  readonly places: readonly Place[];
  /** Whether each place is shared with other workers. */
  readonly shared: boolean;
  readonly options: PlainOptions;
  readonly data: unknown;
  readonly paused: boolean;
  readonly waits: boolean;
  /** Maximum size of the heap, in MiB. */
  readonly maxHeapMb: number;
  /** How many connections each worker has. */
  readonly loads: LoadCells;
}

/** Why a connection is rejected, and the value of the limit that it has met, if it was one. */
export interface Rejection {
  readonly reason: AdmissionRejectReason;
  readonly limit?: number;
}

/** What the main isolate has decided about a connection: its number, if it is admitted; or that it is rejected or dropped. */
export type Verdict = { readonly id: number } | Rejection | { readonly drop: true };

/** The figures of a worker's server that no event tells. */
export type Totals = Pick<ServerStats, "lines" | "bytesIn" | "bytesOut" | "handlers" | "hookErrors" | "queued">;

/** A message to a worker. */
export type ToWorker =
  | ToServer
  | { readonly type: "start"; readonly setup: Setup }
  | { readonly type: "verdict"; readonly key: number; readonly verdict: Verdict }
  | { readonly type: "ping" };

/** A message to a worker that its server obeys. */
export type ToServer =
  | { readonly type: "pause" | "resume" | "go-on" | "refresh" }
  | { readonly type: "limits"; readonly limits: ConnLimits; readonly waits: boolean }
  | { readonly type: "shutdown"; readonly options: ShutdownOptions }
  | { readonly type: "close"; readonly id: number; readonly options: CloseOptions }
  | { readonly type: "broadcast"; readonly data: string | Uint8Array; readonly except: number | undefined }
  | { readonly type: "reload"; readonly key: number; readonly data: unknown };

/** An event with plain values, which can be sent. */
export type WireEvent = { readonly type: ServerEvent["type"]; readonly [name: string]: unknown };

/** A message from a worker. */
export type ToMain =
  | { readonly type: "hello" | "ready" | "pong" | "ahead" }
  | { readonly type: "failed"; readonly error: WireError }
  | { readonly type: "ask"; readonly key: number; readonly addr: Deno.Addr }
  | { readonly type: "event"; readonly event: WireEvent }
  | { readonly type: "totals"; readonly totals: Totals }
  | { readonly type: "stopped"; readonly handlersLeft: number; readonly totals: Totals }
  | {
    readonly type: "refreshed";
    readonly totals: Totals;
    readonly conns: readonly (readonly [number, ConnStats])[];
  }
  | { readonly type: "reloaded"; readonly key: number; readonly error?: WireError };

/** An error that can be sent. */
export interface WireError {
  readonly name: string;
  readonly message: string;
  readonly stack?: string;
}

/** Makes an error that can be sent of anything that was thrown. */
export function packError(error: unknown): WireError {
  if (!(error instanceof Error)) return { name: "Error", message: textOf(() => error) };
  // Deno's errors have names such as `NotFound`, by which they are made again.
  const kind = textOf(() => error.constructor.name);
  const name = kind in Deno.errors ? kind : textOf(() => error.name);
  return { name, message: textOf(() => error.message), stack: textOf(() => error.stack ?? "") };
}

/** Returns a value as text. A handler can throw anything, also what has no text, or whose members throw. */
function textOf(value: () => unknown): string {
  try {
    return String(value());
  } catch {
    return "a value without text";
  }
}

const BUILT_IN: Readonly<Record<string, new (message: string) => Error>> = { TypeError, RangeError, SyntaxError };
const KNOWN = new Map([...Object.entries(Deno.errors), ...Object.entries(BUILT_IN)]);

/** Makes an error again: one of Deno's or JavaScript's own has its class, any other has its name alone. */
export function unpackError({ name, message, stack }: WireError): Error {
  const known = KNOWN.get(name);
  const error = known === undefined ? new Error(message) : new known(message);
  if (known === undefined) error.name = name;
  if (stack !== undefined) error.stack = stack;
  return error;
}

/** Makes an event that can be sent. */
export function packEvent(event: ServerEvent): WireEvent {
  const plain: Record<string, unknown> & { type: ServerEvent["type"] } = { ...event };
  if ("conn" in event) plain.conn = plainConn(event.conn);
  if ("remoteAddr" in event) plain.remoteAddr = event.remoteAddr && { ...event.remoteAddr };
  if ("error" in event && event.error !== undefined) plain.error = packError(event.error);
  return plain;
}

/** Makes an event again. */
export function unpackEvent(wire: WireEvent): ServerEvent {
  const event = wire.error === undefined ? wire : { ...wire, error: unpackError(wire.error as WireError) };
  return event as unknown as ServerEvent;
}

function plainConn({ id, remoteAddr, localAddr }: ConnInfo): ConnInfo {
  return { id, remoteAddr: { ...remoteAddr }, localAddr: { ...localAddr } };
}

/** The events of a worker's server that the main isolate passes on; it makes the others itself, one for all workers. */
export function isOfConnection({ type }: ServerEvent): boolean {
  return PASSED_ON.has(type);
}

const PASSED_ON: ReadonlySet<ServerEvent["type"]> = new Set<ServerEvent["type"]>([
  ...["accepted", "closed", "rejected", "gone", "accept-error", "handler-error"] as const,
]);
