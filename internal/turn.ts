/**
 * Ways to let the event loop go round.
 *
 * @module
 */

import { setImmediate } from "node:timers";

/**
 * Lets everything that is ready have its turn, timers and sockets included.
 *
 * A promise that is ready, and even `setImmediate`, goes before the sockets: Deno's loop asks the kernel for news only
 * now and then while there is other work. A timer makes it ask.
 */
export function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/** Lets the loop go round once: those who are known to be ready have their turn, but the kernel need not be asked. */
function round(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => resolve()));
}

/** So much in one go, of all connections together, and those who have little to say have their turn. */
const TURN_BYTES = 256 * 1024;

/** Handling a line by itself takes as long as so many bytes of a block. */
export const LINE_BYTES = 128;

/** So many lines are a whole turn's work; whoever has more of them at hand waits for a turn again. */
export const TURN_LINES = TURN_BYTES / LINE_BYTES;

/** To let somebody in is about as much work as to answer so much input; a storm of them has many turns. */
const ENTRY_BYTES = 4 * 1024;

/** So many are let in before those who are known to have spoken are heard: a whole turn can take ten milliseconds. */
const ENTRIES_IN_A_ROW = 16;

/**
 * Shares each turn among those who have much to do in it: peers that always have data, in whatever number, would starve
 * the others.
 */
export class Turns {
  #left = TURN_BYTES;
  #waiting: { bytes: number; go: () => void }[] = [];
  #ending = false;
  #pausing = 0;
  #entries = 0;

  /**
   * Takes of this turn, or of a later one.
   *
   * @param bytes How much work it is, in bytes of input.
   * @returns When it may be done; `undefined` for now.
   */
  take(bytes: number): Promise<void> | undefined {
    if (this.#left > 0 && this.#waiting.length === 0) {
      this.#left -= bytes;
      this.#endLater();
      return undefined;
    }
    return new Promise((go) => {
      if (this.#waiting.push({ bytes, go }) === 1) this.#beginLater();
    });
  }

  /** Takes of this turn, or of a later one, what {@linkcode TURN_LINES} cost. */
  takeLines(): Promise<void> | undefined {
    return this.take(TURN_BYTES);
  }

  /** Takes of this turn, or of a later one, what it costs to let somebody in. */
  takeEntry(): Promise<void> | undefined {
    const turn = this.take(ENTRY_BYTES);
    return ++this.#entries % ENTRIES_IN_A_ROW === 0 ? this.#pause(turn) : turn;
  }

  /** Lets those who are known to be ready go first, within the same turn. */
  async #pause(turn: Promise<void> | undefined): Promise<void> {
    await turn;
    this.#pausing++;
    await round();
    this.#pausing--;
  }

  /** Nobody waits: it is over when the loop goes round, which is cheaper to learn than a timer is. */
  #endLater(): void {
    if (this.#ending) return;
    this.#ending = true;
    setImmediate(() => {
      this.#ending = false;
      if (this.#pausing > 0) this.#endLater();
      else if (this.#waiting.length === 0) this.#left = TURN_BYTES;
    });
  }

  #beginLater(): void {
    turn().then(() => {
      this.#left = TURN_BYTES;
      let count = 0;
      for (; this.#left > 0 && count < this.#waiting.length; count++) {
        const { bytes, go } = this.#waiting[count];
        this.#left -= bytes;
        go();
      }
      this.#waiting.splice(0, count);
      if (this.#waiting.length > 0) this.#beginLater();
      else this.#endLater();
    });
  }
}

/** The turns of this process, whose servers share one loop. */
export const TURNS = new Turns();

/** The loop asks the kernel at least once in 61 rounds, even if it is never at rest. */
const ROUNDS = 64;

/**
 * Lets the loop ask the kernel about its sockets for certain. A timer alone does not, where the processor is so busy
 * that it is due before the loop comes to rest.
 */
export async function socketsTurn(): Promise<void> {
  for (let left = ROUNDS; left > 0; left--) await round();
  await turn();
}
