import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { test, testOnce } from "../../kit/bounded.ts";
import { faulty } from "../../kit/faults.ts";
import { inMemory, TestServer, WAYS_IN } from "../../kit/server.ts";

/** Counts the timers that are set, until it is disposed. */
function countTimers(): Disposable & { count: number } {
  const { setTimeout } = globalThis;
  const counter = { count: 0, [Symbol.dispose]: () => void (globalThis.setTimeout = setTimeout) };
  globalThis.setTimeout = ((...args: Parameters<typeof setTimeout>) => {
    counter.count++;
    return setTimeout(...args);
  }) as typeof setTimeout;
  return counter;
}

for (const [kind, start] of Object.entries(WAYS_IN)) {
  test(`drain: "finish" answers everything that clients have sent, through ${kind}`, async () => {
    await using t = new TestServer(start, {});
    const clients = await Promise.all(Array.from({ length: 20 }, () => t.admitted()));
    const part = "a line that waits in the kernel\n".repeat(30);
    await Promise.all(clients.map(async (client) => {
      for (let i = 0; i < 10; i++) await client.write(part);
    }));
    const stopped = t.server.shutdown({ drain: "finish" });
    const answers = await Promise.all(clients.map((client) => client.readAll()));
    for (const client of clients) client.close();
    assertEquals(new Set(answers), new Set([part.toUpperCase().repeat(10)]));
    assertEquals((await stopped).closed, { drained: 20 });
  });

  testOnce(`drain: "finish" ends although a client never stops sending, through ${kind}`, async () => {
    const { listener, clock } = inMemory();
    await using t = new TestServer(start, { listener, clock });
    const client = await t.admitted();
    const line = "x".repeat(999) + "\n";
    using timers = countTimers();
    const stopped = t.server.shutdown({ drain: "finish" });
    let replies = 0;
    for (;;) {
      await client.write(line).catch(() => {});
      if (await client.readLine() === null) break;
      replies++;
    }
    client.close();
    await stopped;
    const { reason, lines } = await t.closed();
    assertEquals([reason, lines], ["drained", replies]);
    assertLess(replies, 200);
    assertLess(timers.count, 20);
  });

  testOnce(`drain: "finish" ends although a peer begins a line whenever it ends one, through ${kind}`, async () => {
    await using t = new TestServer(start, inMemory());
    const client = await t.admitted();
    await client.write("a");
    const stopped = t.server.shutdown({ drain: "finish" });
    for (let i = 0; i < 200 && t.stats.active > 0; i++) {
      await client.write("\na").catch(() => {});
      if (await client.readLine() === null) break;
    }
    client.close();
    assertEquals((await stopped).closed, { drained: 1 });
  });

  testOnce(`drain: "finish" answers input that a transport hands out in small parts, through ${kind}`, async () => {
    const memory = new MemoryListener();
    const listener = faulty(memory, { readBytes: () => 1000 });
    await using t = new TestServer(start, { listener, clock: new FakeClock() });
    const client = memory.connect();
    await t.until("accepted");
    const lines = "aligned\n".repeat(4000);
    await client.write(lines);
    const stopped = t.server.shutdown({ drain: "finish" });
    assertEquals(await client.readAll(), lines.toUpperCase());
    client.close();
    assertEquals((await stopped).closed, { drained: 1 });
  });

  testOnce(`drain: "finish" answers lines that a rate holds back, through ${kind}`, async () => {
    for (const pace of [{ maxLinesPerSecond: 10 }, { maxBytesPerSecond: 80 }]) {
      const { listener, clock } = inMemory();
      await using t = new TestServer(start, { listener, clock, ...pace });
      const client = await t.admitted();
      const lines = "aligned\n".repeat(35);
      await client.write(lines);
      const stopped = t.server.shutdown({ drain: "finish" });
      const answer = client.readAll();
      for (let i = 0; i < 50; i++) await clock.advance(100);
      assertEquals(await answer, lines.toUpperCase());
      client.close();
      assertEquals((await stopped).closed, { drained: 1 });
    }
  });

  testOnce(`drain: "finish" answers every line that it has read, through ${kind}`, async () => {
    await using t = new TestServer(start, { ...inMemory() });
    const client = await t.admitted();
    const stopped = t.server.shutdown({ drain: "finish" });
    const sending = client.write(`${"x".repeat(63)}\n`.repeat(60_000)).catch(() => {});
    const answer = await client.readAll().catch(() => "reset");
    client.close();
    await Promise.all([sending, stopped]);
    const { reason, lines, bytesIn } = await t.closed();
    assertEquals([reason, lines, bytesIn], ["drained", answer.length / 64, answer.length]);
    assertGreater(bytesIn, 1 << 20);
    assertLess(bytesIn, (1 << 20) + 2 * 65_536);
  });
}
