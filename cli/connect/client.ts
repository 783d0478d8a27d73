/**
 * The client: `shouty connect`.
 *
 * @module
 */

import { ConnectionClosedError } from "../../internal/api/errors.ts";
import type { Conn } from "../../internal/api/handlers.ts";
import { CommandError, reasonOf } from "../system/errors.ts";
import { reasonOfPeer } from "../system/net.ts";
import { complain, print } from "../system/print.ts";
import { within } from "../system/within.ts";

/** Maximum time in milliseconds to wait, after the server has closed the connection, whether input is lost. */
const LAST_INPUT_MS = 100;

/** Maximum bytes that are sent at once. The server has the time of `--timeout` to take them. */
const PART_BYTES = 64 * 1024;

/** The beginning of the record in which a TLS server says that it cannot read plain text: a fatal alert of 2 bytes. */
const ALERT = [21, 3, undefined, 0, 2, 2] as const;

/**
 * Sends a server what comes on stdin, and writes its replies to stdout, until the server closes the connection. At the
 * end of stdin, only this side ends.
 *
 * @param conn The connection, which is closed at the end.
 * @param peer The server's address, for messages.
 * @param timeout How long to wait for the server when it is to take input, or to reply to all of it, in milliseconds.
 * @throws {CommandError} (As a rejection.) If the connection is lost, or the server does not act in time.
 */
export async function talk(conn: Conn, peer: string, timeout: number): Promise<void> {
  try {
    await new Talk(conn, peer, timeout).run();
  } finally {
    // Not awaited: if the server goes on sending, closing gracefully takes two seconds.
    conn.close();
  }
}

/** One conversation with a server. */
class Talk {
  readonly #conn: Conn;
  readonly #peer: string;
  readonly #timeout: number;
  #sent = false;
  #received = false;
  #inputEnded = false;
  #sendError: unknown;

  constructor(conn: Conn, peer: string, timeout: number) {
    this.#conn = conn;
    this.#peer = peer;
    this.#timeout = timeout;
  }

  async run(): Promise<void> {
    const sending = this.#send();
    for await (const bytes of this.#conn.readable) {
      if (!this.#received && this.#conn.tls === undefined && isAlert(bytes)) throw this.#speaksTls();
      this.#received = true;
      if (!await print(bytes)) return;
    }
    if (this.#conn.ending !== "end") throw await this.#lost();
    // Finds out whether input was lost. Not without a limit: a user at a terminal may never type again.
    await within(LAST_INPUT_MS, sending);
    if (this.#sendError !== undefined) throw await this.#lost();
    if (!this.#inputEnded || this.#hint !== "") {
      complain(`${this.#peer} has closed the connection${this.#hint && " without a reply"}${this.#hint}`);
    }
  }

  async #send(): Promise<void> {
    const buffer = new Uint8Array(PART_BYTES);
    try {
      for (let count = await input(buffer); count !== null; count = await input(buffer)) {
        this.#wait(this.#timeout);
        this.#sent = true;
        this.#conn.write(buffer.subarray(0, count));
        await this.#conn.flushed();
        this.#wait(Infinity);
      }
      this.#wait(this.#timeout);
      // Under TLS, ending this side can fail although the server knows the end: it may have ended just then, too.
      await (this.#conn.tls === undefined ? this.#conn.writable.close() : this.#conn.closeWrite());
      this.#inputEnded = true;
    } catch (error) {
      // If the server has closed the connection, its last replies may still be on their way.
      this.#sendError = error;
      this.#wait(this.#timeout);
    }
  }

  /** Limits how long the server may neither take nor send anything: not while the user is typing. */
  #wait(milliseconds: number): void {
    this.#conn.setLimits({ idleTimeout: milliseconds });
  }

  /** Words why the connection has ended, or why input cannot be sent. */
  async #lost(): Promise<CommandError> {
    if (this.#sendError instanceof CommandError) return this.#sendError;
    if (this.#conn.ending === "idle") {
      return new CommandError(`no reply from ${this.#peer} within ${this.#timeout / 1000} s`, 1);
    }
    // An error of the connection itself: then it is closed.
    const closed = this.#sendError === undefined || this.#sendError instanceof ConnectionClosedError;
    const error = closed ? (await this.#conn.closed).error : this.#sendError;
    return new CommandError(`lost the connection to ${this.#peer}: ${reasonOfPeer(error)}${this.#hint}`, 1);
  }

  /** What to try if the server has only read, and nothing tells why: OpenSSL closes so if it is sent plain text. */
  get #hint(): string {
    const unanswered = this.#sent && !this.#received && this.#conn.tls === undefined;
    return unanswered ? "; if it speaks TLS, use --tls" : "";
  }

  #speaksTls(): CommandError {
    return new CommandError(`cannot talk to ${this.#peer} in plain text: the server speaks TLS, which needs --tls`, 1);
  }
}

/** Whether these bytes, the first that have come, are a TLS server's. It writes its alert at once. */
function isAlert(bytes: Uint8Array): boolean {
  return ALERT.every((byte, at) => byte === undefined || byte === bytes[at]);
}

async function input(into: Uint8Array): Promise<number | null> {
  try {
    return await Deno.stdin.read(into);
  } catch (error) {
    throw new CommandError(`cannot read stdin: ${reasonOf(error)}`, 1);
  }
}
