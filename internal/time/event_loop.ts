/**
 * Waits for the event loop: until other callbacks have run, or until the kernel has been asked about sockets.
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
