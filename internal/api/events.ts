/**
 * What a server tells about itself.
 *
 * @module
 */

import type { CloseReason, RejectReason } from "./reasons.ts";

/** What an event says of a connection. */
export interface ConnInfo {
  /** The connection's number, from 1, in the order of acceptance. */
  readonly id: number;
  /** The peer's address. */
  readonly remoteAddr: Deno.Addr;
  /** This side's address. */
  readonly localAddr: Deno.Addr;
}

/** The server listens; the first event. */
export interface ListeningEvent {
  /** Tells the events apart. */
  readonly type: "listening";
  /** Where it listens, with the real port. */
  readonly addr: Deno.Addr;
}

/** A connection was accepted; each has one such event, and one {@linkcode ClosedEvent}. */
export interface AcceptedEvent {
  /** Tells the events apart. */
  readonly type: "accepted";
  /** The connection. */
  readonly conn: ConnInfo;
}

/** A connection ended and is free. */
export interface ClosedEvent {
  /** Tells the events apart. */
  readonly type: "closed";
  /** The connection. */
  readonly conn: ConnInfo;
  /** Why it ended. */
  readonly reason: CloseReason;
  /** What was thrown, where the reason is `reset`, `handler-error` or `transport-error`. */
  readonly error?: unknown;
  /** Whole lines that came. */
  readonly lines: number;
  /** Bytes that came. */
  readonly bytesIn: number;
  /** Bytes that left. */
  readonly bytesOut: number;
  /** From its acceptance to its end, in milliseconds. */
  readonly durationMs: number;
}

/** A connection was turned away; it does not count as accepted. */
export interface RejectedEvent {
  /** Tells the events apart. */
  readonly type: "rejected";
  /** The peer's address. */
  readonly remoteAddr: Deno.Addr;
  /** Which limit it met, or why the listener refused it. */
  readonly reason: RejectReason;
  /** The limit's value, where it met one. */
  readonly limit?: number;
  /** What was wrong with it, where the listener refused it; a `Deno.errors.TimedOut` if that was its slowness. */
  readonly error?: unknown;
}

/**
 * A peer left before it was served: it reset its connection before that was accepted, or it left without a byte where a
 * PROXY header or a TLS handshake was expected. Health checks and port scans do so. It counts neither as accepted nor as
 * rejected.
 */
export interface GoneEvent {
  /** Tells the events apart. */
  readonly type: "gone";
  /** The peer's address, where it is still known. */
  readonly remoteAddr?: Deno.Addr;
  /** What its leaving looked like. */
  readonly error: unknown;
}

/** Accepting failed, or what was accepted has no address; the server goes on. */
export interface AcceptErrorEvent {
  /** Tells the events apart. */
  readonly type: "accept-error";
  /** What was thrown. */
  readonly error: unknown;
  /** In how many milliseconds it tries again; mostly 0 where the error was one connection's own. */
  readonly retryMs: number;
}

/** A handler threw, which ends its connection and nothing else. */
export interface HandlerErrorEvent {
  /** Tells the events apart. */
  readonly type: "handler-error";
  /** The handler's connection. */
  readonly conn: ConnInfo;
  /** What was thrown. */
  readonly error: unknown;
}

/** A shutdown began. */
export interface DrainingEvent {
  /** Tells the events apart. */
  readonly type: "draining";
  /** Connections that are still there. */
  readonly active: number;
}

/** A shutdown waits; told every 500 ms. */
export interface WaitingEvent {
  /** Tells the events apart. */
  readonly type: "waiting";
  /** Connections that are still there. */
  readonly active: number;
}

/** The server is closed; the last event. */
export interface StoppedEvent {
  /** Tells the events apart. */
  readonly type: "stopped";
  /** How the connections ended that the shutdown found. */
  readonly report: ShutdownReport;
}

/** How a shutdown went. */
export interface ShutdownReport {
  /** How many connections ended during the shutdown, by reason; a reason without any is left out. */
  readonly closed: Readonly<Partial<Record<CloseReason, number>>>;
  /** How many handlers were still at work at the deadline, and were given up: their connections have ended. */
  readonly handlersLeft: number;
  /** How long it took, in milliseconds. */
  readonly durationMs: number;
}

/** Everything that a server tells, told apart by `type`. */
export type ServerEvent =
  | ListeningEvent
  | AcceptedEvent
  | ClosedEvent
  | RejectedEvent
  | GoneEvent
  | AcceptErrorEvent
  | HandlerErrorEvent
  | DrainingEvent
  | WaitingEvent
  | StoppedEvent;
