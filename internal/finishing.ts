/**
 * Ending a connection at a line boundary, once what its peer has sent is answered.
 *
 * @module
 */

/** Why a connection is ended at a line boundary. */
export type FinishReason = "drained" | "max-age" | "max-lines";

/** The connection, as far as this needs it. */
export interface Finishable {
  /** Whether everything that came is answered, no line has begun, and the server waits for the peer. */
  readonly atRest: boolean;
  /** Whether it is about to end anyway. */
  readonly leaving: boolean;
  /** How many bytes have come. */
  readonly bytesIn: number;
  /** Whether the last read filled its buffer, so that what follows has been sent already. */
  readonly full: boolean;
  /** How many lines have ended. */
  readonly linesIn: number;
  /** Lets the kernel say what else has come, of any number of sockets. */
  socketsTurn(): Promise<void>;
  /** Takes no more lines. */
  finishNow(reason: FinishReason): void;
}

/** So much is still read and answered. */
const MAX_BYTES = 1024 * 1024;

/** How often the peer may go on: a megabyte in TLS records when draining, less when it is a limit's turn. */
const MAX_BOUNDARIES: Readonly<Record<FinishReason, number>> = { "drained": 64, "max-age": 8, "max-lines": 8 };

/**
 * Finds the moment. The kernel has nothing more if a read is still outstanding after the sockets have had their turn. A
 * peer that goes on talking never is so quiet, but what it had sent by now is among the first things that it is heard to
 * say; a read may bring less of that than there is, as it does with TLS.
 */
export class Finishing {
  readonly reason: FinishReason;
  readonly #conn: Finishable;
  readonly #maxBytesIn: number;
  #linesIn: number;
  #boundaries = 0;
  #watching = false;
  /** Whether the moment has come. */
  over = false;

  /**
   * @param reason Why it is ended.
   * @param conn The connection.
   */
  constructor(reason: FinishReason, conn: Finishable) {
    this.reason = reason;
    this.#conn = conn;
    this.#maxBytesIn = conn.bytesIn + MAX_BYTES;
    this.#linesIn = conn.linesIn;
    this.rested();
  }

  /** Bytes have come. */
  took(): void {
    if (this.#conn.bytesIn > this.#maxBytesIn) this.#finish();
  }

  /** The server waits for the peer, perhaps between two lines. */
  async rested(): Promise<void> {
    const conn = this.#conn;
    // Whoever begins the next line whenever it ends one is never at rest, and that is what it may be after.
    const atBoundary = conn.atRest || conn.linesIn > this.#linesIn && !conn.full;
    this.#linesIn = conn.linesIn;
    if (atBoundary && ++this.#boundaries > MAX_BOUNDARIES[this.reason]) return this.#finish();
    if (this.#watching) return;
    this.#watching = true;
    while (conn.atRest && !conn.leaving && !this.over) {
      const { bytesIn } = conn;
      await conn.socketsTurn();
      if (conn.atRest && conn.bytesIn === bytesIn) this.#finish();
    }
    this.#watching = false;
  }

  #finish(): void {
    this.over = true;
    this.#conn.finishNow(this.reason);
  }
}
