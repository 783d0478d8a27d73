/**
 * Several listeners of one server, and their clients.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import type { Listener } from "@x/shouty";
import { FakeClock, MemoryListener, TestClient } from "@x/shouty/testing";
import type { TestServer } from "./server.ts";

/** Connects a client to a listener on the loopback. */
export async function connectTo(t: TestServer, { addr }: Listener): Promise<TestClient> {
  return t.own(new TestClient(await Deno.connect({ port: (addr as Deno.NetAddr).port })));
}

/** Sends a line, and expects it in upper case. */
export async function shoutsTo(client: TestClient, line: string): Promise<void> {
  await client.write(`${line}\n`);
  assertEquals(await client.readLine(), line.toUpperCase());
}

/** Makes listeners in memory, and a clock that stands still. */
export function memories(count: number): { listener: MemoryListener[]; clock: FakeClock } {
  return { listener: Array.from({ length: count }, () => new MemoryListener()), clock: new FakeClock() };
}

/** A client's address that tells to which listener it has connected. */
export function clientOf(listener: number, port: number): Deno.NetAddr {
  return { transport: "tcp", hostname: `10.0.0.${listener}`, port };
}

/** The number of the listener to which such a client has connected. */
export function listenerOf(addr: Deno.Addr): number {
  return Number((addr as Deno.NetAddr).hostname.split(".")[3]);
}
