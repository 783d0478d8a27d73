/**
 * What the clocks of a connection measure, and which of them expire.
 *
 * @module
 */

import type { ConnLimits } from "../api/conn_options.ts";

/** The time limit of each clock of a connection, and what the clocks go by. */
export type Timeouts = Pick<
  ConnLimits,
  | ("firstLineTimeout" | "idleTimeout" | "lineTimeout" | "writeTimeout" | "handlerTimeout" | "halfCloseTimeout")
  | ("maxAge" | "idleOn" | "minBytesPerSecond")
>;

/**
 * The clock that has expired. Most names are the close reason of the same name. The others:
 *
 * - `stuck`: the peer has not taken a large block for a while, so the block's memory counts from now on
 * - `read-ahead`: the handler has worked for a while, and the peer may have reset the connection since
 * - `overdue`: the handler still works long after `maxAge`
 * - `read-timeout`: the time of one read is up, which ends that read alone
 * - `closing`: the time of a step of the connection's end is up
 */
export type Expiry =
  | "first-line-timeout"
  | "idle"
  | "line-timeout"
  | "read-rate"
  | "deadline"
  | "write-timeout"
  | "stuck"
  | "handler-timeout"
  | "max-age"
  | "read-ahead"
  | "overdue"
  | "read-timeout"
  | "closing";

/** Those that may end the connection. */
export type EndingExpiry = Exclude<Expiry, "stuck" | "read-ahead" | "read-timeout">;

/**
 * What has begun. `line`: a part of a line has come. `line-of-message`: the same, within a message. A number: a message has
 * begun, and this many bytes of what is read of it now have come, perhaps 0.
 */
export type Begun = "line" | "line-of-message" | number;

/** Whether a line has begun. */
export function isLine(begun: Begun | undefined): begun is "line" | "line-of-message" {
  return typeof begun === "string";
}

/** Whether a message has begun, which the end of input may not cut off. */
export function inMessage(begun: Begun | undefined): boolean {
  return begun !== undefined && begun !== "line";
}

/** Time that a body has before `minBytesPerSecond` applies, in milliseconds. */
const RATE_GRACE_MS = 5000;

/** How long the server waits in all for the rest of what has begun, in milliseconds. */
export function allowedMs(
  begun: Begun | undefined,
  { lineTimeout, minBytesPerSecond }: Pick<Timeouts, "lineTimeout" | "minBytesPerSecond">,
): number {
  if (isLine(begun)) return lineTimeout;
  if (begun === undefined || begun === 0 || minBytesPerSecond === 0) return Infinity;
  return Math.max(RATE_GRACE_MS, begun / minBytesPerSecond * 1000);
}
