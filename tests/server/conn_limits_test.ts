import { assertEquals, assertGreaterOrEqual, assertLessOrEqual } from "@std/assert";
import type { Conn } from "@x/shouty";
import { test, testOnce } from "../kit/bounded.ts";
import { tapped } from "../kit/faults.ts";
import { inMemory, startConversations, startServer } from "../kit/server.ts";
import { countReplies, numbered } from "../kit/replies.ts";

testOnce("A client that sends nothing is closed at firstLineTimeout, and after a line at idleTimeout", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, firstLineTimeout: 5000 });
  const mute = await t.admitted();
  const speaker = await t.admitted();
  await speaker.write("hello\n");
  await clock.advance(4999);
  assertEquals(t.stats.active, 2);
  await clock.advance(1);
  assertEquals((await t.closed()).reason, "first-line-timeout");
  await clock.advance(5000);
  assertEquals((await t.closed(2)).reason, "idle");
  mute.close();
});

testOnce("A client that sends nothing has idleTimeout for its first line, unless firstLineTimeout is set", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, idleTimeout: 7000 });
  await t.admitted();
  await clock.advance(6999);
  assertEquals(t.stats.active, 1);
  await clock.advance(1);
  assertEquals((await t.closed()).reason, "idle");
});

testOnce("Writes of the server do not restart firstLineTimeout, and the first byte ends it", async () => {
  const { listener, clock } = inMemory();
  await using t = startConversations({ listener, clock, firstLineTimeout: 1000 }, async (conn) => {
    const greet = () => clock.setTimer(() => conn.write("hello?\n").then(greet, () => {}), 300);
    greet();
    for await (const line of conn.lines) await conn.write(line);
  });
  await t.admitted();
  const talker = await t.admitted();
  await clock.advance(999);
  await talker.write("x");
  await clock.advance(1);
  assertEquals((await t.closed()).reason, "first-line-timeout");
  await clock.advance(9000);
  assertEquals(t.stats.active, 1);
});

testOnce("firstLineTimeout does not run while a conversation handler asks for no line", async () => {
  const { listener, clock } = inMemory();
  const { promise, resolve } = Promise.withResolvers<void>();
  await using t = startConversations({ listener, clock }, () => promise);
  await t.admitted();
  await clock.advance(60_000);
  assertEquals(t.stats.active, 1);
  resolve();
});

testOnce("A connection ends after the nearest whole number of lines", async () => {
  for (let i = 0; i < 20; i++) {
    await using t = startServer({ ...inMemory(), maxLines: 1 });
    const client = await t.admitted();
    await client.write("one\n");
    assertEquals(await client.readAll(), "ONE\n");
    client.close();
    assertEquals((await t.closed()).reason, "max-lines");
  }
});

for (
  const [what, start] of [
    ["a line handler", (limit: (conn: Conn) => void) => startServer(inMemory(), (line, conn) => (limit(conn), line))],
    ["a conversation", (limit: (conn: Conn) => void) =>
      startConversations(inMemory(), async (conn) => {
        limit(conn);
        for await (const line of conn.lines) conn.write(`${line}\n`);
      })],
  ] as const
) {
  testOnce(`maxLines that is set below the number of lines that have come ends ${what} that waits`, async () => {
    let waiting: Conn | undefined;
    await using t = start((conn) => waiting = conn);
    const client = await t.connect();
    await client.write("one\ntwo\nthree\n");
    for (const line of ["one", "two", "three"]) assertEquals(await client.readLine(), line);
    waiting!.setLimits({ maxLines: 1 });
    assertEquals(await client.readAll(), "");
    client.close();
    assertEquals((await t.closed()).reason, "max-lines");
  });
}

