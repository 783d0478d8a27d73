/**
 * Tests that end.
 *
 * @module
 */

import { socketsTurn } from "../../internal/time/turns.ts";

/**
 * What a file that runs other files' tests once more puts behind their names, whether they are skipped, and what it
 * checks when one has run.
 */
export const VARIANT: { suffix: string; ignore: boolean; check: () => void } = {
  suffix: "",
  ignore: false,
  check: () => {},
};

/** Registers a test that touches nothing which a variant changes, and so is run once. */
export function testOnce(name: string, body: () => void | Promise<void>, seconds?: number, missing?: string): void {
  if (VARIANT.suffix === "") test(name, body, seconds, missing);
}

/**
 * Registers a test that fails when it takes too long, instead of holding up the suite.
 *
 * @param name A sentence.
 * @param body The test.
 * @param seconds How long it may take; far more than it needs, as other tests may keep the processor busy.
 * @param missing Why it is skipped here, to be put behind its name; empty if it is not.
 */
export function test(name: string, body: () => void | Promise<void>, seconds = 60, missing = ""): void {
  const ignore = missing !== "" || VARIANT.ignore;
  const fn = async () => {
    await within(seconds, Promise.try(body));
    VARIANT.check();
    // Turns that have begun may outlast the connections that took them, and would look like leaks.
    for (let turns = 3; turns > 0; turns--) await socketsTurn();
  };
  Deno.test({ name: name + missing + VARIANT.suffix, ignore, fn });
}

/** Waits for a promise, but not longer than so many seconds. */
export async function within<T>(seconds: number, promise: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`Not done within ${seconds} s`)), 1000 * seconds);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
