import { assertEquals } from "@std/assert";
import { test } from "./bounded.ts";
import { startServer } from "./server.ts";

// Found by `deno task chaos`: a process that gets no time for idleTimeout closed all of its clients at once.
test("a process that was held up hears its clients before it finds them silent", async () => {
  await using t = startServer({ idleTimeout: 200 });
  const clients = await Promise.all(Array.from({ length: 20 }, () => t.admitted()));
  for (const client of clients) {
    await client.write("before\n");
    assertEquals(await client.readLine(), "BEFORE");
  }
  for (const client of clients) await client.write("meanwhile\n");
  for (const end = performance.now() + 500; performance.now() < end;);
  for (const client of clients) assertEquals(await client.readLine(), "MEANWHILE");
  await t.closed(clients.length);
  assertEquals(t.stats.closed.idle, clients.length);
});
