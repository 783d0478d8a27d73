import { assertEquals, assertGreaterOrEqual, assertLessOrEqual, assertStringIncludes } from "@std/assert";
import { RequestLine, TlsRecord } from "../../internal/lines/misdirected.ts";
import { Pace } from "../../internal/time/pace.ts";
import { Rate } from "../../internal/time/rate.ts";
import { socketsTurn } from "../../internal/time/turns.ts";
import { FakeClock, type TestClient } from "@x/shouty/testing";
import { test, testOnce } from "../kit/bounded.ts";
import { inMemory, startConversations, startServer } from "../kit/server.ts";
import { countWork } from "../kit/work.ts";

const CLIENT_HELLO = new Uint8Array([22, 3, 1, 0, 5, 1, 0, 0, 1, 0]);

/** Lines, each with its number. */
function numbered(count: number): string {
  return Array.from({ length: count }, (_, i) => `line ${i}\n`).join("");
}

/** Reads lines and counts them. */
function countReplies(client: TestClient): { count: number } {
  const replies = { count: 0 };
  (async () => {
    while (await client.readLine().catch(() => null) !== null) replies.count++;
  })();
  return replies;
}

testOnce("A rate allows one second's worth at once, then even spacing, and never saves up more", () => {
  const rate = new Rate(10);
  assertEquals(rate.available(0), 10);
  rate.take(0, 10);
  assertEquals([rate.available(0), rate.wait(0)], [0, 100]);
  assertEquals([rate.available(100), rate.available(550)], [1, 5]);
  assertEquals(rate.available(1e9), 10);
  assertEquals([new Rate(0.5).available(0), new Rate(Infinity).available(0)], [1, Infinity]);
});

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

testOnce("A stopped Pace holds back neither lines that wait nor later ones", async () => {
  const clock = new FakeClock();
  const pace = new Pace({ maxLinesPerSecond: 1, maxBytesPerSecond: Infinity }, clock);
  const lines = "one\ntwo\nthree\n";
  assertEquals(await pace.pass(lines), "one\n".length);
  const waiting = pace.pass(lines);
  await clock.advance(0);
  assertEquals(clock.pending, 1);
  pace.stop();
  assertEquals([await waiting, await pace.pass(lines)], [lines.length, lines.length]);
  assertEquals(clock.pending, 0);
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
  await clock.advance(1000);
  assertEquals(t.stats.bytesIn, 200);
  await clock.advance(270);
  assertEquals([replies.count, t.stats.bytesIn, t.stats.active], [30, 300, 1]);
});

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

test("HTTP at the plain port is answered in HTTP, and TLS with an alert", async () => {
  await using t = startServer({ answerMisdirected: true });
  const answer = await t.talk("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
  assertStringIncludes(answer, "HTTP/1.1 400 Bad Request\r\n");
  assertStringIncludes(answer, "speaks lines of text");
  assertEquals((await t.closed()).reason, "misdirected");

  using client = await t.connect();
  await client.write(CLIENT_HELLO);
  assertEquals(await client.read(), new Uint8Array([21, 3, 1, 0, 2, 2, 40]));
  assertEquals(await client.read(), null);
  client.close();
  assertEquals((await t.closed(2)).reason, "misdirected");
});

test("HTTP is a line like any other after the first line, and if answerMisdirected is off", async () => {
  await using on = startServer({ answerMisdirected: true });
  const client = await on.connect();
  for (const line of ["hello", "GET / HTTP/1.1"]) {
    await client.write(`${line}\n`);
    assertEquals(await client.readLine(), line.toUpperCase());
  }
  await using off = startServer();
  assertEquals(await off.talk("get / HTTP/1.1\n"), "GET / HTTP/1.1\n");
});

testOnce("Only a whole request line of HTTP/1, or a TLS handshake's first three bytes, is misdirected", () => {
  const first = (look: RequestLine | TlsRecord, bytes: Uint8Array) =>
    Array.from(bytes, (byte) => look.take(byte)).find((answer) => answer !== undefined);
  const answered = (text: string) => first(new RequestLine(), new TextEncoder().encode(text));
  const requests = ["GET / HTTP/1.1\n", "PRI * HTTP/1.0\r\n", "PRI * HTTP/2.0\r\n", "POST /a?b HTTP/1.1\r\n"];
  assertEquals(requests.map(answered), requests.map(() => true));
  const others = [
    "GET / HTTP/2.0\n",
    "get / HTTP/1.1\n",
    "GET /a b HTTP/1.1\n",
    "GET  / HTTP/1.1\n",
    "GET / HTTP/1.12\n",
  ];
  assertEquals(others.map(answered), others.map(() => false));
  const longest = (bytes: number) => `GET /${"x".repeat(bytes - "GET / HTTP/1.1\r".length)} HTTP/1.1\r\n`;
  assertEquals([answered(longest(8192)), answered(longest(8193))], [true, false]);
  assertEquals(first(new TlsRecord(), CLIENT_HELLO), true);
  assertEquals(first(new TlsRecord(), CLIENT_HELLO.subarray(0, 2)), undefined);
  assertEquals(first(new TlsRecord(), new Uint8Array([22, 3, 9])), false);
});

testOnce("Looking for misdirected clients does linear work for a line of 64 KiB that comes byte by byte", async () => {
  const { listener } = inMemory();
  await using t = startServer({ listener, answerMisdirected: true });
  const client = await t.admitted();
  using work = countWork();
  const length = 65_536;
  for (let i = 0; i < length; i++) await client.write("x");
  await client.write("\n");
  assertEquals((await client.readLine())?.length, length);
  assertLessOrEqual(work.searched, 4 * length);
});

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

test("A connection that is closed for its memory gets an error line", async () => {
  await using t = startServer({ maxBufferedBytes: 1000 });
  using client = await t.connect();
  await client.write("x".repeat(4000));
  assertEquals(await client.readLine(), "error: too much unfinished input");
  assertEquals((await t.closed()).reason, "memory");
});
