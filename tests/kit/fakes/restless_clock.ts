/**
 * A clock for connections that never rest.
 *
 * @module
 */

import type { Clock } from "@x/shouty";

/** A clock that moves at once. A FakeClock waits first until nothing is left to do, which some peers and handlers never allow. */
export function restlessClock(): Clock & { pass(ms: number): void } {
  const timers = new Set<{ at: number; callback: () => void }>();
  let time = 0;
  return {
    now: () => time,
    setTimer(callback, delay) {
      const timer = { at: time + delay, callback };
      timers.add(timer);
      return () => void timers.delete(timer);
    },
    pass(ms) {
      time += ms;
      for (const timer of timers) if (timer.at <= time && timers.delete(timer)) timer.callback();
    },
  };
}
