/**
 * Lets the event loop run other work: functions that wait for it, and turns that connections share.
 *
 * @module
 */

import { setImmediate } from "node:timers";

/** The functions that ask the kernel about the sockets of other engines than Deno's, and settle their reads. */
const askers = new Set<() => void>();

/**
 * Registers an engine whose sockets are not Deno's, for {@linkcode askNow}.
 *
 * @param ask Asks the kernel about all sockets of the engine, and settles the reads that have data, before it returns.
 * @returns A function that removes the registration.
 */
export function registerAsker(ask: () => void): () => void {
  askers.add(ask);
  return () => void askers.delete(ask);
}

/** Whether an engine is registered whose sockets are not Deno's. */
export function hasAskers(): boolean {
  return askers.size > 0;
}

/**
 * Asks the kernel at once about all sockets that are not Deno's. When it returns, reads that have data are settled;
 * code that awaits them runs later. Deno's own sockets cannot be asked like this; {@linkcode socketsTurn} waits for
 * them.
 */
export function askNow(): void {
  for (const ask of askers) ask();
}

/**
 * Counts the waits for the event loop: those that have begun, and those of them that are over. While the numbers differ,
 * connections have work left that they do when the loop has gone round, and no clock is needed for it. A clock that is
 * moved by hand looks at them before it moves.
 */
export const LOOP_WAITS: { begun: number; over: number } = { begun: 0, over: 0 };

/** Counts a wait that begins now; the function that it returns ends the wait, and must be called once. */
function begin(resolve: () => void): () => void {
  LOOP_WAITS.begun++;
  return () => {
    LOOP_WAITS.over++;
    resolve();
  };
}

/**
 * Waits until everything that is ready has run, timers and sockets included; this takes a millisecond or two.
 *
 * Settled promises, and even `setImmediate`, run before the sockets: while there is other work, Deno's event loop asks
 * the kernel about sockets only now and then. A timer makes it ask, unless the timer is due before the loop would wait.
 */
export function turn(): Promise<void> {
  return new Promise((resolve) => void beginTurn(resolve));
}

/** Calls back after a turn. The function that it returns stops the timer and calls back at once, if it has not yet. */
function beginTurn(resolve: () => void): () => void {
  askNow();
  const end = begin(resolve);
  const id = setTimeout(end, 0);
  return () => {
    clearTimeout(id);
    end();
  };
}

/**
 * Waits for one round of the event loop: callbacks that are ready run, but the kernel may not be asked about sockets.
 */
export function round(): Promise<void> {
  return new Promise((resolve) => setImmediate(begin(resolve)));
}

/** Rounds after which the loop has asked the kernel about Deno's sockets: it does so at least once in 61 rounds. */
export const ROUNDS = 64;

/** Number of these rounds after which the kernel is asked about the other sockets once more; each costs a system call. */
const ROUNDS_PER_ASK = 32;

/** Waits until the loop has asked the kernel about its sockets, in a tenth of the time that {@linkcode turn} takes. */
export function rounds(): Promise<void> {
  return new Promise((resolve) => {
    let left = ROUNDS;
    const end = begin(resolve);
    const goOn = () => {
      if (left === 0) return end();
      if (left-- % ROUNDS_PER_ASK === 0) askNow();
      setImmediate(goOn);
    };
    goOn();
  });
}

function roundsOrTurn(): Promise<void> {
  return hasAskers() ? rounds() : turn();
}

/**
 * Waits until the kernel has been asked about up to 128 sockets and the callbacks have run. For more sockets,
 * {@linkcode socketsTurns} waits for it several times.
 */
export async function socketsTurn(): Promise<void> {
  await rounds();
  await turn();
}

/** Binary logarithm of the number of operations that Deno's loop completes in one round, which is 128. */
const LOG_OPERATIONS = 7;

/**
 * Waits until every outstanding read has got the bytes that the kernel had at the call.
 *
 * @param sockets The number of sockets.
 * @param turn Waits for a part of the sockets. It is awaited once more than needed, because its first wait may have
 * begun before the call.
 */
export async function socketsTurns(sockets: number, turn: () => Promise<void> = socketsTurn): Promise<void> {
  for (let turns = 2 + (sockets >> LOG_OPERATIONS); turns > 0; turns--) await turn();
}

/**
 * Calls back once every outstanding read has got the bytes that the kernel had at the call.
 *
 * @param sockets The number of sockets.
 * @param callback Called unless the wait is called off.
 * @returns A function that calls the wait off, and leaves no timer behind.
 */
export function afterSocketsTurns(sockets: number, callback: () => void): () => void {
  let isOff = false;
  let skip: (() => void) | undefined;
  const timer = (resolve: () => void) => {
    skip = beginTurn(() => {
      skip = undefined;
      resolve();
    });
  };
  const turn = async () => {
    if (!isOff) await rounds();
    if (!isOff) await new Promise<void>(timer);
  };
  socketsTurns(sockets, turn).then(() => isOff || callback());
  return () => {
    isOff = true;
    skip?.();
  };
}

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

/**
 * The turns of new connections, which are counted, because accepting 64 can take some milliseconds. They are separate
 * from {@linkcode TURNS}, so that a new connection does not wait for those that send much. In a storm of new
 * connections, the sockets of all others are read between two turns.
 */
export const ACCEPT_TURNS: Turns = new Turns(64, roundsOrTurn, 16);
