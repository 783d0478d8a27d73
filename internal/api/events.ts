/**
 * The events of a server.
 *
 * @module
 */

import type { CloseReason, RejectReason } from "./reasons.ts";
import type { ServerLimits } from "./serve_options.ts";

/** The connection of an event. */
export interface ConnInfo {
  /** The connection's number, from 1, in the order of acceptance. */
  readonly id: number;
  /** The peer's address. */
  readonly remoteAddr: Deno.Addr;
  /** This side's address. */
  readonly localAddr: Deno.Addr;
}

/** The server listens on an address. These are its first events, one for each address. */
export interface ListeningEvent {
  /** The kind of event. */
  readonly type: "listening";
  /** Where it listens, with the real port. */
  readonly addr: Deno.Addr;
}

/** A connection was accepted. Each accepted connection has one such event, and one {@linkcode ClosedEvent}. */
export interface AcceptedEvent {
  /** The kind of event. */
  readonly type: "accepted";
  /** The connection. */
  readonly conn: ConnInfo;
}

/** The input and output of one or more connections. */
export interface Traffic {
  /** The number of whole lines read. */
  readonly lines: number;
  /** The number of bytes read. */
  readonly bytesIn: number;
  /** The number of bytes written. */
  readonly bytesOut: number;
}

/** A connection has ended, and its transport is closed. */
export interface ClosedEvent extends Traffic {
  /** The kind of event. */
  readonly type: "closed";
  /** The connection. */
  readonly conn: ConnInfo;
  /** Why it ended. */
  readonly reason: CloseReason;
  /**
   * The error, if the reason is `reset`, `tls-handshake`, `handler-error` or `transport-error`; or what `conn.writable`
   * or the signal of `connect` was aborted with.
   */
  readonly error?: unknown;
  /** The handler's own word for the end, from `conn.close` or `conn.setDeadline`. */
  readonly detail?: string;
  /** The time from its acceptance to its end, in milliseconds. */
  readonly durationMs: number;
}

/** A connection was rejected. It does not count as accepted. */
export interface RejectedEvent {
  /** The kind of event. */
  readonly type: "rejected";
  /** The peer's address. */
  readonly remoteAddr: Deno.Addr;
  /** The limit that it met, or why the listener rejected it. */
  readonly reason: RejectReason;
  /** The limit's value, if the limit has one. */
  readonly limit?: number;
  /**
   * The error, if the listener rejected it, or if `admit` failed; a `Deno.errors.TimedOut` if the peer or `admit` was
   * too slow.
   */
  readonly error?: unknown;
}

/**
 * A peer left before it was served: it reset its connection before the server accepted it, or it left without sending a
 * byte where the server expected a PROXY header or a TLS handshake. Health checks and port scans do this. The
 * connection counts neither as accepted nor as rejected.
 */
export interface GoneEvent {
  /** The kind of event. */
  readonly type: "gone";
  /** The peer's address, if it is still known. */
  readonly remoteAddr?: Deno.Addr;
  /** The error by which the server noticed. */
  readonly error: unknown;
}

/** Accepting failed, or an accepted connection has no address. The server goes on. */
export interface AcceptErrorEvent {
  /** The kind of event. */
  readonly type: "accept-error";
  /** What was thrown. */
  readonly error: unknown;
  /** The time until the server tries again, in milliseconds; mostly 0 if the error concerns one connection only. */
  readonly retryMs: number;
}

/**
 * A handler or the option `data` threw. This ends its connection, unless that is ending already, and nothing else. If the
 * handler throws after the connection's end, this event comes after its {@linkcode ClosedEvent}.
 */
export interface HandlerErrorEvent {
  /** The kind of event. */
  readonly type: "handler-error";
  /** The handler's connection. */
  readonly conn: ConnInfo;
  /** What was thrown. */
  readonly error: unknown;
}

/** The server accepts no more connections until it is resumed; see `server.pause`. */
export interface PausedEvent {
  /** The kind of event. */
  readonly type: "paused";
}

/** The server accepts connections again. */
export interface ResumedEvent {
  /** The kind of event. */
  readonly type: "resumed";
}

/** Limits of the running server have been changed; see `server.setLimits`. */
export interface LimitsChangedEvent {
  /** The kind of event. */
  readonly type: "limits-changed";
  /** The limits that the call has set. */
  readonly limits: Readonly<ServerLimits>;
}

/** A shutdown has begun with a delay: the server still accepts connections. */
export interface LameDuckEvent {
  /** The kind of event. */
  readonly type: "lame-duck";
  /** The time until it drains, in milliseconds. */
  readonly delayMs: number;
}

/** A drain has begun: the server accepts no more connections. */
export interface DrainingEvent {
  /** The kind of event. */
  readonly type: "draining";
  /** The number of open connections. */
  readonly active: number;
}

/** A shutdown waits for connections to end. Emitted every 500 ms. */
export interface WaitingEvent {
  /** The kind of event. */
  readonly type: "waiting";
  /** The number of open connections. */
  readonly active: number;
}

/** The server is closed. This is the last event. */
export interface StoppedEvent {
  /** The kind of event. */
  readonly type: "stopped";
  /** How the shutdown went. */
  readonly report: ShutdownReport;
}

/** The result of a shutdown. */
export interface ShutdownReport {
  /**
   * The number of connections that have ended since the drain began, by reason; a reason with none is left out. Those
   * that ended during the delay before it are not counted.
   */
  readonly closed: Readonly<Partial<Record<CloseReason, number>>>;
  /**
   * The number of handlers that were still at work at the deadline. Their connections have ended, and the shutdown no
   * longer waits for them.
   */
  readonly handlersLeft: number;
  /**
   * The number of listeners that had not closed a second after the deadline, so that their addresses may not be free;
   * absent if there are none. No listener of this package is ever one of them.
   */
  readonly listenersLeft?: number;
  /** The time from the beginning of the drain, after the delay, to the end, in milliseconds. */
  readonly durationMs: number;
}

/** Any event of a server; its `type` tells which. */
export type ServerEvent =
  | ListeningEvent
  | AcceptedEvent
  | ClosedEvent
  | RejectedEvent
  | GoneEvent
  | AcceptErrorEvent
  | HandlerErrorEvent
  | PausedEvent
  | ResumedEvent
  | LimitsChangedEvent
  | LameDuckEvent
  | DrainingEvent
  | WaitingEvent
  | StoppedEvent;
