/**
 * What the clients of the admin port may take.
 *
 * @module
 */

/** Maximum sizes, times and numbers; times are in milliseconds. */
export interface Bounds {
  /** Maximum number of connections. Above it, the one that has waited longest for a request makes room. */
  readonly connections: number;
  /** Maximum time for the head of a request, from the connection or the answer before. */
  readonly headMs: number;
  /** Maximum time for a whole request. */
  readonly requestMs: number;
  /** Maximum time for an answer, from the head of the request until the client has taken all of it. */
  readonly replyMs: number;
  /** Maximum time without a request, after an answer. */
  readonly idleMs: number;
  /** Maximum size of a head, in bytes. */
  readonly headBytes: number;
  /** Maximum size of a body, in bytes. */
  readonly bodyBytes: number;
  /** Maximum number of streams of events. */
  readonly streams: number;
  /** Time between two events. */
  readonly eventMs: number;
  /** Maximum time in which the client of a stream has to take one event. */
  readonly eventTakenMs: number;
  /** Maximum time of a stream. After it, the page asks for another one. */
  readonly streamMs: number;
  /** Maximum time for the last answers when the port closes. */
  readonly closeMs: number;
}

/** The bounds of a port. */
export const BOUNDS: Bounds = {
  connections: 64,
  headMs: 5000,
  requestMs: 10_000,
  replyMs: 15_000,
  idleMs: 5000,
  headBytes: 8 * 1024,
  bodyBytes: 64 * 1024,
  streams: 10,
  eventMs: 1000,
  eventTakenMs: 10_000,
  streamMs: 60 * 60 * 1000,
  closeMs: 500,
};
