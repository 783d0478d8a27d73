/**
 * Deno's own methods for TLS, which a test replaces for a while.
 *
 * @module
 */

import { tlsWrapClass } from "../../../ops/tls/engine/wrap.ts";

type Method = (...args: unknown[]) => unknown;

/** The prototype of the object beneath `node:tls`, for a test that changes it. */
export const WRAP: Record<string, Method> = tlsWrapClass()!.prototype as Record<string, Method>;

/** Replaces a method of it while a function runs. */
export async function withMethod<T>(name: string, method: unknown, run: () => T | Promise<T>): Promise<T> {
  const before = WRAP[name];
  WRAP[name] = method as never;
  try {
    return await run();
  } finally {
    WRAP[name] = before;
  }
}
