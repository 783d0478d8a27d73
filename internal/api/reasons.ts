/**
 * The reasons for which connections end. Counters, events and logs all use these lists.
 *
 * @module
 */

/**
 * Why a connection ended. Every accepted connection ends for exactly one of these reasons:
 *
 * - `end`: the peer ended its side, and everything was answered
 * - `reset`: the peer reset the connection, or no longer answers the kernel
 * - `closed`: the handler closed it, or a conversation handler returned
 * - `first-line-timeout`: the peer sent no byte within `firstLineTimeout`, and `idleTimeout` had not expired yet
 * - `idle`: nothing was read or written for `idleTimeout` while the server waited for the peer
 * - `line-timeout`: the peer began a line and did not finish it within `lineTimeout`
 * - `write-timeout`: the peer took too little of a block of replies within `writeTimeout`
 * - `handler-timeout`: the handler took longer than `handlerTimeout`, or than `halfCloseTimeout` after the peer had
 *   ended its side
 * - `max-age`: the connection was older than `maxAge`
 * - `max-lines`: the peer had sent `maxLines` lines
 * - `line-too-long`: a line was longer than `maxLineBytes`
 * - `byte-limit`: the peer sent more than `maxConnectionBytes`
 * - `memory`: unfinished lines, and replies that peers had not taken, passed `maxBufferedBytes` together, and this
 *   connection held the most
 * - `misdirected`: the peer spoke HTTP or TLS, and `answerMisdirected` is on
 * - `write-queue`: more than `maxQueuedBytes` waited to be written
 * - `drained`: a shutdown with `drain: "finish"` closed it after everything was answered
 * - `drain-timeout`: it was still open at the end of a shutdown's `drainTimeout`
 * - `handler-error`: the handler threw
 * - `transport-error`: reading or writing failed for any other reason
 */
export type CloseReason =
  | "end"
  | "reset"
  | "closed"
  | "first-line-timeout"
  | "idle"
  | "line-timeout"
  | "write-timeout"
  | "handler-timeout"
  | "max-age"
  | "max-lines"
  | "line-too-long"
  | "byte-limit"
  | "memory"
  | "misdirected"
  | "write-queue"
  | "drained"
  | "drain-timeout"
  | "handler-error"
  | "transport-error";

/** Every reason as a key: its type makes the compiler report one that is missing. */
const ALL: Record<CloseReason, true> = {
  "end": true,
  "reset": true,
  "closed": true,
  "first-line-timeout": true,
  "idle": true,
  "line-timeout": true,
  "write-timeout": true,
  "handler-timeout": true,
  "max-age": true,
  "max-lines": true,
  "line-too-long": true,
  "byte-limit": true,
  "memory": true,
  "misdirected": true,
  "write-queue": true,
  "drained": true,
  "drain-timeout": true,
  "handler-error": true,
  "transport-error": true,
};

/** Every {@linkcode CloseReason}, in the order of its documentation. */
export const CLOSE_REASONS = Object.keys(ALL) as readonly CloseReason[];

/**
 * Why a connection was rejected before it was served, by the server:
 *
 * - `max-connections`: `maxConnections` were open already
 * - `max-connections-per-ip`: its client had `maxConnectionsPerIp` open already
 * - `accept-rate-per-ip`: its client opens connections faster than `acceptRatePerIp`; the connection is closed at once,
 *   without an error line
 * - `denied`: its address is on the list `deny`, or not on the list `allow`
 *
 * or by its listener.
 */
export type RejectReason = AdmissionRejectReason | ListenerRejectReason;

/** Why the server rejected a connection. */
export type AdmissionRejectReason = "max-connections" | "max-connections-per-ip" | "accept-rate-per-ip" | "denied";

/**
 * Why a listener rejected a connection:
 *
 * - `proxy-header`: a proxy's PROXY header was malformed, missing or late
 * - `tls-handshake`: the TLS handshake failed or took too long, or the client's certificate was not accepted
 */
export type ListenerRejectReason = "proxy-header" | "tls-handshake";

/** The limit of size that was passed. */
export type Breach = "line-too-long" | "byte-limit";

/** The reasons that an error line tells the peer before the connection is closed: limits that the peer can respect. */
export type ErrorLineReason =
  | "line-too-long"
  | "byte-limit"
  | "memory"
  | Exclude<AdmissionRejectReason, "accept-rate-per-ip">;
