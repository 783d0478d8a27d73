import { assertEquals, assertGreaterOrEqual, assertInstanceOf, assertLessOrEqual } from "@std/assert";
import { Pace } from "../../internal/io/pace.ts";
import { Rate } from "../../internal/time/rate.ts";
import { FakeClock } from "@x/shouty/testing";
import { testOnce } from "../kit/bounded.ts";
import { inMemory, startServer } from "../kit/server.ts";
import { countReplies, numbered } from "../kit/replies.ts";

testOnce("A rate allows one second's worth at once, then even spacing, and never saves up more", () => {
  const rate = new Rate(10);
  assertEquals(rate.available(0), 10);
  rate.take(0, 10);
  assertEquals([rate.available(0), rate.wait(0)], [0, 100]);
  assertEquals([rate.available(100), rate.available(550)], [1, 5]);
  assertEquals(rate.available(1e9), 10);
  assertEquals([new Rate(0.5).available(0), new Rate(Infinity).available(0)], [1, Infinity]);
});

Deno.test("the smallest rate there is lets one event pass, and no other", () => {
  const rate = new Rate(Number.MIN_VALUE);
  assertEquals([rate.wait(5), rate.available(5)], [0, 1]);
  rate.take(5, 1);
  for (const now of [5, 1e15]) assertEquals([rate.wait(now) > 1e300, rate.available(now)], [true, 0]);
});

testOnce("maxLinesPerSecond answers a second's worth at once and the rest in time, and no clock expires", async () => {
  const { listener, clock } = inMemory();
  const timeouts = { idleTimeout: 50, lineTimeout: 50, firstLineTimeout: 50 };
  await using t = startServer({ listener, clock, ...timeouts, maxLinesPerSecond: 10 });
  const client = await t.admitted();
  const replies = countReplies(client);
  await client.write(numbered(30));
  await clock.advance(0);
  assertEquals(replies.count, 10);
  // Each wait may be longer by a quarter, at random; this does not add up.
  await clock.advance(1025);
  assertEquals(replies.count, 20);
  await clock.advance(500);
  assertEquals(replies.count, 25);
  await clock.advance(500);
  assertEquals([replies.count, t.stats.active], [30, 1]);
  // The last group was due between two milliseconds, and timers are rounded up.
  await clock.advance(51);
  assertEquals((await t.closed()).reason, "idle");
});

testOnce("A stopped Pace holds back neither a line that waits nor later ones", async () => {
  const clock = new FakeClock();
  const pace = new Pace({ maxLinesPerSecond: 1, maxBytesPerSecond: Infinity }, clock);
  await pace.line((most) => Math.min(most, 3));
  const waiting = pace.line((most) => Math.min(most, 2));
  await clock.advance(0);
  assertEquals(clock.pending, 1);
  pace.stop();
  assertEquals([await waiting, pace.line(() => 1), clock.pending], [undefined, undefined, 0]);
});

testOnce("A stopped Pace holds back no read", async () => {
  const pace = new Pace({ maxLinesPerSecond: Infinity, maxBytesPerSecond: 1 }, new FakeClock());
  pace.took(100);
  pace.stop();
  await pace.read();
});

testOnce(
  "A group of lines waits until all of it may pass, and if its lines are gone by then, the rate still holds",
  async () => {
    const clock = new FakeClock();
    const pace = new Pace({ maxLinesPerSecond: 100, maxBytesPerSecond: Infinity }, clock);
    let atHand = 100;
    const left = (most: number) => Math.min(most, atHand);
    for (let i = 0; i < 100; i++) await pace.line(left);
    let passed = false;
    const group = pace.line(left)!.then(() => passed = true);
    await clock.advance(99);
    assertEquals(passed, false);
    atHand = 0;
    await clock.advance(26);
    assertEquals(await group, true);
    assertInstanceOf(pace.line(left), Promise);
    pace.stop();
  },
);

Deno.test("While a rate holds a connection back, only its timer keeps the process alive", () => {
  const keptAlive: boolean[] = [];
  const setTimer = (_: () => void, __: number, keepAlive: boolean) => (keptAlive.push(keepAlive), () => {});
  const pace = new Pace({ maxLinesPerSecond: 1, maxBytesPerSecond: 1 }, { now: () => 0, setTimer });
  pace.took(2);
  pace.read();
  assertEquals(keptAlive, [true]);
});

testOnce(
  "Lines that a rate holds back pass in groups of a tenth of a second's worth, or one by one at a low rate",
  async () => {
    const { listener, clock } = inMemory();
    await using t = startServer({ listener, clock, maxLinesPerSecond: 200 });
    const client = await t.admitted();
    const replies = countReplies(client);
    await client.write(numbered(400));
    await clock.advance(0);
    assertEquals(replies.count, 200);
    let groups = 0;
    for (let ms = 0; ms < 1025; ms++) {
      const before = replies.count;
      await clock.advance(1);
      if (replies.count > before) groups++;
    }
    assertEquals(replies.count, 400);
    assertLessOrEqual(groups, 10);
    await client.write("alone\n");
    await clock.advance(7);
    assertEquals(replies.count, 401);
  },
);

