/**
 * The limits of one connection: their meaning, defaults and allowed values.
 *
 * @module
 */

import type { CloseReason } from "./reasons.ts";
import {
  checkBoolean,
  checkBufferBytes,
  checkRate,
  checkTimeout,
  checkWhole,
  checkWord,
  withChanges,
} from "./check.ts";

/** The limits of one connection. */
export interface ConnOptions {
  /**
   * Maximum time until the first byte of the peer's first line, in milliseconds. The clock runs while the server waits
   * for that byte; neither what the server writes nor a read that is given up restarts it. When the time is up, the
   * connection is closed, with reason `first-line-timeout`. `Infinity` switches it off. The default is the value of
   * `idleTimeout`; 5 s are recommended for a port on the internet, where many connections never send anything.
   */
  firstLineTimeout?: number | undefined;
  /**
   * Maximum time without a completed read or write while the server waits for the peer, in milliseconds. The clock
   * starts when the server begins to wait for the peer; each completed read or write restarts it. When the time is up,
   * the connection is closed, with reason `idle`. `Infinity` switches it off.
   *
   * @default {10_000}
   */
  idleTimeout?: number | undefined;
  /**
   * What restarts the clock of `idleTimeout`: `both` reads and writes, or a completed `read` alone. A server that
   * pushes to its clients sets `read`, so that its own messages do not keep a dead client's connection open.
   *
   * @default {"both"}
   */
  idleOn?: "both" | "read" | undefined;
  /**
   * Minimum rate of a body, which is what `readExactly`, `readUntil` and `readStream` read, in bytes per second. A body
   * is measured from its first byte, over the time in which the server waits for the rest, and has 5 s before the rate
   * applies. When it is slower, the connection is closed, with reason `read-rate`. `idleTimeout` holds beside it. 0
   * switches it off.
   *
   * @default {240}
   */
  minBytesPerSecond?: number | undefined;
  /**
   * Maximum time from the first byte of a line to its end, in milliseconds. Only the time in which the server waits for
   * the rest of the line counts. The bytes of the line do not restart the clock, so it stops a peer that sends a line
   * byte by byte; each new line has the whole time. When the time is up, the connection is closed, with reason
   * `line-timeout`. `Infinity` switches it off. Reads of bytes know no lines, so this clock does not run for them:
   * `minBytesPerSecond` bounds a body. The default is the value of `idleTimeout`.
   */
  lineTimeout?: number | undefined;
  /**
   * Maximum time in which the peer has to take 1 KiB of the replies that wait for it, in milliseconds. The clock starts
   * when the server begins to write a block of replies, and restarts when the peer's side has taken 1 KiB since it
   * started. When the time is up, the connection is aborted, with reason `write-timeout`, and the peer sees a reset where
   * the system lets the server send one. The default is the value of `idleTimeout`. `Infinity` switches it off: a write
   * that a handler awaits, or the reply of a line handler, may then wait for as long as the peer likes. Two cases stay
   * bounded: while the server waits for the peer's input too, by `idleTimeout`; and while it closes the connection, by
   * three or four times `idleTimeout`.
   *
   * On `epoll` the server looks four times in this time at what was taken, so it may take a quarter longer. Deno's
   * sockets take nothing more until a third of the kernel's send buffer is free, which is 1.4 MB where Linux lets it
   * grow to 4 MiB, as it does by default. So there the time has to pass three times in a row without progress. With the
   * defaults, a peer that reads 50 KB a second keeps its connection, and a peer that reads nothing loses it after 30 s.
   * That peer sees a reset only if it has sent something that the server has not read.
   */
  writeTimeout?: number | undefined;
  /**
   * Maximum time that a line handler may take for one line, or a conversation handler between two reads or writes, in
   * milliseconds. The clock starts when the handler starts to work, and stands still while a write waits for the peer.
   * Each read and each write restarts it, also a write of others, such as that of `server.broadcast`; but not a read that
   * gives nothing because the input had ended before it began. When the time is up, the connection is closed, with reason `handler-timeout`. The handler itself goes on;
   * `conn.signal` tells it of the end. `Infinity` switches it off.
   *
   * @default {Infinity}
   */
  handlerTimeout?: number | undefined;
  /**
   * Maximum time as in `handlerTimeout`, for the time after the peer has ended its side, in milliseconds; the shorter
   * of the two holds then. The clock restarts when the peer ends its side, with each write, and with each read that
   * gives something that had come before. It has a limit of its own because nothing is left to read then, and
   * a peer that is gone looks the same until something is written. When the time is up, the connection is closed, with
   * reason `handler-timeout`. `Infinity` switches it off.
   *
   * @default {60_000}
   */
  halfCloseTimeout?: number | undefined;
  /**
   * Maximum age of a connection, in milliseconds; each connection's limit differs from it by up to 10 % at random. The
   * clock starts when the connection is accepted, and only `conn.setLimits` with another age restarts it. When the time
   * is up, the server answers what the peer has sent, and closes the connection, with reason `max-age`. From a peer that
   * goes on sending, it answers at most another MiB, or eight more reads. It waits for a conversation handler until that
   * asks for its next line or message, and aborts the connection if the handler still works, or still reads a message,
   * or waits for the end of a line without `lineTimeout`, 10 s later. `Infinity` switches it off.
   *
   * @default {Infinity}
   */
  maxAge?: number | undefined;
  /**
   * Maximum number of lines from one connection; each connection's limit differs from it by up to 10 % at random,
   * rounded to a whole number. When it is reached, the server answers what the peer has sent, and closes the
   * connection, with reason `max-lines`. From a peer that goes on sending, it answers at most another MiB, or eight
   * more reads; a message that has begun is read to its end. A peer that has sent a part of a message whenever the server
   * waits is not ended by it, but by `maxAge`. `Infinity` switches it off.
   *
   * @default {Infinity}
   */
  maxLines?: number | undefined;
  /**
   * Maximum number of lines read per second, and of lines read at once after a second without input. Above it the
   * server reads more slowly, so that TCP slows the peer down. While lines have to wait, no clock runs but that of
   * `maxAge`; they reach the handler in groups, about ten times a second. `Infinity` switches it off.
   *
   * @default {Infinity}
   */
  maxLinesPerSecond?: number | undefined;
  /**
   * Maximum number of bytes read per second, and of bytes read at once after a second without input. Above it the
   * server reads more slowly, as with `maxLinesPerSecond`. `Infinity` switches it off.
   *
   * @default {Infinity}
   */
  maxBytesPerSecond?: number | undefined;
  /**
   * Whether the server looks for clients that speak another protocol. A client whose first line is an HTTP request, or
   * whose first bytes are a TLS handshake, gets an error in that protocol, and the connection is closed, with reason
   * `misdirected`. `conn.setLimits` does not change it: what a connection is looked at for is decided when it is accepted.
   *
   * @default {false}
   */
  answerMisdirected?: boolean | undefined;
  /**
   * Maximum length of a line, in bytes, without its line end. A longer line gets an error line in place of a reply, and
   * the connection is closed, with reason `line-too-long`; `framing.onLongLine` can change that. The limit is judged
   * when a line is asked for: reads of bytes know no lines, and `lineStream` bounds their length behind
   * `conn.readable`.
   *
   * @default {65_536}
   */
  maxLineBytes?: number | undefined;
  /**
   * Whether each line has memory of its own. Otherwise a line can be a slice of up to 2 KiB of text, which stays in
   * memory as long as the line. Set it to `true` if the handler keeps lines, or parts of them; it adds about 0.1 µs per
   * line, a fifth of the time of a short one that comes together with others.
   *
   * @default {false}
   */
  independentLines?: boolean | undefined;
  /**
   * Maximum number of bytes from one connection. When the peer sends more, the server answers the lines that end within
   * the limit, writes an error line, and closes the connection, with reason `byte-limit`. `Infinity` switches it off.
   *
   * @default {Infinity}
   */
  maxConnectionBytes?: number | undefined;
  /**
   * Maximum number of bytes that may wait to be written when a handler does not await its `conn.write`. A write that would
   * make it more aborts the connection, with reason `write-queue`. While less than 64 KiB, and less than this, wait, a
   * write is taken whatever its size: a handler may await it. `Infinity` switches it off.
   *
   * @default {1_048_576}
   */
  maxQueuedBytes?: number | undefined;
}

