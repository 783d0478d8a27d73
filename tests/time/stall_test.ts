import { assertEquals } from "@std/assert";
import type { Clock } from "@x/shouty";
import { socketsTurn } from "../../internal/time/event_loop.ts";
import { test } from "../kit/bounded.ts";
import { proxyProtocol } from "@x/shouty/ops";
import { listenLoopback, startServer } from "../kit/server.ts";

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

/** What limits the time of a PROXY header. */
const LIMITS = {
  "takes its connection for late": { headerTimeout: 200 },
  "makes room for others": { headerTimeout: 60_000, maxPending: 20 },
};

for (const [what, limits] of Object.entries(LIMITS)) {
  test(`A process that was held up reads a PROXY header that has come before it ${what}`, async () => {
    let now = 0;
    const rings: (() => void)[] = [];
    const clock: Clock = { now: () => now, setTimer: (callback) => (rings.push(callback), () => {}) };
    const listener = proxyProtocol(listenLoopback(), { from: ["127.0.0.1"], clock, ...limits });
    await using t = startServer({ listener });
    const clients = await Promise.all(Array.from({ length: 20 }, () => t.connect()));
    while (t.stats.queued < clients.length) await new Promise((resolve) => setTimeout(resolve, 0));
    await socketsTurn();
    await Promise.all(clients.map((client) => client.write("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nhello\n")));
    // As after ten seconds in which the process did not run: its timers expire before the sockets have been read.
    now = 10_000;
    for (const ring of rings.splice(0)) ring();
    assertEquals(await Promise.all(clients.map((client) => client.readLine())), clients.map(() => "HELLO"));
  });
}
