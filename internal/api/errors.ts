/**
 * The errors that callers catch, and how messages are worded.
 *
 * @module
 */

import type { Breach, CloseReason, ListenerRejectReason } from "./reasons.ts";

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

/**
 * Characters that can forge or hide text where they are shown: control characters, line and paragraph separators, marks
 * that turn the direction of writing, and halves of surrogate pairs, which no encoding has.
 */
const UNSAFE = /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}\p{Cs}]/gu;

const UNUSUAL = /[^ -~]/;

/**
 * Quotes text that may be anybody's, such as a peer's, so that it stays on its line and shows all that is in it.
 *
 * @param text The text.
 * @returns The text between quotation marks, as JSON has it, with every unsafe character as an escape sequence.
 */
export function quote(text: string): string {
  return escapeUnsafe(JSON.stringify(text));
}

/**
 * Replaces unsafe characters by escape sequences such as `\u009b`, which JSON takes for the same characters.
 *
 * @param text The text.
 * @returns The text in one safe line.
 */
export function escapeUnsafe(text: string): string {
  // Nearly all text is printable ASCII, of which nothing is unsafe.
  if (!UNUSUAL.test(text)) return text;
  return text.replace(UNSAFE, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/**
 * A number of things, such as `1 line` and `2 lines`.
 *
 * @param number How many there are.
 * @param noun What one of them is called.
 * @returns Both, with the plural where it belongs.
 */
export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
