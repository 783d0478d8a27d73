/**
 * Connections that begin TLS at the command `STARTTLS`.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import type { Conn, ServeOptions, TlsCredentialsHandle } from "@x/shouty";
import type { TestClient } from "@x/shouty/testing";
import { HELLO, SERVER_HELLO } from "./fakes/fake_tls.ts";
import { startConversations, type TestServer } from "./server.ts";

/** What a server does at the command `STARTTLS`. */
export type Upgrade = (conn: Conn, line: string) => Promise<unknown>;

/** A server whose clients begin TLS with `STARTTLS`; it shouts, in both states. */
export function startUpgrading(
  options: ServeOptions,
  credentials: TlsCredentialsHandle,
  upgrade: Upgrade = (conn) => (conn.write("go ahead\n"), conn.startTls(credentials)),
): TestServer {
  return startConversations(options, async (conn) => {
    for await (const line of conn.lines) {
      if (line === "STARTTLS") await upgrade(conn, line);
      else await conn.write(`${line.toUpperCase()}\n`);
    }
  });
}

/** Begins TLS as a client. */
export async function shakeHands(client: TestClient): Promise<void> {
  await client.write("STARTTLS\n");
  assertEquals(await client.readLine(), "go ahead");
  await client.write(HELLO);
  assertEquals(await client.readBytes(SERVER_HELLO.length), SERVER_HELLO);
}
