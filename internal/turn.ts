/**
 * Ways to let the event loop go round.
 *
 * @module
 */

import { setImmediate } from "node:timers";

/** So many lines of one peer in one go, and the others have their turn. */
export const TURN_LINES = 8 * 1024;

/**
 * Lets everything that is ready have its turn, timers and sockets included.
 *
 * A promise that is ready, and even `setImmediate`, goes before the sockets: Deno's loop asks the kernel for news only
 * now and then while there is other work. A timer makes it ask.
 */
export function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/** The loop asks the kernel at least once in 61 rounds, even if it is never at rest. */
const ROUNDS = 64;

/**
 * Lets the loop ask the kernel about its sockets for certain. A timer alone does not, where the processor is so busy
 * that it is due before the loop comes to rest.
 */
export async function socketsTurn(): Promise<void> {
  for (let round = 0; round < ROUNDS; round++) await new Promise<void>((resolve) => setImmediate(() => resolve()));
  await turn();
}
