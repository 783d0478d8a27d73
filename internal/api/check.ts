/**
 * Checks options, before anything is bound, and what functions of the caller return. An error names what is checked, its
 * value, and what is allowed.
 *
 * @module
 */

import { quote } from "./errors.ts";

/** Defaults of options that several modules use; each option's documentation says what it means. */
export const DEFAULT_HOSTNAME = "0.0.0.0";
export const DEFAULT_PORT = 8080;
export const DEFAULT_KEEP_ALIVE_MS = 15_000;
export const DEFAULT_BUFFERED_BYTES: number = 128 * 1024 * 1024;
export const DEFAULT_DRAIN = "linger" as const;
export const DEFAULT_DRAIN_TIMEOUT = 10_000;
export const DEFAULT_ADMIT_TIMEOUT = 5000;

/** Maximum delay of a timer, in milliseconds: 2^31 - 1, about 24 days. */
export const LONGEST_MS: number = 2 ** 31 - 1;

/** Maximum size of a buffer, in bytes: its text still fits into one string. */
export const LARGEST_BYTES: number = 2 ** 28;

/** Minimum of `keepAliveMs`: the kernel counts this time in whole seconds. */
export const LEAST_KEEP_ALIVE_MS = 1000;

/** Maximum of `keepAliveMs` that the kernel accepts. */
export const MOST_KEEP_ALIVE_MS = 32_767_000;

/**
 * Checks that a value is an object of options. The likely mistakes are a handler in its place, and a promise of options,
 * which would be taken for options that are all left out.
 */
export function checkOptions(name: string, value: unknown): void {
  if (typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Promise)) return;
  throw new TypeError(`Cannot use ${name}: expected an object, got ${show(value)}`);
}

/** Returns options with changes, of which those that are undefined leave what they name as it is. */
export function withChanges<T extends object>(options: T, changes: { readonly [Name in keyof T]?: unknown }): T {
  checkOptions("limits", changes);
  const given = Object.entries(changes).filter(([, value]) => value !== undefined);
  return { ...options, ...Object.fromEntries(given) };
}

/** Returns those of all options that changes have set. The caller's object can name others, which have changed nothing. */
export function changedBy<T extends object>(changes: { readonly [Name in keyof T]?: unknown }, options: T): Partial<T> {
  const given = Object.entries(options).filter(([name]) => changes[name as keyof T] !== undefined);
  return Object.fromEntries(given) as Partial<T>;
}

/** Checks a time in milliseconds: more than 0, or `Infinity`, which switches it off. */
export function checkTimeout(name: string, value: number): void {
  checkNumber(name, value);
  if (value === Infinity || value > 0 && value <= LONGEST_MS) return;
  throw new RangeError(`Cannot use ${name} ${value}: expected more than 0 and at most ${LONGEST_MS} ms, or Infinity`);
}

/** Checks `keepAliveMs`: a time that the kernel accepts, or `Infinity`, which switches it off. */
export function checkKeepAlive(keepAliveMs: number): void {
  checkNumber("keepAliveMs", keepAliveMs);
  if (keepAliveMs === Infinity || keepAliveMs >= LEAST_KEEP_ALIVE_MS && keepAliveMs <= MOST_KEEP_ALIVE_MS) return;
  const allowed = `expected ${LEAST_KEEP_ALIVE_MS} to ${MOST_KEEP_ALIVE_MS} ms, or Infinity`;
  throw new RangeError(`Cannot use keepAliveMs ${keepAliveMs}: ${allowed}`);
}

/** Checks a whole number from `least` to `most`. If `most` is `Infinity`, the value may be `Infinity` too. */
export function checkWhole(name: string, value: number, least: number, most: number): void {
  checkNumber(name, value);
  const whole = Number.isSafeInteger(value) || value === Infinity;
  if (whole && value >= least && value <= most) return;
  const range = most === Infinity ? `of at least ${least}, or Infinity` : `from ${least} to ${most}`;
  throw new RangeError(`Cannot use ${name} ${value}: expected a whole number ${range}`);
}

/** Checks a number of bytes to read. */
export function checkCount(name: string, value: number): void {
  checkWhole(name, value, 0, Number.MAX_SAFE_INTEGER);
}

/** Checks a rate per second: more than 0. `off` is the value that switches it off. */
export function checkRate(name: string, value: number, off = "Infinity"): void {
  checkNumber(name, value);
  if (value > 0 && (value !== Infinity || off === "Infinity")) return;
  throw new RangeError(`Cannot use ${name} ${value}: expected more than 0 per second, or ${off}`);
}

/**
 * Checks the number of bytes that a call of a transport has transferred: from 1 to `most`. A transport of the caller's own
 * may return anything, and a wrong number would spoil the counters of the whole server.
 */
