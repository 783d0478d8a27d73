import { assertEquals } from "@std/assert";
import type { Clock } from "@x/shouty";
import { test } from "../kit/bounded.ts";
import { startServer } from "../kit/server.ts";

// Found by `deno task chaos`: a process that gets no time for idleTimeout closed all of its clients at once.
test("a process that was held up reads from its clients before it takes them for silent", async () => {
  let now = 0;
  let ring = () => {};
  const clock: Clock = { now: () => now, setTimer: (callback) => (ring = callback, () => {}) };
  await using t = startServer({ clock, idleTimeout: 200 });
  const clients = await Promise.all(Array.from({ length: 20 }, () => t.admitted()));
  for (const client of clients) {
    await client.write("before\n");
    assertEquals(await client.readLine(), "BEFORE");
  }
  await Promise.all(clients.map((client) => client.write("meanwhile\n")));
  // As after ten seconds in which the process did not run: its timer expires before the sockets have been read.
  now = 10_000;
  ring();
  for (const client of clients) assertEquals(await client.readLine(), "MEANWHILE");
  now += 200;
  ring();
  await t.closed(clients.length);
  assertEquals(t.stats.closed.idle, clients.length);
});
