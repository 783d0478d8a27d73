/**
 * Reading a connection's lines, block by block; both doors stand on it.
 *
 * @module
 */

import { type Breach, Limiter, type SizeLimits } from "./limiter.ts";
import { countLines, decodeLines } from "./text.ts";
import { turn } from "./turn.ts";

/** What reading needs of its connection. */
export interface Peer {
  /** Whether the connection is about to end, so that nobody should go on. */
  readonly leaving: boolean;
  /** Starts the one outstanding read; `null` is the end of input. */
  read(into: Uint8Array): Promise<number | null>;
  /** A read has settled with so many bytes, or with the end of input. */
  took(count: number | null): void;
  /** A read has failed. */
  failed(error: unknown): void;
  /** The server begins to wait for the peer, being in the middle of a line or not. */
  wait(midLine: boolean): void;
  /** It waits no longer. */
  rest(): void;
  /** A line has ended. */
  lineEnded(): void;
}

/** So much input in one go, and the others have their turn: a peer that always has data would starve them. */
const TURN_BYTES = 256 * 1024;

/** Blocks of whole lines, read when they are asked for, so that the clocks know who waits for whom. */
export class Blocks {
  readonly #peer: Peer;
  readonly #limiter: Limiter;
  #reading = false;
  #over = false;
  #burst = 0;
  /** Whole lines that came. */
  lines = 0;

  constructor(peer: Peer, limits: SizeLimits) {
    this.#peer = peer;
    this.#limiter = new Limiter(limits);
  }

  /** The limit that was passed, if one was. */
  get breach(): Breach | undefined {
    return this.#limiter.breach;
  }

  /** Whether the server waits for the peer. */
  get reading(): boolean {
    return this.#reading;
  }

  /** Whether it waits for the peer, and no line has begun. */
  get atRest(): boolean {
    return this.#reading && !this.#limiter.midLine;
  }

  /** Reads no more. */
  end(): void {
    this.#over = true;
  }

  /**
   * The next block.
   *
   * @returns One or more lines, each ended by one LF; `undefined` when there will be no more, whatever the cause.
   */
  async next(): Promise<string | undefined> {
    const peer = this.#peer;
    const limiter = this.#limiter;
    while (!this.#over && limiter.breach === undefined) {
      if (this.#burst >= TURN_BYTES) {
        this.#burst = 0;
        await turn();
      }
      let count: number | null;
      try {
        const read = peer.read(limiter.space());
        this.#reading = true;
        peer.wait(limiter.midLine);
        count = await read;
      } catch (error) {
        peer.failed(error);
        return undefined;
      } finally {
        this.#reading = false;
      }
      if (peer.leaving || this.#over) return undefined;
      peer.rest();
      peer.took(count);
      if (count === null) this.#over = true;
      const block = count === null ? limiter.end() : limiter.take(count);
      // A read that fills its buffer did not have to wait, and neither will the next.
      this.#burst = limiter.full ? this.#burst + count! : 0;
      if (block === undefined) continue;
      peer.lineEnded();
      const lines = decodeLines(block);
      this.lines += countLines(lines);
      return lines;
    }
  }
}