test("A connection ends after maxLines within 10 %, with everything answered that came", async () => {
  await using t = startServer({ maxLines: 100 });
  const client = await t.admitted();
  await client.write(numbered(130));
  assertEquals(await client.readAll(), numbered(130).toUpperCase());
  client.close();
  assertEquals((await t.closed()).reason, "max-lines");

  const patient = await t.admitted();
  let lines = 0;
  for (; lines < 200; lines++) {
    await patient.write("one\n").catch(() => {});
    if (await patient.readLine() === null) break;
  }
  assertGreaterOrEqual(lines, 90);
  // Lines that the peer sends while the server checks for more input are still answered.
  assertLessOrEqual(lines, 120);
});

testOnce("Connections that send the same number of lines do not all end at maxLines together", async () => {
  await using t = startServer({ ...inMemory(), maxLines: 100 });
  const clients = await Promise.all(Array.from({ length: 40 }, () => t.admitted()));
  for (const client of clients) {
    await client.write(numbered(100));
    for (let i = 0; i < 100; i++) await client.readLine();
  }
  // Connections above their limit end with max-lines; all others end with drained.
  const stopped = t.server.shutdown({ drain: "finish" });
  for (const client of clients) {
    assertEquals(await client.readLine(), null);
    client.close();
  }
  assertEquals(Object.keys((await stopped).closed).toSorted(), ["drained", "max-lines"]);
});

testOnce("Input sent in one piece is answered whole when it meets maxLines, wherever reads end", async () => {
  await using t = startServer({ ...inMemory({ bufferBytes: 1 << 20 }), maxLines: 10 });
  const client = await t.admitted();
  const input = `${"y".repeat(98)}\n`.repeat(8000);
  await client.write(input);
  assertEquals((await client.readAll()).length, input.length);
  client.close();
  assertEquals((await t.closed()).reason, "max-lines");
});

testOnce("A peer that begins a line whenever it ends one cannot put off maxLines and maxAge", async () => {
  for (const [limit, reason] of [[{ maxLines: 10 }, "max-lines"], [{ maxAge: 1000 }, "max-age"]] as const) {
    const { listener, clock } = inMemory();
    await using t = startServer({ listener, clock, ...limit });
    const client = await t.admitted();
    await client.write("a");
    await clock.advance(1200);
    let lines = 0;
    for (; lines < 200; lines++) {
      await client.write("\na").catch(() => {});
      if (await client.readLine() === null) break;
    }
    client.close();
    assertEquals((await t.closed()).reason, reason);
    assertLessOrEqual(lines, 30);
  }
});

testOnce("A peer that leaves a TLS record unfinished cannot put off maxLines and maxAge", async () => {
  for (const [limit, reason] of [[{ maxLines: 3 }, "max-lines"], [{ maxAge: 1000 }, "max-age"]] as const) {
    const { listener, clock } = inMemory();
    const options = {
      listener: tapped(listener, () => ({ whole: new Promise(() => {}) })),
      clock,
      idleTimeout: Infinity,
      ...limit,
    };
    await using t = startConversations(options, async (conn) => {
      for await (const _ of reason === "max-age" ? conn.readable : conn.lines);
    });
    using client = listener.connect();
    await client.write("1\n2\n3\n");
    await clock.advance(1200);
    client.close();
    assertEquals((await t.closed()).reason, reason);
  }
});

testOnce("A peer with a rate limit that always has more cannot put off maxLines and maxAge for long", async () => {
  for (const [limit, reason] of [[{ maxLines: 20 }, "max-lines"], [{ maxAge: 2000 }, "max-age"]] as const) {
    for (const pace of [{ maxLinesPerSecond: 10 }, { maxBytesPerSecond: 200 }]) {
      const { listener, clock } = inMemory();
      await using t = startServer({ listener, clock, ...limit, ...pace });
      const client = await t.admitted();
      client.write(numbered(10_000)).catch(() => {});
      countReplies(client);
      for (let seconds = 0; seconds < 120 && t.stats.active > 0; seconds++) await clock.advance(1000);
      client.close();
      assertEquals((await t.closed()).reason, reason);
    }
  }
});
