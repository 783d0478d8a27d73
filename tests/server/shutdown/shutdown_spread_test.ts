import { assertEquals } from "@std/assert";
import type { Conn } from "@x/shouty";
import { testOnce } from "../../kit/bounded.ts";
import { inMemory, startConversations, startServer } from "../../kit/server.ts";

for (const drain of ["finish", "linger"] as const) {
  testOnce(`shutdown({ spread }) ends the connections one after another with ${drain}`, async () => {
    const { listener, clock } = inMemory();
    await using t = startServer({ listener, clock, idleTimeout: Infinity });
    const clients = await Promise.all(Array.from({ length: 50 }, () => t.admitted()));
    const perSecond = Array<number>(10).fill(0);
    let now = 0;
    for (const { finishing, signal } of t.server.connections) {
      const asked = drain === "finish" ? finishing : signal;
      asked.addEventListener("abort", () => perSecond[Math.ceil(now / 1000) - 1]++);
    }
    t.server.shutdown({ drain, drainTimeout: 10_000, spread: 4000 });
    while (now < 10_000) {
      now += 100;
      await clock.advance(100);
    }
    const spread = drain === "finish" ? perSecond.slice(0, 4) : perSecond.slice(6);
    assertEquals(spread.reduce((sum, count) => sum + count), 50, `Ends per second: ${perSecond}`);
    assertEquals(spread.every((count) => count >= 10 && count <= 15), true, `Ends per second: ${perSecond}`);
    for (const client of clients) client.close();
  });
}

testOnce(
  "a connection that ends by itself while the ends are spread is not asked to finish, nor ended again",
  async () => {
    const { listener, clock } = inMemory();
    const conns: Conn[] = [];
    await using t = startConversations({ listener, clock, idleTimeout: Infinity }, async (conn) => {
      conns.push(conn);
      for await (const line of conn.lines) await conn.write(line);
    });
    const clients = await Promise.all(Array.from({ length: 10 }, () => t.admitted()));
    const stopped = t.server.shutdown({ drain: "finish", spread: 5000 });
    const leaves = (_: unknown, i: number) => i % 2 === 0;
    for (const client of clients.filter(leaves)) client.close();
    await t.closed(5);
    await clock.advance(5000);
    for (const client of clients.filter((client, i) => !leaves(client, i))) {
      assertEquals(await client.readAll(), "");
      client.close();
    }
    assertEquals((await stopped).closed, { end: 5, drained: 5 });
    assertEquals(conns.map(({ finishing }) => finishing.aborted), conns.map((conn, i) => !leaves(conn, i)));
  },
);

testOnce("a drain whose connections all end while their ends are spread leaves no timer", async () => {
  for (const [drain, begun] of [["finish", 1000], ["linger", 7000]] as const) {
    const { listener, clock } = inMemory();
    await using t = startServer({ listener, clock, idleTimeout: Infinity });
    const clients = await Promise.all(Array.from({ length: 8 }, () => t.admitted()));
    const stopped = t.server.shutdown({ drain, drainTimeout: 10_000, spread: 4000 });
    await clock.advance(begun);
    assertEquals(t.stats.active < 8, true);
    for (const client of clients) client.close();
    const { durationMs } = await stopped;
    assertEquals([durationMs, clock.pending], [begun, 0], drain);
  }
});

testOnce("with a spread longer than the drain, all connections are asked to finish before the deadline", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, idleTimeout: Infinity });
  const clients = await Promise.all(Array.from({ length: 20 }, () => t.admitted()));
  let asked = 0;
  for (const { finishing } of t.server.connections) finishing.addEventListener("abort", () => asked++);
  t.server.shutdown({ drain: "finish", drainTimeout: 4000, spread: 60_000 });
  assertEquals(asked, 0);
  await clock.advance(2000);
  assertEquals(asked, 10);
  await clock.advance(1990);
  assertEquals(asked, 20);
  for (const client of clients) client.close();
});

testOnce(
  "A spread as long as the drain sets no timer with a negative time, at which Deno would print a warning",
  async () => {
    for (let start = 0.1; start < 100; start += 0.7) {
      const { listener, clock } = inMemory();
      const delays: number[] = [];
      const recorder = {
        now: () => start + clock.now(),
        setTimer(callback: () => void, delay: number) {
          delays.push(delay);
          return clock.setTimer(callback, delay);
        },
      };
      await using t = startServer({ listener, clock: recorder, idleTimeout: Infinity });
      t.server.shutdown({ drain: "linger", drainTimeout: 500.3, spread: 500.3 });
      assertEquals(delays.filter((delay) => !(delay >= 0)), [], `The drain began at ${start}`);
    }
  },
);

testOnce("a further shutdown() without a spread leaves that of the first", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, idleTimeout: Infinity });
  const clients = await Promise.all(Array.from({ length: 20 }, () => t.admitted()));
  let asked = 0;
  for (const { finishing } of t.server.connections) finishing.addEventListener("abort", () => asked++);
  t.server.shutdown({ drain: "finish", delay: 5000, spread: 4000 });
  // As a signal does that comes in lame duck.
  t.server.shutdown();
  assertEquals([t.server.state, asked], ["draining", 0]);
  await clock.advance(2000);
  assertEquals(asked, 10);
  await clock.advance(2000);
  assertEquals(asked, 20);
  for (const client of clients) client.close();
});

testOnce("a further shutdown() with a shorter spread asks the connections to finish earlier", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, idleTimeout: Infinity, drainTimeout: 60_000 });
  const clients = await Promise.all(Array.from({ length: 20 }, () => t.admitted()));
  let asked = 0;
  for (const { finishing } of t.server.connections) finishing.addEventListener("abort", () => asked++);
  t.server.shutdown({ drain: "finish", spread: 40_000 });
  t.server.shutdown({ spread: 50_000 });
  await clock.advance(20_000);
  assertEquals(asked, 10, "A longer spread changes nothing");
  t.server.shutdown({ spread: 4000 });
  await clock.advance(2000);
  assertEquals(asked, 15);
  t.server.shutdown({ spread: 0 });
  assertEquals(asked, 20);
  for (const client of clients) client.close();
});
