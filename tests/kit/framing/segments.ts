/**
 * A connection whose input comes in given parts, at given moments.
 *
 * @module
 */

import type { Listener, Transport } from "@x/shouty";

/** Lets some microtasks run; from 32 on, a whole round of the event loop. */
export async function pass(ticks: number): Promise<void> {
  if (ticks >= 32) await new Promise((resolve) => setTimeout(resolve, 0));
  else for (let left = ticks; left > 0; left--) await Promise.resolve();
}

/** A listener with one connection, whose reads bring the given bytes in parts, each after a number of ticks. */
export function listenerOf(bytes: Uint8Array, cuts: readonly number[], ticks: readonly number[]): Listener {
  const addr = { transport: "tcp", hostname: "127.0.0.1", port: 1 } as const;
  const closed = Promise.withResolvers<never>();
  closed.promise.catch(() => {});
  let [at, calls] = [0, 0];
  const transport: Transport = {
    remoteAddr: addr,
    localAddr: addr,
    async read(into) {
      const call = calls++;
      await pass(ticks[call % (ticks.length || 1)] ?? 0);
      const part = bytes.subarray(at, at + Math.min(into.length, cuts[call] || Infinity));
      into.set(part);
      at += part.length;
      return part.length > 0 ? part.length : null;
    },
    write: (data) => Promise.resolve(data.length),
    closeWrite: () => Promise.resolve(),
    close: () => closed.reject(new Deno.errors.Interrupted()),
  };
  const waiting: Transport[] = [transport];
  const over = Promise.withResolvers<Transport>();
  over.promise.catch(() => {});
  return {
    addr,
    accept: async () => waiting.pop() ?? await over.promise,
    close: () => over.reject(new Deno.errors.BadResource()),
  };
}
