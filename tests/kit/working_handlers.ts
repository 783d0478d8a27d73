/**
 * Handlers that work until they are told to go on, or until their connection has ended.
 *
 * @module
 */

import type { Conn, ServeOptions } from "@x/shouty";
import type { FakeClock } from "@x/shouty/testing";
import { inMemory, startConversations, startServer, type TestServer } from "./server.ts";

/** A server whose handler works, what lets that go on, and the signals of its connections. */
export interface Working {
  t: TestServer;
  clock: FakeClock;
  goOn: () => void;
  signals: AbortSignal[];
}

/** Waits until a connection's signal aborts; returns the reason. */
export function untilAborted({ signal }: Conn): Promise<unknown> {
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(signal.reason)));
}

/** Starts a server in memory whose handler works until `goOn` is called. */
export function startWaiting(options: ServeOptions = {}, wayIn = "line"): Working {
  const { listener, clock } = inMemory({ bufferBytes: 1 << 20 });
  const { promise, resolve: goOn } = Promise.withResolvers<void>();
  const signals: AbortSignal[] = [];
  const all = { listener, clock, idleTimeout: Infinity, ...options };
  const t = wayIn === "line"
    ? startServer(all, async (line, conn) => (signals.push(conn.signal), await promise, line))
    : startConversations(all, async (conn) => {
      signals.push(conn.signal);
      await promise;
      for await (const line of conn.lines) await conn.write(`${line}\n`);
    });
  return { t, clock, goOn, signals };
}
