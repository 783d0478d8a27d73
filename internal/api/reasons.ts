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
 * - `read-too-long`: a handler's `readExactly` or `readUntil` met its `maxBytes`, and the handler let the error end it
 * - `read-rate`: a body came more slowly than `minBytesPerSecond`
 * - `unterminated`: the input ended within a line, and `framing.unterminated` is `error`
 * - `invalid-text`: a line was not valid UTF-8, and `framing.invalidText` is `error`
 * - `deadline`: the time that the handler had set with `conn.setDeadline` was up
 * - `memory`: unfinished lines, and replies that peers had not taken, passed `maxBufferedBytes` together, and this
 *   connection held the most
 * - `misdirected`: the peer spoke HTTP or TLS, and `answerMisdirected` is on
 * - `starttls-injection`: the peer had sent plain text behind the command for which the handler began TLS
 * - `tls-handshake`: the handshake that the handler began with `conn.startTls` failed, or took too long
 * - `write-queue`: more than `maxQueuedBytes` waited to be written
 * - `drained`: a shutdown with `drain: "finish"` closed it after everything was answered
 * - `drain-timeout`: it was still open at the end of a shutdown's `drainTimeout`
 * - `handler-error`: the handler or the option `data` threw
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
  | "read-too-long"
  | "read-rate"
  | "unterminated"
  | "invalid-text"
  | "deadline"
  | "memory"
  | "misdirected"
  | "starttls-injection"
  | "tls-handshake"
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
  "read-too-long": true,
  "read-rate": true,
  "unterminated": true,
  "invalid-text": true,
  "deadline": true,
  "memory": true,
  "misdirected": true,
  "starttls-injection": true,
  "tls-handshake": true,
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
 * - `penalty`: its client was rejected again and again, and is shut out for a while, `maxPenaltyMs` at most; the
 *   connection is closed at once, without an error line
 * - `denied`: its address is on the list `deny`, or not on the list `allow`
 * - `refused`: the hook `admit` returned `false`, threw, or did not settle within `admitTimeout`
 *
 * or by its listener.
 */
export type RejectReason = AdmissionRejectReason | ListenerRejectReason;

/** Every reason as a key: its type makes the compiler report one that is missing. */
const ALL_REJECTS: Record<RejectReason, true> = {
  "max-connections": true,
  "max-connections-per-ip": true,
  "accept-rate-per-ip": true,
  "penalty": true,
  "denied": true,
  "refused": true,
  "proxy-header": true,
  "tls-handshake": true,
};

/** Every {@linkcode RejectReason}, in the order of its documentation. */
export const REJECT_REASONS = Object.keys(ALL_REJECTS) as readonly RejectReason[];

/** Why the server rejected a connection. */
export type AdmissionRejectReason =
  | "max-connections"
  | "max-connections-per-ip"
  | "accept-rate-per-ip"
  | "penalty"
  | "denied"
  | "refused";

/**
 * Why a listener rejected a connection:
 *
 * - `proxy-header`: a proxy's PROXY header was malformed, missing or late
 * - `tls-handshake`: the TLS handshake failed or took too long, or the client's certificate was not accepted
 */
export type ListenerRejectReason = "proxy-header" | "tls-handshake";

/** What was wrong with the input: a limit of size that it passed, or text that `framing` refuses. */
export type Breach = SizeBreach | "read-too-long" | "unterminated" | "invalid-text";

/** The limit of size that the input passed, however it is read. */
export type SizeBreach = "line-too-long" | "byte-limit";

const BREACHES: ReadonlySet<CloseReason> = new Set<Breach>([
  ...["line-too-long", "byte-limit", "read-too-long", "unterminated", "invalid-text"] as const,
]);

/** Whether a connection ended because something was wrong with its input. */
export function isBreach(reason: CloseReason): reason is Breach {
  return BREACHES.has(reason);
}

/**
 * Whether `lastWords` is asked what to tell the peer at the end: it is if the server ends the connection, and the peer
 * can still read.
 */
export function hasLastWords(reason: CloseReason): boolean {
  return !WITHOUT_WORDS.has(reason);
}

const WITHOUT_WORDS: ReadonlySet<CloseReason> = new Set<CloseReason>([
  ...["end", "reset", "closed", "misdirected", "starttls-injection", "tls-handshake"] as const,
  ...["write-timeout", "write-queue", "drain-timeout", "transport-error"] as const,
]);
