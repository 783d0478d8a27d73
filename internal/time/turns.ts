/**
 * Shares the event loop among connections, in turns.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { hasAskers, round, rounds, turn } from "./event_loop.ts";

/**
 * Shares the event loop among connections with much work. In one turn, all of them together do a limited amount; then
 * other connections and timers run. Without turns, peers that always have data would starve the others.
 */
export class Turns {
  readonly #most: number;
  readonly #next: () => Promise<void>;
  readonly #inARow: number;
  #left: number;
  #waiting: { amount: number; go: () => void }[] = [];
  #ending = false;
  #taken = 0;
  #pausing = 0;

  /**
   * @param most Maximum amount of work in one turn, by all together.
   * @param next Waits until the next turn begins.
   * @param inARow After this many calls of `take`, other callbacks that are ready run first, within the same turn.
   */
  constructor(most: number, next: () => Promise<void>, inARow: number = Infinity) {
    this.#most = this.#left = most;
    this.#next = next;
    this.#inARow = inARow;
  }

  /**
   * Takes a share of this turn, or of a later one if this turn is used up.
   *
   * @param amount The amount of work; it may be more than what is left of the turn.
   * @returns A promise that settles when the work may begin; `undefined` if it may begin now.
   */
  take(amount: number): Promise<void> | undefined {
    const turn = this.#take(amount);
    return ++this.#taken % this.#inARow === 0 ? this.#pause(turn) : turn;
  }

  #take(amount: number): Promise<void> | undefined {
    if (this.#left > 0 && this.#waiting.length === 0) {
      this.#left -= amount;
      this.#endLater();
      return undefined;
    }
    return new Promise((go) => {
      if (this.#waiting.push({ amount, go }) === 1) this.#beginLater();
    });
  }

  async #pause(turn: Promise<void> | undefined): Promise<void> {
    await turn;
    this.#pausing++;
    await round();
    this.#pausing--;
  }

  /** Ends the turn when the loop has gone round, if no work waits. This is cheaper than waiting with `next`. */
  #endLater(): void {
    if (this.#ending) return;
    this.#ending = true;
    setImmediate(() => {
      this.#ending = false;
      if (this.#pausing > 0) this.#endLater();
      else if (this.#waiting.length === 0) this.#left = this.#most;
    });
  }

  #beginLater(): void {
    this.#next().then(() => {
      this.#left = this.#most;
      let count = 0;
      for (; this.#left > 0 && count < this.#waiting.length; count++) {
        const { amount, go } = this.#waiting[count];
        this.#left -= amount;
        go();
      }
      this.#waiting.splice(0, count);
      if (this.#waiting.length > 0) this.#beginLater();
      else this.#endLater();
    });
  }
}

/** Where another engine is in use, one of this many turns waits for Deno's sockets; each such wait takes a fifth of a turn. */
const TURNS_PER_WAIT = 4;

let turnsBegun = 0;

/**
 * Waits until the kernel has been asked about the sockets: those of another engine are asked about in each round of the
 * event loop, and Deno's in many.
 */
function nextTurn(): Promise<void> {
  return hasAskers() && ++turnsBegun % TURNS_PER_WAIT > 0 ? round() : rounds();
}

/** Maximum bytes of input answered in one turn, by all connections together: half a millisecond's work. */
export const TURN_BYTES: number = 512 * 1024;

/** The work of one line that is handled by itself, counted in bytes of a block. */
export const LINE_WORK = 256;

/** The least work of a read that has filled its buffer: it costs as much as the bytes of some hundred short lines. */
export const READ_WORK: number = 4 * 1024;

/** Maximum lines at hand that a connection handles one by one before others come first; they count as a whole turn. */
export const SHARE_LINES = 1024;

/**
 * Work in bytes after which a connection waits for its turn before it reads again. With more, each of many connections
 * would work alone for a while, and then wait for all others.
 */
export const SHARE_BYTES: number = 16 * 1024;

/** The turns of connections that send much. All servers of a process share them, because they share one event loop. */
export const TURNS: Turns = new Turns(TURN_BYTES, nextTurn);

function roundsOrTurn(): Promise<void> {
  return hasAskers() ? rounds() : turn();
}

/**
 * The turns of new connections, which are counted, because accepting 64 can take some milliseconds. They are separate
 * from {@linkcode TURNS}, so that a new connection does not wait for those that send much. In a storm of new
 * connections, the sockets of all others are read between two turns.
 */
export const ACCEPT_TURNS: Turns = new Turns(64, roundsOrTurn, 16);
