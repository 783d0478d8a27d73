/**
 * The first door: blocks of whole lines in, the handler, their replies out.
 *
 * @module
 */

import type { Conn, LineHandler } from "./handlers.ts";
import { type Breach, Limiter, type SizeLimits } from "./limiter.ts";
import { type Outbox, READY_BYTES } from "./outbox.ts";
import type { Input, Peer } from "./peer.ts";
import { decodeLines } from "./text.ts";
import { turn } from "./turn.ts";

/** So much input in one go, and the others have their turn: a peer that always has data would starve them. */
const TURN_BYTES = 256 * 1024;
const TURN_LINES = 8 * 1024;

/** Reads a connection's lines and has each of them answered. */
export class LineDoor implements Input {
  readonly #conn: Conn & Peer;
  readonly #outbox: Outbox;
  readonly #handler: LineHandler;
  readonly #limiter: Limiter;
  #reading = false;
  #ended = false;
  /** Whether the handler is at work. */
  answering = false;

  constructor(conn: Conn & Peer, outbox: Outbox, handler: LineHandler, limits: SizeLimits) {
    this.#conn = conn;
    this.#outbox = outbox;
    this.#handler = handler;
    this.#limiter = new Limiter(limits);
  }

  get count(): number {
    return this.#limiter.lines;
  }

  get breach(): Breach | undefined {
    return this.#limiter.breach;
  }

  get atRest(): boolean {
    return this.#reading && !this.#limiter.midLine;
  }

  end(): boolean {
    this.#ended = true;
    return !this.#reading;
  }

  /** Serves until the input is over; throws what the handler throws. */
  async serve(): Promise<void> {
    const limiter = this.#limiter;
    const conn = this.#conn;
    let burst = 0;
    while (!this.#ended && limiter.breach === undefined) {
      let count: number | null;
      try {
        const read = conn.read(limiter.space());
        this.#reading = true;
        conn.wait(limiter.midLine);
        count = await read;
        this.#reading = false;
      } catch (error) {
        return conn.failed(error);
      }
      if (conn.leaving) return;
      conn.rest();
      conn.took(count);
      const block = count === null ? limiter.end() : limiter.take(count);
      if (block !== undefined) await this.#answer(decodeLines(block));
      if (count === null) return;
      // A read that fills its buffer did not have to wait, and neither will the next.
      burst = limiter.full ? burst + count : 0;
      if (burst >= TURN_BYTES) {
        burst = 0;
        await turn();
      }
    }
  }

  #answer(lines: string): Promise<void> {
    this.#conn.lineEnded();
    if (this.#handler.block === undefined) return this.#answerEach(lines);
    this.answering = true;
    const replies = this.#handler.block(lines, this.#conn);
    this.answering = false;
    this.#outbox.add(checkReply(replies));
    return this.#outbox.flush();
  }

  async #answerEach(lines: string): Promise<void> {
    const conn = this.#conn;
    const outbox = this.#outbox;
    this.answering = true;
    let left = TURN_LINES;
    for (let from = 0; from < lines.length && !this.#ended;) {
      const to = lines.indexOf("\n", from);
      let reply = this.#handler(lines.slice(from, to), conn);
      if (typeof reply === "object") {
        // Earlier replies do not wait for this one.
        outbox.flush();
        reply = await reply;
      }
      if (conn.leaving) return;
      if (reply !== undefined) outbox.add(checkReply(reply) + "\n");
      if (outbox.size >= READY_BYTES) await outbox.flush();
      if (--left === 0) {
        left = TURN_LINES;
        await turn();
      }
      from = to + 1;
    }
    this.answering = false;
    await outbox.flush();
  }
}

function checkReply(reply: unknown): string {
  if (typeof reply === "string") return reply;
  throw new TypeError(
    `Cannot send what the line handler returned: expected a string or undefined, got ${typeof reply}`,
  );
}
