/**
 * Waits that have an end.
 *
 * @module
 */

/** Waits for a promise, for some milliseconds at most. */
export async function within(ms: number, promise: Promise<void>): Promise<void> {
  const late = Promise.withResolvers<void>();
  const timer = setTimeout(late.resolve, ms);
  await Promise.race([promise, late.promise]);
  clearTimeout(timer);
}
