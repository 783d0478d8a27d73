/**
 * Ways to let the event loop go round.
 *
 * @module
 */

/**
 * Lets everything that is ready have its turn, timers and sockets included.
 *
 * A promise that is ready, and even `setImmediate`, goes before the sockets: Deno's loop asks the kernel for news only
 * now and then while there is other work. A timer makes it ask.
 */
export function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