export function checkTransferred(call: "read" | "write", count: unknown, most: number): asserts count is number {
  if (typeof count === "number" && Number.isInteger(count) && count > 0 && count <= most) return;
  const allowed = `expected a whole number from 1 to ${most}${call === "read" ? ", or null at the end of input" : ""}`;
  throw new RangeError(`Cannot use what ${call} returned: ${allowed}, got ${show(count)}`);
}

/** Checks the size of a buffer that is allocated. */
export function checkBufferBytes(name: string, value: number): void {
  checkWhole(name, value, 1, LARGEST_BYTES);
}

/** Checks the longest penalty, in milliseconds. */
export function checkPenalty(maxPenaltyMs: number): void {
  checkNumber("maxPenaltyMs", maxPenaltyMs);
  if (maxPenaltyMs >= 1000 && maxPenaltyMs <= LONGEST_MS) return;
  throw new RangeError(`Cannot use maxPenaltyMs ${maxPenaltyMs}: expected 0, or 1000 to ${LONGEST_MS} ms`);
}

/** Checks a time in milliseconds that may be 0. */
export function checkDelay(name: string, value: number): void {
  checkNumber(name, value);
  if (value >= 0 && value <= LONGEST_MS) return;
  throw new RangeError(`Cannot use ${name} ${value}: expected 0 to ${LONGEST_MS} ms`);
}

/** Checks that a value is one of the given words. */
export function checkWord(name: string, value: unknown, words: readonly string[]): void {
  if (words.includes(value as string)) return;
  const allowed = words.map((word) => `"${word}"`).join(" or ");
  throw new TypeError(`Cannot use ${name} ${show(value)}: expected ${allowed}`);
}

/** Checks that a value is a function, or `undefined` if it is optional. */
export function checkFunction(name: string, value: unknown, optional = false): void {
  if (typeof value === "function" || optional && value === undefined) return;
  throw new TypeError(`Cannot use ${name}: expected a function, got ${show(value)}`);
}

/**
 * Checks that a value has the given methods, or is `undefined` if it is optional. `kind` is the error's word for it.
 */
export function checkMethods(
  name: string,
  value: unknown,
  kind: string,
  methods: readonly string[],
  optional = false,
): void {
  const members = value as Record<string, unknown> | null | undefined;
  const missing = methods.find((method) => typeof members?.[method] !== "function");
  if (optional && members === undefined || missing === undefined) return;
  const got = show(value);
  // Someone who writes a listener or a transport of their own has to know what it lacks.
  const lack = typeof value === "object" && value !== null && !Array.isArray(value)
    ? ` without the method ${missing}`
    : "";
  throw new TypeError(`Cannot use ${name}: expected ${kind}, got ${got}${lack}`);
}

/** Checks that a value is `true` or `false`. */
export function checkBoolean(name: string, value: unknown): void {
  if (typeof value === "boolean") return;
  throw new TypeError(`Cannot use ${name} ${show(value)}: expected true or false`);
}

/** Checks an address or host name to listen on, or `undefined`. */
export function checkHostname(value: unknown): void {
  checkString("hostname", value);
  if (value === "") throw new TypeError('Cannot use hostname "": expected an address or a host name');
}

/** Checks a {@linkcode Listener}, or `undefined` if it is optional. */
export function checkListener(value: unknown, optional = false): void {
  checkMethods("listener", value, "a listener", ["accept", "close"], optional);
}

/** Checks a {@linkcode Listener} or a list of some, or `undefined`. */
export function checkListeners(value: unknown): void {
  if (!Array.isArray(value)) return checkListener(value, true);
  if (value.length === 0) throw new TypeError("Cannot use listener: expected at least one listener, got an empty list");
  for (const [i, listener] of value.entries()) {
    checkMethods(`listener[${i}]`, listener, "a listener", ["accept", "close"]);
    const first = value.indexOf(listener);
    if (first < i) throw new TypeError(`Cannot use listener[${i}]: it is the same as listener[${first}]`);
  }
}

/** Checks a {@linkcode Transport} that a function of the caller's has returned. */
export function checkTransport(name: string, value: unknown): void {
  checkMethods(name, value, "a transport", ["read", "write", "closeWrite", "close"]);
}

/**
 * Checks what a listener has accepted. Without `closeWrite`, which a test may leave out, a connection ends all the same.
 */
export function checkAccepted(value: unknown): void {
  checkMethods("what accept returned", value, "a transport", ["read", "write", "close"]);
}

/** Checks a {@linkcode Clock}, or `undefined` if it is optional. */
export function checkClock(value: unknown, optional = false): void {
  checkMethods("clock", value, "a clock", ["now", "setTimer"], optional);
}

