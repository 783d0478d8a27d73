/**
 * Tests with a time limit.
 *
 * @module
 */

import { socketsTurn } from "../../internal/time/event_loop.ts";

/**
 * How a file runs the tests of other files once more: the suffix of their names, whether those of `testOnce` are among
 * them, whether they are skipped, and a check after each.
 */
export const VARIANT: { suffix: string; all: boolean; ignore: boolean; check: () => void } = {
  suffix: "",
  all: false,
  ignore: false,
  check: () => {},
};

/** Registers a test that a variant runs once more only if it changes more than sockets. */
export function testOnce(name: string, body: () => void | Promise<void>, seconds?: number, missing?: string): void {
  if (VARIANT.suffix === "" || VARIANT.all) test(name, body, seconds, missing);
}

/**
 * Registers a test that fails when it takes too long, instead of blocking the suite.
 *
 * @param name A sentence.
 * @param body The test.
 * @param seconds Maximum duration; far more than the test needs, as other tests may keep the processor busy.
 * @param missing Why the test is skipped on this machine, appended to its name; empty if it is not.
 */
export function test(name: string, body: () => void | Promise<void>, seconds = 60, missing = ""): void {
  const ignore = missing !== "" || VARIANT.ignore;
  const fn = async () => {
    await within(seconds, Promise.try(body));
    VARIANT.check();
    // Turns may outlast the connections that took them. Wait for them: they would be reported as leaks.
    for (let turns = 3; turns > 0; turns--) await socketsTurn();
  };
  Deno.test({ name: name + missing + VARIANT.suffix, ignore, fn });
}

/** Waits for a promise, but not longer than the given number of seconds. */
export async function within<T>(seconds: number, promise: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`Not done within ${seconds} s`)), 1000 * seconds);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
