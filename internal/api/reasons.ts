/**
 * Why connections end. The one list: counters, events and logs follow it.
 *
 * @module
 */

/**
 * Why a connection ended. Every accepted connection ends for exactly one of these:
 *
 * - `end`: the peer ended its side and everything was answered
 * - `reset`: the peer broke the connection off
 * - `closed`: the handler closed it, or a conversation handler returned
 * - `first-line-timeout`: it had not begun its first line within `firstLineTimeout`, which is less than `idleTimeout`
 * - `idle`: nothing was read or written for `idleTimeout` while the server waited for the peer
 * - `line-timeout`: a line was begun and not finished within `lineTimeout`
 * - `write-timeout`: the peer did not take a block of replies within `writeTimeout`
 * - `handler-timeout`: the handler took longer than `handlerTimeout`, or `halfCloseTimeout` once the peer had ended its side
 * - `max-age`: it was older than `maxAge`
 * - `max-lines`: it had sent `maxLines`
 * - `line-too-long`: a line was longer than `maxLineBytes`
 * - `byte-limit`: the peer sent more than `maxConnectionBytes`
 * - `memory`: its unfinished line was the largest when all of them passed `maxBufferedBytes`
 * - `misdirected`: it spoke HTTP or TLS, and `answerMisdirected` is on
 * - `write-queue`: more than `maxQueuedBytes` waited to be written
 * - `drained`: a shutdown with `drain: "finish"` closed it, everything being answered
 * - `drain-timeout`: it was still there at the end of a shutdown's `drainTimeout`
 * - `handler-error`: the handler threw
 * - `transport-error`: reading or writing failed in a way that is none of the above
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

/** The compiler sees to it that none is missing. */
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
 * Why a connection was turned away before it was served, by the server:
 *
 * - `max-connections`: there were `maxConnections` already
 * - `max-connections-per-ip`: its client had `maxConnectionsPerIp` already
 * - `accept-rate-per-ip`: its client opens connections faster than `acceptRatePerIp`; closed at once, without a line
 * - `denied`: its address is on the list `deny`, or not on the list `allow`
 *
 * or by its listener.
 */
export type RejectReason = AdmissionRejectReason | ListenerRejectReason;

/** Why the server turned a connection away. */
export type AdmissionRejectReason = "max-connections" | "max-connections-per-ip" | "accept-rate-per-ip" | "denied";

/**
 * Why a listener turned a connection away:
 *
 * - `proxy-header`: a proxy's PROXY header was malformed, missing or late
 * - `tls-handshake`: the TLS handshake failed or took too long, or the client's certificate did not hold
 */
export type ListenerRejectReason = "proxy-header" | "tls-handshake";

/** Which of the two limits of size was passed. */
export type Breach = "line-too-long" | "byte-limit";

/** What the peer is told before the server hangs up: the limits that it can do something about. */
export type ErrorLineReason =
  | "line-too-long"
  | "byte-limit"
  | "memory"
  | Exclude<AdmissionRejectReason, "accept-rate-per-ip">;
