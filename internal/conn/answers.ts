/**
 * Answering with a line handler: it gets blocks of whole lines, and its replies go to the outbox.
 *
 * @module
 */

import { countLineFeeds } from "../lines/ascii.ts";
import { decodeLines } from "../lines/text.ts";
import type { Budget } from "../memory/budget.ts";
import type { ConnectionClocks } from "../time/conn_clocks.ts";
import { ANSWER_BYTES, type BytesHandler, type Conn, type Reply } from "../api/handlers.ts";
import type { Outbox } from "./outbox.ts";
import type { Answerer, Reader } from "./reader.ts";
import { TURN_BYTES, TURN_LINES, TURNS } from "../time/turns.ts";

/** Maximum length of a block that is answered as bytes: a longer block is answered faster as text. */
const SHORT_BYTES = 4 * 1024;

/** Calls the line handler for the lines of one connection, and writes its replies. */
export class Answers implements Answerer {
  readonly #conn: { readonly handle: Conn };
  readonly #reader: Reader;
  readonly #outbox: Outbox;
  readonly #clocks: ConnectionClocks;
  readonly #handler: BytesHandler;
  readonly #budget: Budget;
  /** Whether the handler is running. */
  answering = false;

  /**
   * @param conn The connection, whose handle the handler gets.
   * @param reader Decodes and counts the lines, and says whether more are to be answered.
   * @param outbox Where the replies go.
   * @param clocks Told when the connection starts and stops waiting for the handler.
   * @param budget Says whether memory is short.
   * @param handler Answers the lines.
   */
  constructor(
    conn: { readonly handle: Conn },
    reader: Reader,
    outbox: Outbox,
    clocks: ConnectionClocks,
    budget: Budget,
    handler: BytesHandler,
  ) {
    this.#conn = conn;
    this.#reader = reader;
    this.#outbox = outbox;
    this.#clocks = clocks;
    this.#handler = handler;
    this.#budget = budget;
  }

  answer(block: Uint8Array<ArrayBuffer>): Promise<void> {
    const { tight } = this.#budget;
    if (this.#handler[ANSWER_BYTES] === undefined || block.length > SHORT_BYTES || tight) {
      return this.answerText(this.#reader.textOf(block, this.#handler.block === undefined));
    }
    const count = countLineFeeds(block);
    this.#reader.came(count);
    return this.#answerBytes(block, count);
  }

  answerText(lines: string): Promise<void> {
    if (this.#handler.block === undefined) return this.#answerEach(lines);
    this.answering = true;
    const replies = this.#handler.block(lines, this.#conn.handle);
    this.answering = false;
    this.#outbox.add(checkText(replies, "a string"));
    return this.#outbox.flush();
  }

  #answerBytes(lines: Uint8Array<ArrayBuffer>, count: number): Promise<void> {
    this.answering = true;
    const replies = this.#handler[ANSWER_BYTES]!(lines);
    this.answering = false;
    if (replies === undefined) {
      if (this.#handler.block === undefined) this.#reader.noteLines(count);
      return this.answerText(decodeLines(lines));
    }
    this.#reader.lent = true;
    if (replies === lines) this.#outbox.lend(lines);
    else this.#outbox.add(checkBytes(replies));
    return this.#outbox.flush();
  }

  async #answerEach(lines: string): Promise<void> {
    const outbox = this.#outbox;
    const conn = this.#conn.handle;
    this.answering = true;
    let left = TURN_LINES;
    for (let from = 0, to; (to = lines.indexOf("\n", from)) >= 0;) {
      let reply = this.#handler(lines.slice(from, to), conn);
      if (typeof reply === "object") reply = await this.#pending(reply);
      if (outbox.closed !== undefined) break;
      if (reply !== undefined) outbox.add(checkText(reply, "a string or undefined") + "\n");
      if (!outbox.hasRoom) await outbox.flush();
      if (--left === 0) {
        left = TURN_LINES;
        await TURNS.take(TURN_BYTES);
      }
      if (this.#reader.stopped) break;
      from = to + 1;
    }
    this.answering = false;
    await outbox.flush();
  }

  /** Awaits a reply; earlier replies are sent meanwhile. */
  async #pending(reply: Promise<Reply> | Reply): Promise<Reply> {
    this.#outbox.flush();
    this.#clocks.work();
    try {
      return await reply;
    } finally {
      this.#clocks.stopHandler();
    }
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
  // The handler must not return a promise here; nothing else would handle its rejection.
  if (reply instanceof Promise) reply.catch(() => {});
  return new TypeError(
    `Cannot send what the line handler returned: expected ${expected}, got ${typeof reply}`,
  );
}
