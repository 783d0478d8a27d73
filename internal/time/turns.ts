/**
 * Ways to let the event loop go round.
 *
 * @module
 */

import { setImmediate } from "node:timers";

/** Each asks the kernel about the sockets of an engine that is not Deno's, and tells the readers what has come. */
const askers = new Set<() => void>();

/**
 * Has an engine's sockets asked about wherever the loop's own are: see {@linkcode askNow}.
 *
 * @param ask Asks the kernel about all sockets of the engine, and settles the reads that have something, before it returns.
 * @returns A function that takes it back.
 */
export function registerAsker(ask: () => void): () => void {
  askers.add(ask);
  return () => void askers.delete(ask);
}

/** Whether there are sockets that are not Deno's. */
export function hasAskers(): boolean {
  return askers.size > 0;
}

/**
 * Asks the kernel at once about all sockets that are not Deno's: reads of what has come are settled when it returns,
 * though what awaits them runs later. Deno's own sockets cannot be asked like this; {@linkcode socketsTurn} waits for them.
 */
export function askNow(): void {
  for (const ask of askers) ask();
}

/**
 * Lets everything that is ready have its turn, timers and sockets included, and rests for a millisecond or two.
 *
 * A promise that is ready, and even `setImmediate`, goes before the sockets: Deno's loop asks the kernel for news only
 * now and then while there is other work. A timer makes it ask, unless it is due before the loop comes to rest.
 */
export function turn(): Promise<void> {
  askNow();
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/** Lets the loop go round once: those who are known to be ready have their turn, but the kernel need not be asked. */
export function round(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => resolve()));
}

/** The loop asks the kernel about Deno's sockets at least once in 61 rounds, even if it is never at rest. */
const ROUNDS = 64;

/** Lets the loop ask the kernel about its sockets, in a tenth of the time that {@linkcode turn} takes. */
async function rounds(): Promise<void> {
  for (let left = ROUNDS; left > 0; left--) {
    askNow();
    await round();
  }
}

function roundsOrTurn(): Promise<void> {
  return hasAskers() ? rounds() : turn();
}

/**
 * Waits until the kernel has been asked about every socket and the callbacks have run, for up to 128 sockets:
 * {@linkcode socketsTurns} takes as many of these as it needs.
 */
export async function socketsTurn(): Promise<void> {
  await rounds();
  await turn();
}

/** Binary logarithm of the number of Deno's operations that its loop completes in one go, which is 128. */
const LOG_OPERATIONS = 7;

/**
 * Waits until what the kernel had at the call has been read, wherever a read was outstanding.
 *
 * @param sockets The number of sockets.
 * @param turn What waits for a part of them; it may have begun before the call, which is why it is awaited once more.
 */
export async function socketsTurns(sockets: number, turn: () => Promise<void> = socketsTurn): Promise<void> {
  for (let turns = 2 + (sockets >> LOG_OPERATIONS); turns > 0; turns--) await turn();
}

/**
 * Shares each turn among those who have much to do in it: peers that always have data, in whatever number, would starve
 * the others.
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
   * @param most How much is done in one, by all together.
   * @param next Waits until the next one begins.
   * @param inARow After so many those who are known to be ready go first, within the same turn.
   */
  constructor(most: number, next: () => Promise<void>, inARow: number = Infinity) {
    this.#most = this.#left = most;
    this.#next = next;
    this.#inARow = inARow;
  }

  /**
   * Takes of this turn, or of a later one.
   *
   * @param amount How much, however little is left.
   * @returns When it may be done; `undefined` for now.
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

  /** Nobody waits: it is over when the loop goes round, which is cheaper to learn than to wait for the next. */
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

/** So much input, in bytes, is answered in one turn: a third of a millisecond's work. */
export const TURN_BYTES: number = 256 * 1024;

/** Who handles lines one by one has a turn for so many of them, which is no less work. */
export const TURN_LINES = 1024;

/** A line that is handled by itself is as much work as so many bytes of a block. */
export const LINE_WORK: number = TURN_BYTES / TURN_LINES;

/** The turns of those who have much to say. All servers of this process share them, as they share one loop. */
export const TURNS: Turns = new Turns(TURN_BYTES, rounds);

/**
 * The turns of those who come, by their number, as 64 can take some milliseconds. They wait for nobody who has much to
 * say; and a storm of them has the loop rest in between, so that all others come first, if it does not ask about these
 * anyway.
 */
export const ACCEPT_TURNS: Turns = new Turns(64, roundsOrTurn, 16);
