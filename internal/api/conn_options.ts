/**
 * The limits of one connection: what they mean, their defaults and bounds.
 *
 * @module
 */

import { checkBoolean, checkBufferBytes, checkRate, checkTimeout, checkWhole } from "./check.ts";

/** The limits of one connection. */
export interface ConnOptions {
  /**
   * How long the peer may take to begin its first line, in milliseconds, counted while the server waits for it; what the
   * server writes does not start it anew. Then the connection is closed, with reason `first-line-timeout`. `Infinity`
   * switches it off. The default is the value of `idleTimeout`; 5 s are recommended for a port on the internet, where
   * many connections never say anything.
   */
  firstLineTimeout?: number | undefined;
  /**
   * How long the peer may be silent, in milliseconds, while the server waits for it; any completed read or write
   * starts it anew. Then the connection is closed, with reason `idle`. `Infinity` switches it off.
   *
   * @default {10_000}
   */
  idleTimeout?: number | undefined;
  /**
   * How long a line may take from its first byte to its end, in milliseconds, counted while the server waits for the
   * rest: what stops a peer that trickles. Then the connection is closed, with reason `line-timeout`. `Infinity`
   * switches it off. The default is the value of `idleTimeout`.
   */
  lineTimeout?: number | undefined;
  /**
   * How long the peer may take too little of what it is sent, in milliseconds, counted while replies wait for it; when
   * its side has taken 1 KiB within that time, the clock starts anew. Then the connection is aborted, with reason
   * `write-timeout`, and the peer sees a reset where the system lets a server send one. `Infinity` switches it off. The
   * default is the value of `idleTimeout`.
   *
   * On `epoll` that is exact. Deno's sockets take nothing more until a third of the kernel's send buffer is free, some
   * 0.8 MB on loopback, so there the clock has to pass three times in a row: with the defaults a peer that reads 40 KB a
   * second lives, one that reads nothing is gone after 30 s, and the end that it sees is a reset only if it has sent
   * something that was not read.
   */
  writeTimeout?: number | undefined;
  /**
   * How long a line handler may take for one line, and a conversation handler between two reads or writes, in
   * milliseconds; the clock stands still while a write waits for the peer. Then the connection is aborted, with reason
   * `handler-timeout`; the handler goes on, and learns of it by `conn.signal`.
   *
   * @default {Infinity}
   */
  handlerTimeout?: number | undefined;
  /**
   * The same once the peer has ended its side, in milliseconds: there will be nothing more to read, and a peer that has
   * gone altogether looks the same until something is written. A write starts it anew.
   *
   * @default {60_000}
   */
  halfCloseTimeout?: number | undefined;
  /**
   * How old a connection may become, in milliseconds, give or take 10 % by chance. Then it is closed, once what the
   * peer has sent is answered, with reason `max-age`; one that goes on sending gets a megabyte or eight reads more at
   * most. A conversation handler that does something else is waited for until it asks for its next line; one that still
   * works 10 s later has its connection aborted.
   *
   * @default {Infinity}
   */
  maxAge?: number | undefined;
  /**
   * How many lines the peer may send, give or take 10 % by chance, to the nearest whole number. Then the connection is
   * closed, once what the peer has sent is answered, with reason `max-lines`; one that goes on sending gets a megabyte or
   * eight reads more at most.
   *
   * @default {Infinity}
   */
  maxLines?: number | undefined;
  /**
   * How many lines per second are read, and at once after a quiet second. Past it the server reads more slowly, so that
   * TCP slows the peer down; no clock but that of `maxAge` runs meanwhile. Lines that have to wait pass some ten times a
   * second, as many together as may by then.
   *
   * @default {Infinity}
   */
  maxLinesPerSecond?: number | undefined;
  /**
   * How many bytes per second are read, in the same way.
   *
   * @default {Infinity}
   */
  maxBytesPerSecond?: number | undefined;
  /**
   * Whether a client whose first line is an HTTP request, or whose first bytes are a TLS handshake, is told so in its
   * own language, and closed, with reason `misdirected`.
   *
   * @default {false}
   */
  answerMisdirected?: boolean | undefined;
  /**
   * The longest line, in bytes, without its line end. A longer one gets an error line, and the connection is closed,
   * with reason `line-too-long`.
   *
   * @default {65_536}
   */
  maxLineBytes?: number | undefined;
  /**
   * How many bytes the peer may send in all. Lines wholly within are answered, then comes an error line, and the
   * connection is closed, with reason `byte-limit`.
   *
   * @default {Infinity}
   */
  maxConnectionBytes?: number | undefined;
  /**
   * How many bytes may wait to be written when a handler does not wait for its `conn.write`. Then the connection is
   * aborted, with reason `write-queue`.
   *
   * @default {1_048_576}
   */
  maxQueuedBytes?: number | undefined;
}

/** The limits of a connection, complete. */
export type ConnLimits = { -readonly [Name in keyof ConnOptions]-?: Exclude<ConnOptions[Name], undefined> };

/**
 * Checks the limits and fills in the defaults.
 *
 * @param options The limits that were given.
 * @returns All of them.
 * @throws {RangeError | TypeError} If one is wrong.
 */
export function resolveConnOptions(options: ConnOptions): ConnLimits {
  const { idleTimeout = 10_000 } = options;
  const {
    firstLineTimeout = idleTimeout,
    lineTimeout = idleTimeout,
    writeTimeout = idleTimeout,
    handlerTimeout = Infinity,
    halfCloseTimeout = 60_000,
    maxAge = Infinity,
  } = options;
  const timeouts = {
    ...{ idleTimeout, firstLineTimeout, lineTimeout, writeTimeout },
    ...{ handlerTimeout, halfCloseTimeout, maxAge },
  };
  const { maxLines = Infinity, maxLinesPerSecond = Infinity, maxBytesPerSecond = Infinity } = options;
  const { answerMisdirected = false } = options;
  const { maxLineBytes = 65_536, maxConnectionBytes = Infinity, maxQueuedBytes = 1_048_576 } = options;
  for (const [name, value] of Object.entries(timeouts)) checkTimeout(name, value);
  checkBufferBytes("maxLineBytes", maxLineBytes);
  checkWhole("maxConnectionBytes", maxConnectionBytes, 1, Infinity);
  checkWhole("maxQueuedBytes", maxQueuedBytes, 1, Infinity);
  checkWhole("maxLines", maxLines, 1, Infinity);
  checkRate("maxLinesPerSecond", maxLinesPerSecond);
  checkRate("maxBytesPerSecond", maxBytesPerSecond);
  checkBoolean("answerMisdirected", answerMisdirected);
  return {
    ...timeouts,
    ...{ maxLines, maxLinesPerSecond, maxBytesPerSecond, answerMisdirected },
    ...{ maxLineBytes, maxConnectionBytes, maxQueuedBytes },
  };
}