/** The limits of one connection, with all defaults filled in. */
export type ConnLimits = { -readonly [Name in keyof ConnOptions]-?: Exclude<ConnOptions[Name], undefined> };

/**
 * Checks the limits and fills in the defaults.
 *
 * @param options The limits that the caller has set.
 * @returns All limits.
 * @throws {RangeError | TypeError} If a limit is wrong.
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
  const { idleOn = "both", minBytesPerSecond = 240 } = options;
  const { maxLines = Infinity, maxLinesPerSecond = Infinity, maxBytesPerSecond = Infinity } = options;
  const { answerMisdirected = false, independentLines = false } = options;
  const { maxLineBytes = 65_536, maxConnectionBytes = Infinity, maxQueuedBytes = 1_048_576 } = options;
  const limits = {
    ...timeouts,
    ...{ idleOn, minBytesPerSecond, independentLines },
    ...{ maxLines, maxLinesPerSecond, maxBytesPerSecond, answerMisdirected },
    ...{ maxLineBytes, maxConnectionBytes, maxQueuedBytes },
  };
  for (const [name, value] of Object.entries(timeouts)) checkTimeout(name, value);
  checkLimits(limits);
  return limits;
}

function checkLimits(limits: ConnLimits): void {
  checkWord("idleOn", limits.idleOn, ["both", "read"]);
  if (limits.minBytesPerSecond !== 0) checkRate("minBytesPerSecond", limits.minBytesPerSecond, "0");
  checkBufferBytes("maxLineBytes", limits.maxLineBytes);
  checkWhole("maxConnectionBytes", limits.maxConnectionBytes, 1, Infinity);
  checkWhole("maxQueuedBytes", limits.maxQueuedBytes, 1, Infinity);
  checkWhole("maxLines", limits.maxLines, 1, Infinity);
  checkRate("maxLinesPerSecond", limits.maxLinesPerSecond);
  checkRate("maxBytesPerSecond", limits.maxBytesPerSecond);
  checkBoolean("answerMisdirected", limits.answerMisdirected);
  checkBoolean("independentLines", limits.independentLines);
}

/**
 * Checks limits that change those of a connection.
 *
 * @param limits What the connection has.
 * @param changes What changes.
 * @returns All limits.
 * @throws {RangeError | TypeError} If a limit is wrong.
 */
export function mergeLimits(limits: ConnLimits, changes: ConnOptions): ConnLimits {
  return resolveConnOptions(withChanges(limits, changes));
}

/** The option whose value `lastWords` gets with each reason; 0 for any other reason. */
const LIMITS: Partial<Record<CloseReason, keyof ConnLimits>> = {
  "first-line-timeout": "firstLineTimeout",
  "idle": "idleTimeout",
  "line-timeout": "lineTimeout",
  "handler-timeout": "handlerTimeout",
  "max-age": "maxAge",
  "max-lines": "maxLines",
  "line-too-long": "maxLineBytes",
  "byte-limit": "maxConnectionBytes",
  "read-rate": "minBytesPerSecond",
};

/** Returns the value of the limit that a reason names; 0 if it names none. */
export function limitOf(reason: CloseReason, limits: ConnLimits): number {
  const name = LIMITS[reason];
  return name === undefined ? 0 : limits[name] as number;
}