testOnce("maxBytesPerSecond reads a second's worth at once and the rest in time", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, idleTimeout: 50, maxBytesPerSecond: 100 });
  const client = await t.admitted();
  const replies = countReplies(client);
  await client.write("123456789\n".repeat(30));
  await clock.advance(0);
  assertEquals(t.stats.bytesIn, 100);
  // Each wait may be longer by a quarter, at random; this does not add up.
  for (let ms = 10; t.stats.bytesIn < 300; ms += 10) {
    await clock.advance(10);
    assertLessOrEqual(t.stats.bytesIn, 100 + ms / 10);
    assertGreaterOrEqual(t.stats.bytesIn, 100 + ms / 10 - 13);
  }
  assertEquals([replies.count, t.stats.bytesIn, t.stats.active], [30, 300, 1]);
});

testOnce("Bytes that a rate holds back are read in groups of a tenth of a second's worth", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, maxBytesPerSecond: 1000 });
  const client = await t.admitted();
  const replies = countReplies(client);
  await client.write("123456789\n".repeat(200));
  await clock.advance(0);
  let groups = 0;
  // The last bytes wait for a whole group, too.
  for (let ms = 0; ms < 1150; ms++) {
    const before = t.stats.bytesIn;
    await clock.advance(1);
    if (t.stats.bytesIn > before) groups++;
  }
  assertEquals([replies.count, t.stats.bytesIn], [200, 2000]);
  assertLessOrEqual(groups, 11);
});

testOnce(
  "A drain answers everything that a client has sent before it, however little of it a rate allows at once",
  async () => {
    for (const rate of [1000, 10_000]) {
      const { listener, clock } = inMemory({ bufferBytes: 1 << 20 });
      await using t = startServer({ listener, clock, maxBytesPerSecond: rate, idleTimeout: Infinity });
      const client = await t.admitted();
      const replies = client.readAll();
      const sent = "123456789\n".repeat(2 * rate);
      await client.write(sent);
      await clock.advance(100);
      const stopped = t.server.shutdown({ drain: "finish", drainTimeout: 60_000 });
      for (let second = 0; second < 25; second++) await clock.advance(1000);
      assertEquals(await replies, sent);
      client.close();
      assertEquals((await stopped).closed, { drained: 1 });
    }
  },
);

testOnce("A rate below one per second is kept on average, however late each wait ends", async () => {
  for (const pace of [{ maxLinesPerSecond: 0.5 }, { maxBytesPerSecond: 0.5 }]) {
    const { listener, clock } = inMemory();
    await using t = startServer({ listener, clock, ...pace });
    const client = await t.admitted();
    const replies = countReplies(client);
    await client.write("\n".repeat(60));
    await clock.advance(0);
    await clock.advance(50 * 2000 + 500);
    assertEquals(replies.count, 51);
  }
});

testOnce("Connections that began together are not all read at the same moment, again and again", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, maxLinesPerSecond: 1 });
  const clients = await Promise.all(Array.from({ length: 20 }, () => t.admitted()));
  for (const client of clients) await client.write("one\ntwo\n");
  await clock.advance(999);
  const moments = [];
  for (let ms = 0; ms <= 251; ms++) {
    const before = t.stats.bytesOut;
    await clock.advance(1);
    if (t.stats.bytesOut > before) moments.push(ms);
  }
  assertEquals(t.stats.bytesOut, 20 * "one\ntwo\n".length);
  assertGreaterOrEqual(moments.length, 5);
});

testOnce("A connection that waits for its rate ends at the shutdown's deadline", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, maxLinesPerSecond: 1 });
  const client = await t.admitted();
  await client.write(numbered(100));
  const report = t.server.shutdown({ drainTimeout: 300 });
  await clock.advance(300);
  assertEquals((await report).closed, { "drain-timeout": 1 });
});

testOnce("Lines that a rate holds back reach no handler after their connection is aborted", async () => {
  const { listener, clock } = inMemory();
  const asked: string[] = [];
  await using t = startServer({ listener, clock, maxLinesPerSecond: 1 }, (line) => void asked.push(line));
  const client = await t.admitted();
  await client.write("one\ntwo\n");
  const report = t.server.shutdown({ drainTimeout: 300 });
  await clock.advance(300);
  assertEquals([(await report).closed, asked], [{ "drain-timeout": 1 }, ["one"]]);
});

testOnce("A connection holds back about one second's worth of input for its rate", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 1 << 20 });
  await using t = startServer({ listener, clock, maxLinesPerSecond: 10 });
  const client = await t.admitted();
  // The long line makes the buffer grow.
  await client.write("x".repeat(20_000) + "\n".repeat(40_000));
  await clock.advance(0);
  assertEquals((await client.readLine())?.length, 20_000);
  assertLessOrEqual(t.stats.lines, 640);
});
