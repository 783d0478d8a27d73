/**
 * A server of one client.
 *
 * @module
 */

import type { Conn, ServeOptions } from "@x/shouty";
import type { FakeClock, TestClient } from "@x/shouty/testing";
import { inMemory, startConversations, type TestServer } from "./server.ts";

/** Serves one client with a conversation, on a clock that only the test moves. */
export async function play(
  options: ServeOptions,
  handler: (conn: Conn) => Promise<unknown> | void,
  scenario: (client: TestClient, clock: FakeClock, t: TestServer) => Promise<void>,
): Promise<void> {
  const { listener, clock } = inMemory();
  await using t = startConversations({ ...options, listener, clock }, async (conn) => void await handler(conn));
  await scenario(await t.admitted(), clock, t);
}
