import { assertEquals } from "@std/assert";
import type { TestClient } from "@x/shouty/testing";

/** Lines, each with its number. */
export function numbered(count: number): string {
  return Array.from({ length: count }, (_, i) => `line ${i}\n`).join("");
}

/** Reads lines and counts them. */
export function countReplies(client: TestClient): { count: number } {
  const replies = { count: 0 };
  (async () => {
    while (await client.readLine().catch(() => null) !== null) replies.count++;
  })();
  return replies;
}

/** Sends a line and reads its reply. */
export async function talk(client: TestClient): Promise<void> {
  await client.write("still here\n");
  assertEquals(await client.readLine(), "STILL HERE");
}
