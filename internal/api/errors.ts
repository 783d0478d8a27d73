/**
 * The errors that callers catch.
 *
 * @module
 */

import type { Breach } from "../lines/limiter.ts";
import type { CloseReason, ListenerRejectReason } from "./reasons.ts";

/** Text that a peer sent went past a limit. */
export class LimitError extends Error {
  /** Which limit: a line's length or the whole input's. */
  readonly reason: Breach;
  /** The limit's value, in bytes. */
  readonly limit: number;

  /**
   * Says which limit it was.
   *
   * @param reason Which limit was passed.
   * @param limit Its value, in bytes.
   */
  constructor(reason: Breach, limit: number) {
    super(reason === "line-too-long" ? `Line longer than ${limit} bytes` : `Input longer than ${limit} bytes`);
    this.name = "LimitError";
    this.reason = reason;
    this.limit = limit;
  }
}

/** Something was written to a connection that has ended. */
export class ConnectionClosedError extends Error {
  /** Why the connection ended. */
  readonly reason: CloseReason;

  /**
   * Says why nothing can be written.
   *
   * @param reason Why the connection ended.
   */
  constructor(reason: CloseReason) {
    super(`Cannot write: the connection has ended (${reason})`);
    this.name = "ConnectionClosedError";
    this.reason = reason;
  }
}

/**
 * A listener has turned one connection away and closed it. Its `accept` rejects with this to say so: the server counts
 * the connection as rejected (or as gone, if its peer had left), tells it as an event, and accepts on without a pause.
 */
export class AcceptRejection extends Error {
  /** Why it was turned away; `gone` if its peer had left without a byte. */
  readonly reason: ListenerRejectReason | "gone";
  /** The peer's address. */
  readonly remoteAddr: Deno.Addr;

  /**
   * Says which connection was turned away.
   *
   * @param reason Why it was turned away; `gone` if its peer had left without a byte.
   * @param remoteAddr The peer's address.
   * @param options What was wrong with it, as the `cause`.
   */
  constructor(reason: ListenerRejectReason | "gone", remoteAddr: Deno.Addr, options?: ErrorOptions) {
    super(`Connection turned away (${reason})`, options);
    this.name = "AcceptRejection";
    this.reason = reason;
    this.remoteAddr = remoteAddr;
  }
}

/** A promise whose rejection is safe to ignore: a connection that has ended is no reason to end the process. */
export function harmless<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}
