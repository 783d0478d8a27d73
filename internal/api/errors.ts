/**
 * The errors that callers catch, functions that word messages, and what is shown of an object.
 *
 * @module
 */

import type { CloseReason, ListenerRejectReason, SizeBreach } from "./reasons.ts";

/** Input was longer than a limit of size. */
export class LimitError extends Error {
  /** The limit: the length of a line, that of the whole input, or `maxBytes` of one read. */
  readonly reason: SizeBreach | "read-too-long";
  /** The limit's value, in bytes. */
  readonly limit: number;

  /**
   * Makes an error that names the limit.
   *
   * @param reason The limit that was passed.
   * @param limit Its value, in bytes.
   */
  constructor(reason: SizeBreach | "read-too-long", limit: number) {
    super(`${SUBJECTS[reason]} longer than ${reason === "read-too-long" ? "maxBytes, " : ""}${limit} bytes`);
    this.name = "LimitError";
    this.reason = reason;
    this.limit = limit;
  }
}

const SUBJECTS: Readonly<Record<SizeBreach | "read-too-long", string>> = {
  "line-too-long": "Line",
  "byte-limit": "Input",
  "read-too-long": "Data of one read",
};

/** A handler wrote to a connection, or to a side of it, that has ended; or it ended when TLS was to begin. */
export class ConnectionClosedError extends Error {
  /** Why the connection ended; `closed` also if only this side has ended, as after `conn.closeWrite()`. */
  readonly reason: CloseReason;

  /**
   * Makes an error that names the reason of the end.
   *
   * @param reason Why the connection ended; undefined if it goes on, and only this side has ended.
   * @param what What cannot be done, to be read after "Cannot".
   * @param options The underlying error, as `cause`.
   */
  constructor(reason: CloseReason | undefined, what: "write" | "begin TLS" = "write", options?: ErrorOptions) {
    const ended = reason === undefined ? "this side has ended" : `the connection has ended (${reason})`;
    super(`Cannot ${what}: ${ended}`, options);
    this.name = "ConnectionClosedError";
    this.reason = reason ?? "closed";
  }
}

/**
 * A listener has rejected one connection and closed it. The listener's `accept` rejects with this error. The server
 * then counts the connection as rejected (or as gone, if the peer had left), emits an event, and accepts the next
 * connection without a pause.
 */
export class AcceptRejection extends Error {
  /** Why the listener rejected it; `gone` if the peer had left without sending a byte. */
  readonly reason: ListenerRejectReason | "gone";
  /** The peer's address. */
  readonly remoteAddr: Deno.Addr;

  /**
   * Makes an error for one connection.
   *
   * @param reason Why the listener rejected it; `gone` if the peer had left without sending a byte.
   * @param remoteAddr The peer's address.
   * @param options The underlying error, as `cause`.
   */
  constructor(reason: ListenerRejectReason | "gone", remoteAddr: Deno.Addr, options?: ErrorOptions) {
    super(`Connection rejected (${reason})`, options);
    this.name = "AcceptRejection";
    this.reason = reason;
    this.remoteAddr = remoteAddr;
  }
}

/** The classes of errors that can be made anew with another message. */
const KINDS: ReadonlySet<unknown> = new Set([Error, URIError, ...Object.values(Deno.errors)]);

/**
 * Says what could not be done, before the system's reason, in an error of the same class and with its code. An error of
 * another kind, such as one of an option, stays.
 */
export function prefixed(what: string, error: unknown): unknown {
  if (!(error instanceof Error) || !KINDS.has(error.constructor)) return error;
  const kind = error.constructor as new (message: string, options: ErrorOptions) => Error;
  const { code } = error as { code?: string };
  return Object.assign(new kind(`${what}: ${error.message}`, { cause: error }), code !== undefined && { code });
}

/** Marks a promise's rejection as handled, so that a caller that ignores the promise does not end the process. */
export function harmless<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

/** Returns a promise that rejects with an error, and whose rejection a caller may ignore. */
export function rejection(error: unknown): Promise<never> {
  return harmless(Promise.reject(error));
}

/** Calls a function of the caller's, and ignores what it throws, or rejects with if it is async. */
export function ignoreErrors(call: () => unknown): void {
  try {
    const result = call();
    if (result instanceof Promise) harmless(result);
  } catch {
    // The functions whose errors are ignored say so in their documentation.
  }
}

/**
 * Characters that can forge or hide text on a screen or in a log: control characters, line and paragraph separators,
 * marks that change the direction of writing, and halves of surrogate pairs, which UTF-8 cannot encode.
 */
const UNSAFE = /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}\p{Cs}]/gu;

const UNUSUAL = /[^ -~]/;

/**
 * Quotes text that may come from a peer, so that it stays on one line and hides nothing.
 *
 * @param text The text.
 * @returns The text as a JSON string, with every unsafe character as an escape sequence.
 */
export function quote(text: string): string {
  return escapeUnsafe(JSON.stringify(text));
}

/**
 * Replaces unsafe characters by escape sequences such as `\u009b`, which JSON reads as the same characters.
 *
 * @param text The text.
 * @returns The text, on one line and safe to show.
 */
export function escapeUnsafe(text: string): string {
  // Nearly all text is printable ASCII, which has no unsafe character: the first test is the fast path.
  if (!UNUSUAL.test(text)) return text;
  return text.replace(UNSAFE, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/**
 * Returns a number and its noun, such as `1 line` and `2 lines`.
 *
 * @param number The number.
 * @param noun The noun, in the singular.
 * @returns Both; the noun has an `s` unless the number is 1.
 */
export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** The method by which Deno shows an object. */
const INSPECT = Symbol.for("Deno.customInspect");

/**
 * Has `console.log` and JSON show an object's public properties in place of its fields: those are parts of the server.
 *
 * @param type The class.
 * @param name What the object is called.
 * @param properties The properties to show.
 */
export function showAs<T>(type: { readonly prototype: T }, name: string, properties: readonly (keyof T)[]): void {
  function toJSON(this: T): Record<string, unknown> {
    return Object.fromEntries(properties.map((property) => [property, valueOf(this, property)]));
  }
  function inspect(this: T, inspect: typeof Deno.inspect, options: Deno.InspectOptions): string {
    return `${name} ${inspect(toJSON.call(this), options)}`;
  }
  const methods = { [INSPECT]: inspect, toJSON };
  for (const key of Reflect.ownKeys(methods)) {
    Object.defineProperty(type.prototype, key, {
      value: Reflect.get(methods, key),
      configurable: true,
      writable: true,
    });
  }
}

/** A property's value; undefined if it cannot be read, such as the address of a custom transport that is closed. */
function valueOf<T>(object: T, property: keyof T): unknown {
  try {
    return object[property];
  } catch {
    return undefined;
  }
}
