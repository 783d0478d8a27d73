/**
 * The first door: blocks of whole lines in, the handler, their replies out.
 *
 * @module
 */

import type { Answerer, Blocks } from "./blocks.ts";
import type { Conn, LineHandler } from "./handlers.ts";
import type { Outbox } from "./outbox.ts";
import { TURN_BYTES, TURN_LINES, TURNS } from "./turn.ts";

/** Has each of a connection's lines answered. */
export class LineDoor implements Answerer {
  readonly #conn: Conn & { readonly leaving: boolean };
  readonly #blocks: Blocks;
  readonly #outbox: Outbox;
  readonly #handler: LineHandler;
  /** Whether the handler is at work. */
  answering = false;

  constructor(conn: Conn & { readonly leaving: boolean }, blocks: Blocks, outbox: Outbox, handler: LineHandler) {
    this.#conn = conn;
    this.#blocks = blocks;
    this.#outbox = outbox;
    this.#handler = handler;
  }

  /** Serves until the input is over; rejects with what the handler throws. */
  serve(): Promise<unknown> {
    return this.#blocks.each(this);
  }

  /**
   * Takes no more lines than those that have come.
   *
   * @returns Whether `serve` will settle by itself, which it cannot while it waits for the peer.
   */
  end(): boolean {
    this.#blocks.end();
    return !this.#blocks.reading;
  }

  get oneByOne(): boolean {
    return this.#handler.block === undefined;
  }

  get takesBytes(): boolean {
    return this.#handler.bytes !== undefined;
  }

  /** Takes no more lines than the one that is being answered. */
  stop(): void {
    this.#blocks.stopped = true;
  }

  answer(lines: string): Promise<void> {
    if (this.#handler.block === undefined) return this.#answerEach(lines);
    this.answering = true;
    const replies = this.#handler.block(lines, this.#conn);
    this.answering = false;
    this.#outbox.add(checkText(replies, "a string"));
    return this.#outbox.flush();
  }

  answerBytes(lines: Uint8Array<ArrayBuffer>): Promise<void> | undefined {
    this.answering = true;
    const replies = this.#handler.bytes!(lines, this.#conn);
    this.answering = false;
    if (replies === undefined) return undefined;
    if (replies === lines) this.#outbox.lend(lines);
    else this.#outbox.add(checkBytes(replies));
    return this.#outbox.flush();
  }

  async #answerEach(lines: string): Promise<void> {
    const conn = this.#conn;
    const outbox = this.#outbox;
    this.answering = true;
    let left = TURN_LINES;
    for (let from = 0, to; (to = lines.indexOf("\n", from)) >= 0;) {
      let reply = this.#handler(lines.slice(from, to), conn);
      if (typeof reply === "object") {
        // Earlier replies do not wait for this one.
        outbox.flush();
        reply = await reply;
      }
      if (conn.leaving) return;
      if (reply !== undefined) outbox.add(checkText(reply, "a string or undefined") + "\n");
      if (outbox.full) await outbox.flush();
      if (--left === 0) {
        left = TURN_LINES;
        await TURNS.take(TURN_BYTES);
      }
      if (this.#blocks.stopped) break;
      from = to + 1;
    }
    this.answering = false;
    await outbox.flush();
  }
}

function checkBytes(replies: unknown): Uint8Array {
  if (replies instanceof Uint8Array) return replies;
  throw wrongReply(replies, "a Uint8Array or undefined");
}

function checkText(reply: unknown, expected: string): string {
  if (typeof reply === "string") return reply;
  throw wrongReply(reply, expected);
}

function wrongReply(reply: unknown, expected: string): TypeError {
  // A promise where none may be: what it rejects with is nobody's.
  if (reply instanceof Promise) reply.catch(() => {});
  return new TypeError(
    `Cannot send what the line handler returned: expected ${expected}, got ${typeof reply}`,
  );
}
