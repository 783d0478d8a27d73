/**
 * The bad clients, in a thread of their own, so that they do not slow down those who measure.
 *
 * @module
 */

import { KINDS, misbehave } from "./bad.ts";

/** What the thread is told. */
export interface CrowdOrder {
  port: number;
  count: number;
  seconds: number;
}

const scope = self as unknown as {
  onmessage: (event: MessageEvent<CrowdOrder>) => void;
  postMessage(times: Record<string, number>): void;
};

scope.onmessage = async ({ data: { port, count, seconds } }) => {
  // An upload that is cut off, or a read that is, may reject where nobody waits for it any more.
  globalThis.addEventListener("unhandledrejection", (event) => event.preventDefault());
  const end = new AbortController();
  setTimeout(() => end.abort(), 1000 * seconds);
  const times: Record<string, number> = Object.fromEntries(KINDS.map((kind) => [kind, 0]));
  await Promise.all(Array.from({ length: count }, async (_, i) => {
    const kind = KINDS[i % KINDS.length];
    const count = await misbehave(kind, { port, signal: end.signal });
    times[kind] += count;
  }));
  scope.postMessage(times);
};
