/**
 * A server whose listener or transports fail, and its clients.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { FakeClock, MemoryListener, type TestClient } from "@x/shouty/testing";
import { type Faults, faulty } from "./faults.ts";
import { type Start, TestServer } from "./server.ts";

/** What a client sends in `converse`. */
export const LINES: readonly string[] = ["one", "two", "three", "four"];

/** Runs a scenario on a faulty listener in memory, and checks that the server kept the contract of `Transport`. */
export async function play(
  start: Start,
  faults: Faults,
  scenario: (t: TestServer, connect: () => TestClient) => Promise<void>,
): Promise<void> {
  const memory = new MemoryListener();
  const misuse: string[] = [];
  {
    await using t = new TestServer(start, { listener: faulty(memory, { ...faults, misuse }), clock: new FakeClock() });
    await scenario(t, () => memory.connect());
  }
  assertEquals(misuse, []);
}

/** Sends something, ends the client's side, and returns everything that comes back. */
export async function talk(memory: MemoryListener, input: string): Promise<string> {
  using client = memory.connect();
  await client.write(input);
  await client.closeWrite();
  return await client.readAll().catch(() => "");
}

/** Sends one line after another, and reads the replies, until the connection ends. */
export async function converse(client: TestClient): Promise<(string | null)[]> {
  const replies: (string | null)[] = [];
  try {
    for (const line of LINES) {
      await client.write(`${line}\n`);
      replies.push(await client.readLine());
    }
    await client.closeWrite();
    replies.push(await client.readLine());
  } catch {
    // The connection has met the fault.
  }
  client[Symbol.dispose]();
  return replies.filter((reply) => reply !== null);
}
