/**
 * The client: `shouty connect`.
 *
 * @module
 */

import type { Values } from "./parse.ts";
import { CommandError, reasonOf } from "./errors.ts";
import type { CONNECT } from "./flags.ts";
import type { Target } from "./kinds.ts";
import { failed, formatTarget, requireNet } from "./net.ts";
import { print } from "./print.ts";

/** Maximum time in milliseconds to wait, after the server has closed the connection, whether input is lost. */
const LAST_INPUT_MS = 100;

/**
 * Connects to a server, sends it what comes on stdin, and writes its replies to stdout.
 *
 * @param target The server's address.
 * @param options How long to wait for the server.
 * @throws {CommandError} (As a rejection.) If the server cannot be reached, or the connection is lost.
 */
export async function connect(target: Target, { timeout }: Values<typeof CONNECT.flags>): Promise<void> {
  requireNet("connect to", formatTarget(target));
  using conn = await dial(target, timeout);
  await new Talk(conn, formatTarget(target), timeout).run();
}

async function dial(target: Target, timeout: number): Promise<Deno.TcpConn> {
  const late = new AbortController();
  const timer = setAlarm(timeout, () => late.abort());
  try {
    const conn = await Deno.connect({ ...target, signal: late.signal });
    conn.setNoDelay(true);
    return conn;
  } catch (error) {
    throw failed(
      "connect to",
      formatTarget(target),
      late.signal.aborted ? `no answer within ${timeout / 1000} s` : error,
    );
  } finally {
    clearTimeout(timer);
  }
}

/** One conversation with a server, until the server closes the connection. At the end of stdin, only this side ends. */
class Talk {
  readonly #conn: Deno.TcpConn;
  readonly #peer: string;
  readonly #timeout: number;
  #inputEnded = false;
  #sendError: CommandError | undefined;
  #reading = false;
  #writing = false;
  #late = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(conn: Deno.TcpConn, peer: string, timeout: number) {
    this.#conn = conn;
    this.#peer = peer;
    this.#timeout = timeout;
  }

  async run(): Promise<void> {
    const sending = this.#send();
    const buffer = new Uint8Array(64 * 1024);
    for (let count = await this.#read(buffer); count !== null; count = await this.#read(buffer)) {
      if (!await print(buffer.subarray(0, count))) return;
    }
    // Finds out whether input was lost. Not without a limit: a user at a terminal may never type again.
    await Promise.race([sending, new Promise((resolve) => setTimeout(resolve, LAST_INPUT_MS))]);
    if (this.#sendError !== undefined) throw this.#sendError;
    if (!this.#inputEnded) console.error(`shouty: ${this.#peer} has closed the connection`);
  }

  async #send(): Promise<void> {
    const buffer = new Uint8Array(64 * 1024);
    try {
      for (let count = await input(buffer); count !== null; count = await input(buffer)) {
        await this.#write(buffer.subarray(0, count));
      }
      await this.#conn.closeWrite();
      this.#inputEnded = true;
    } catch (error) {
      // Thrown once the server has closed the connection: its last replies may still be on their way.
      this.#sendError = error instanceof CommandError ? error : this.#lost(error);
    }
    this.#watch();
  }

  /** Sends bytes; each part that the server takes restarts the timer. */
  async #write(bytes: Uint8Array): Promise<void> {
    this.#writing = true;
    for (let sent = 0; sent < bytes.length; sent += await this.#conn.write(bytes.subarray(sent))) this.#watch();
    this.#writing = false;
    this.#watch();
  }

  async #read(into: Uint8Array): Promise<number | null> {
    this.#reading = true;
    this.#watch();
    try {
      return await this.#conn.read(into);
    } catch (error) {
      if (this.#late && this.#sendError !== undefined) throw this.#sendError;
      if (this.#late) throw new CommandError(`no reply from ${this.#peer} within ${this.#timeout / 1000} s`, 1);
      throw this.#lost(error);
    } finally {
      this.#reading = false;
      clearTimeout(this.#timer);
    }
  }

  /** Restarts the timer while the server is to take input, or to reply to all of it; not while the user is typing. */
  #watch(): void {
    clearTimeout(this.#timer);
    const waiting = this.#writing || this.#inputEnded || this.#sendError !== undefined;
    if (!this.#reading || !waiting) return;
    this.#timer = setAlarm(this.#timeout, () => {
      this.#late = true;
      this.#conn.close();
    });
  }

  #lost(error: unknown): CommandError {
    return new CommandError(`lost the connection to ${this.#peer}: ${reasonOf(error)}`, 1);
  }
}

async function input(into: Uint8Array): Promise<number | null> {
  try {
    return await Deno.stdin.read(into);
  } catch (error) {
    throw new CommandError(`cannot read stdin: ${reasonOf(error)}`, 1);
  }
}

function setAlarm(ms: number, ring: () => void): ReturnType<typeof setTimeout> | undefined {
  return ms === Infinity ? undefined : setTimeout(ring, ms);
}
