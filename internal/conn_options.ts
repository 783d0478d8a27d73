/**
 * The limits of one connection: what they mean, their defaults and bounds.
 *
 * @module
 */

import { checkBufferBytes, checkTimeout, checkWhole } from "./check.ts";

/** The limits of one connection. */
export interface ConnOptions {
  /**
   * How long the peer may be silent, in milliseconds, while the server waits for it; any completed read or write
   * starts it anew. Then the connection is closed, with reason `idle`. `Infinity` switches it off.
   *
   * @default {10_000}
   */
  idleTimeout?: number;
  /**
   * How long a line may take from its first byte to its end, in milliseconds, counted while the server waits for the
   * rest: what stops a peer that trickles. Then the connection is closed, with reason `line-timeout`. `Infinity`
   * switches it off. The default is the value of `idleTimeout`.
   */
  lineTimeout?: number;
  /**
   * How long the peer may take to accept one block of replies (64 KiB at most), in milliseconds. Then the connection
   * is aborted, with reason `write-timeout`. `Infinity` switches it off. The default is the value of `idleTimeout`.
   */
  writeTimeout?: number;
  /**
   * How old a connection may become, in milliseconds, give or take 10 % by chance. Then it is closed, once what the
   * peer has sent is answered, with reason `max-age`.
   *
   * @default {Infinity}
   */
  maxAge?: number;
  /**
   * The longest line, in bytes, without its line end. A longer one gets an error line, and the connection is closed,
   * with reason `line-too-long`.
   *
   * @default {65_536}
   */
  maxLineBytes?: number;
  /**
   * How many bytes the peer may send in all. Lines wholly within are answered, then comes an error line, and the
   * connection is closed, with reason `byte-limit`.
   *
   * @default {Infinity}
   */
  maxConnectionBytes?: number;
  /**
   * How many bytes may wait to be written when a handler does not wait for its `conn.write`. Then the connection is
   * aborted, with reason `write-queue`.
   *
   * @default {1_048_576}
   */
  maxQueuedBytes?: number;
}

/** The limits of a connection, complete. */
export type ConnLimits = Required<ConnOptions>;

/**
 * Checks the limits and fills in the defaults.
 *
 * @param options The limits that were given.
 * @returns All of them.
 * @throws {RangeError | TypeError} If one is wrong.
 */
export function resolveConnOptions(options: ConnOptions): ConnLimits {
  const { idleTimeout = 10_000 } = options;
  const { lineTimeout = idleTimeout, writeTimeout = idleTimeout, maxAge = Infinity } = options;
  const { maxLineBytes = 65_536, maxConnectionBytes = Infinity, maxQueuedBytes = 1_048_576 } = options;
  for (const [name, value] of Object.entries({ idleTimeout, lineTimeout, writeTimeout, maxAge })) {
    checkTimeout(name, value);
  }
  checkBufferBytes("maxLineBytes", maxLineBytes);
  checkWhole("maxConnectionBytes", maxConnectionBytes, 1, Infinity);
  checkWhole("maxQueuedBytes", maxQueuedBytes, 1, Infinity);
  return { idleTimeout, lineTimeout, writeTimeout, maxAge, maxLineBytes, maxConnectionBytes, maxQueuedBytes };
}
