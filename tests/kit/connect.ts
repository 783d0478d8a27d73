/**
 * Connections of `connect` in memory.
 *
 * @module
 */

import { type Conn, connect, type ConnectOptions } from "@x/shouty";
import { FakeClock, MemoryListener, TestClient } from "@x/shouty/testing";

/** Connects in memory, on a clock that the test moves; returns the connection and the server's end of it. */
export async function inMemory(
  options: ConnectOptions = {},
): Promise<{ conn: Conn; peer: TestClient; clock: FakeClock }> {
  const clock = new FakeClock();
  const listener = new MemoryListener();
  const conn = await connect({ dial: () => listener.dial(), clock, ...options });
  return { conn, peer: new TestClient(await listener.accept()), clock };
}
