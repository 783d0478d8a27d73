import { assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import { socketsTurn } from "../../internal/time/event_loop.ts";
import { test, testOnce } from "../kit/bounded.ts";
import { inMemory, type Start, startServer, TestServer, WAYS_IN } from "../kit/server.ts";
import { serve, serveConnections } from "@x/shouty";

test("Connections with the largest unfinished lines are closed above maxBufferedBytes, and no others", async () => {
  await using t = startServer({ maxBufferedBytes: 1024 * 1024 });
  const neighbour = await t.admitted();
  const greedy = await Promise.all(Array.from({ length: 40 }, () => t.admitted()));
  for (const client of greedy) await client.write("x".repeat(60_000));
  await t.closed(24);
  await neighbour.write("still here\n");
  assertEquals(await neighbour.readLine(), "STILL HERE");
  const { closed, active } = t.stats;
  assertEquals(active + closed.memory, 41);
  assertLessOrEqual(active, 1 + 1024 * 1024 / 60_000);
});

test("A client that sends whole lines keeps its connection while memory is short, wherever reads end", async () => {
  await using t = startServer({ maxBufferedBytes: 512 * 1024 });
  const clients = await Promise.all(Array.from({ length: 40 }, () => t.admitted()));
  const input = `${"y".repeat(99)}\n`.repeat(3000);
  await Promise.all(clients.map(async (client) => {
    const sending = client.write(input);
    for (let got = 0; got < input.length; got += (await client.read())!.length);
    await sending;
  }));
  assertEquals(t.all("closed"), []);
});

testOnce("Lines that are being answered leave their memory to unfinished lines", async () => {
  const { listener } = inMemory({ bufferBytes: 1 << 20 });
  const hog = "x".repeat(20_000);
  const handler = (line: string) => line === hog ? new Promise<string>(() => {}) : line.toUpperCase();
  await using t = startServer({ listener, maxBufferedBytes: 1 << 20 }, handler);
  for (let i = 0; i < 60; i++) {
    await (await t.admitted()).write(`${hog}\n`);
    // Until the server has read the whole line, that line counts as unfinished itself.
    while (t.stats.lines <= i && t.stats.active > i) await socketsTurn();
  }
  const client = await t.admitted();
  const half = "y".repeat(700);
  await client.write(half);
  await client.write(`${half}\n`);
  assertEquals(await client.readLine(), (half + half).toUpperCase());
  assertEquals(t.all("closed"), []);
});

/** Handlers that work on the line "slow" until they are told to stop. */
const SLOW: Readonly<Record<string, (stop: Promise<string>) => Start>> = {
  "a line handler": (stop) => (options) => serve(options, (line) => line === "slow" ? stop : line.toUpperCase()),
  "a conversation": (stop) => (options) =>
    serveConnections(options, async (conn) => {
      for await (const line of conn.lines) await (line === "slow" ? stop : conn.write(`${line.toUpperCase()}\n`));
    }),
};

for (const [kind, start] of Object.entries(SLOW)) {
  testOnce(`Input for which no handler asks leaves memory to unfinished lines (${kind})`, async () => {
    const { listener, clock } = inMemory({ bufferBytes: 1 << 20 });
    const stop = Promise.withResolvers<string>();
    await using t = new TestServer(start(stop.promise), { listener, clock, maxBufferedBytes: 1 << 20 });
    for (let i = 0; i < 60; i++) await (await t.admitted()).write("slow\n" + "x".repeat(60_000));
    await clock.advance(300);
    const client = await t.admitted();
    const half = "y".repeat(700);
    await client.write(half);
    await clock.advance(0);
    await client.write(`${half}\n`);
    assertEquals(await client.readLine(), (half + half).toUpperCase());
    assertEquals(t.all("closed"), []);
    stop.resolve("");
  });

  testOnce(`The largest input for which no handler asks gives way to unfinished lines (${kind})`, async () => {
    const { listener, clock } = inMemory({ bufferBytes: 1 << 20 });
    const stop = Promise.withResolvers<string>();
    await using t = new TestServer(start(stop.promise), { listener, clock, maxBufferedBytes: 1 << 20 });
    for (let i = 0; i < 20; i++) {
      const hog = await t.admitted();
      await hog.write("x".repeat(60_000));
      await clock.advance(0);
      // What ends this line begins another one, for which the buffer stays.
      await hog.write("\nslow\nx");
      await clock.advance(300);
    }
    const client = await t.admitted();
    await client.write("y".repeat(700));
    await clock.advance(0);
    await client.write("y\n");
    assertEquals(await client.readLine(), "Y".repeat(701));
    const ends = t.all("closed");
    assertEquals(ends.map(({ reason, conn }) => [reason, conn.id < 21]), ends.map(() => ["memory", true]));
    assertGreater(ends.length, 0);
    stop.resolve("");
  });
}

test("A connection that is closed for its memory gets an error line", async () => {
  await using t = startServer({ maxBufferedBytes: 1000 });
  using client = await t.connect();
  await client.write("x".repeat(4000));
  assertEquals(await client.readLine(), "error: too much unfinished input");
  assertEquals((await t.closed()).reason, "memory");
});

testOnce(
  "Output that piles up behind a short write makes others wait for 250 ms, and not for writeTimeout",
  async () => {
    const { listener, clock } = inMemory({ bufferBytes: 64 });
    const timeouts = { writeTimeout: Infinity, idleTimeout: Infinity };
    await using t = startServer({ listener, clock, ...timeouts, maxBufferedBytes: 256 * 1024 }, (line) => line);
    await Promise.all([t.admitted(), t.admitted()]);
    t.server.broadcast("a short write".repeat(10));
    await clock.advance(0);
    for (let i = 0; i < 100; i++) t.server.broadcast("n".repeat(1500) + "\n");
    const quick = await t.admitted();
    await quick.write("hi\n");
    await clock.advance(200);
    assertEquals(t.all("closed"), []);
    await clock.advance(100);
    assertEquals(t.all("closed").map(({ reason }) => reason), ["memory"]);
    assertEquals(await quick.readLine(), "hi");
  },
);

for (const bufferBytes of [2048, 65_536]) {
  testOnce(`A peer that takes ${bufferBytes} bytes of much output at a time makes others wait for 250 ms`, async () => {
    const { listener, clock } = inMemory({ bufferBytes });
    const options = { listener, clock, idleTimeout: Infinity, maxBufferedBytes: 256 * 1024 };
    await using t = startServer(options, (line) => line);
    const slow = await t.admitted();
    t.server.broadcast("n".repeat(900_000));
    await clock.advance(0);
    const quick = await t.admitted();
    await quick.write("hi\n");
    for (let i = 0; i < 2; i++) {
      await slow.read();
      await clock.advance(150);
    }
    assertEquals(t.all("closed").map(({ reason }) => reason), ["memory"]);
    assertEquals(await quick.readLine(), "hi");
  });
}

for (const [kind, start] of Object.entries(WAYS_IN)) {
  testOnce(
    `While the replies of others take the memory, a line waits for its turn, and an end does not (${kind})`,
    async () => {
      const { listener, clock } = inMemory({ bufferBytes: 64 });
      const timeouts = { writeTimeout: Infinity, idleTimeout: 2000, firstLineTimeout: 2000 };
      await using t = new TestServer(start, { listener, clock, ...timeouts, maxBufferedBytes: 64 * 1024 });
      const slow = await t.admitted();
      const [conn] = t.server.connections;
      const waitingTo = (n: number) => [...t.server.connections].find(({ id }) => id === n)?.stats().waitsFor;
      conn.write("n".repeat(100_000) + "\n");
      const quick = await t.admitted();
      const leaving = await t.admitted();
      await clock.advance(10);
      await quick.write("hi\n");
      await leaving.closeWrite();
      await clock.advance(200);
      assertEquals(t.all("closed").map(({ conn, reason }) => [conn.id, reason]), [[3, "end"]]);
      assertEquals([waitingTo(1), waitingTo(2)], ["write", "turn"]);
      assertEquals((await slow.readLine())?.length, 100_000);
      assertEquals(await quick.readLine(), "HI");
    },
  );
}

testOnce(
  "A line that waits while the replies of others take the memory is not handled once its connection is closed",
  async () => {
    const handled: string[] = [];
    const note = (lines: string) => (handled.push(lines), lines);
    for (const handler of [(line: string) => note(line), Object.assign(note, { block: note })]) {
      const { listener, clock } = inMemory({ bufferBytes: 64 });
      const options = { listener, clock, writeTimeout: Infinity, idleTimeout: Infinity, maxBufferedBytes: 64 * 1024 };
      await using t = startServer(options, handler);
      const slow = await t.admitted();
      t.server.broadcast("n".repeat(100_000) + "\n");
      const quick = await t.admitted();
      await clock.advance(10);
      await quick.write("hi\n");
      await clock.advance(100);
      for (const conn of t.server.connections) if (conn.id === 2) conn.close();
      assertEquals(await quick.readAll(), "");
      assertEquals((await slow.readLine())?.length, 100_000);
      await clock.advance(0);
      assertEquals([(await t.closed()).conn.id, handled], [2, []]);
    }
  },
);