/** Checks an `AbortSignal`, or `undefined`. */
export function checkSignal(value: unknown): void {
  const methods = ["addEventListener", "removeEventListener", "throwIfAborted"];
  checkMethods("signal", value, "an AbortSignal", methods, true);
}

/** Checks that a value is a string, or `undefined`. */
export function checkString(name: string, value: unknown): void {
  if (value === undefined || typeof value === "string") return;
  throw new TypeError(`Cannot use ${name}: expected a string, got ${show(value)}`);
}

function checkNumber(name: string, value: unknown): void {
  if (typeof value === "number") return;
  throw new TypeError(`Cannot use ${name} ${show(value)}: expected a number`);
}

/** Returns a value in the form in which an error message shows it. */
export function show(value: unknown): string {
  if (typeof value === "string") return quote(value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "function") return "a function";
  if (typeof value !== "object" || value === null) return String(value);
  if (Array.isArray(value)) return "an array";
  if (value instanceof Promise) return "a promise";
  // Such as that of `new ArrayBuffer(2)`, where bytes are expected.
  const name = classOf(value);
  return name === "Object" ? "an object" : `${/^[AEIO]/.test(name) ? "an" : "a"} ${name}`;
}

/** Returns the name of an object's class, if that is a word; otherwise "Object". */
function classOf(value: object): string {
  try {
    return /^\[object (\w{1,40})\]$/.exec(Object.prototype.toString.call(value))?.[1] ?? "Object";
  } catch {
    // A getter of the object's may throw.
    return "Object";
  }
}

/**
 * Checks protocols for ALPN.
 *
 * @param protocols The option's value.
 * @throws {RangeError | TypeError} If it is no list of names of 1 to 255 bytes.
 */
export function checkProtocols(protocols: readonly string[] | undefined): void {
  if (protocols === undefined) return;
  if (!Array.isArray(protocols)) {
    throw new TypeError(`Cannot use alpnProtocols: expected an array, got ${show(protocols)}`);
  }
  if (protocols.length === 0) throw new RangeError("Cannot use alpnProtocols: expected at least one protocol");
  for (const protocol of protocols) {
    if (typeof protocol !== "string") {
      throw new TypeError(`Cannot use alpnProtocols: expected strings, got ${show(protocol)}`);
    }
    const { length } = new TextEncoder().encode(protocol);
    if (length < 1 || length > 255 || !protocol.isWellFormed()) {
      throw new RangeError(`Cannot use alpnProtocols: expected names of 1 to 255 bytes, got ${show(protocol)}`);
    }
  }
}

/** Checks the options of `broadcast`; returns the connection that is left out, if there is one. */
export function exceptOf<Conn extends object>(options: { except?: Conn | undefined }): Conn | undefined {
  checkOptions("broadcast options", options);
  const { except } = options;
  if (except !== undefined) checkOptions("except", except);
  return except;
}

/** Checks the options of `close`, but for the encoding of its last word. */
export function checkCloseOptions(options: { lastWord?: string | undefined; detail?: string | undefined }): void {
  checkOptions("close options", options);
  checkString("lastWord", options.lastWord);
  checkString("detail", options.detail);
}

/** Checks the options of one read. */
export function checkReadOptions(options: { timeout?: number | undefined; signal?: AbortSignal | undefined }): void {
  checkOptions("read options", options);
  if (options.timeout !== undefined) checkTimeout("timeout", options.timeout);
  checkSignal(options.signal);
}

/** Checks the options of a read of a line; returns whether the input may end before it. */
export function checkLineOptions(options: { boundary?: boolean | undefined }): boolean {
  checkOptions("readLine options", options);
  const { boundary = true } = options;
  checkBoolean("boundary", boundary);
  return boundary;
}

/** The default of `maxBytes` of a read, in bytes. */
const MAX_BYTES = 1024 * 1024;

/** The options that a read of bytes has beside those of each read. */
interface BytesOptions {
  maxBytes: number;
  boundary: boolean;
  keepDelimiter: boolean;
}

/** Checks these options, and fills in their defaults. */
export function checkBytesOptions(
  name: string,
  options: { [Name in keyof BytesOptions]?: BytesOptions[Name] | undefined },
): BytesOptions {
  checkOptions(`${name} options`, options);
  const { maxBytes = MAX_BYTES, boundary = false, keepDelimiter = false } = options;
  checkBufferBytes("maxBytes", maxBytes);
  checkBoolean("boundary", boundary);
  checkBoolean("keepDelimiter", keepDelimiter);
  return { maxBytes, boundary, keepDelimiter };
}
