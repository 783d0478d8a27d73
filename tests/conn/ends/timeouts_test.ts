import { assertEquals } from "@std/assert";
import { type CloseReason, serve, serveConnections, type ServeOptions, shout } from "@x/shouty";
import type { FakeClock, TestClient } from "@x/shouty/testing";
import { test } from "../../kit/bounded.ts";
import { inMemory, type Start, startConversations, startServer, TestServer, WAYS_IN } from "../../kit/server.ts";

const TIMEOUTS = { idleTimeout: 1000, firstLineTimeout: 1000, lineTimeout: 2500, writeTimeout: 700 };

/** Serves one client for a scenario, on a clock that only the test advances. */
async function play(
  start: Start,
  options: ServeOptions & { bufferBytes?: number },
  scenario: (client: TestClient, clock: FakeClock, t: TestServer) => Promise<void>,
): Promise<void> {
  const { listener, clock } = inMemory(options);
  await using t = new TestServer(start, { ...TIMEOUTS, ...options, listener, clock });
  await scenario(await t.admitted(), clock, t);
}

/** Asserts that the connection ends after exactly this time, and for this reason. */
async function assertEnds(t: TestServer, clock: FakeClock, milliseconds: number, reason: CloseReason): Promise<void> {
  await clock.advance(milliseconds - 1);
  assertEquals(t.all("closed"), []);
  await clock.advance(1);
  assertEquals(t.all("closed").map((event) => event.reason), [reason]);
}

function testLineClock(wayIn: string, start: Start): void {
  test(`lineTimeout ends a client that trickles, whatever it sends (${wayIn})`, () =>
    play(start, {}, async (client, clock, t) => {
      await clock.advance(900);
      for (let i = 0; i < 5; i++) {
        await client.write("x");
        await clock.advance(500);
        assertEquals(t.all("closed").length, i < 4 ? 0 : 1);
      }
      assertEquals([(await t.closed()).reason, clock.now()], ["line-timeout", 900 + 2500]);
    }));

  test(`a line that begins in the middle of a segment has its full lineTimeout (${wayIn})`, () =>
    play(start, { idleTimeout: Infinity }, async (client, clock, t) => {
      await client.write("a");
      await clock.advance(2000);
      await client.write("b\nc");
      assertEquals(await client.readLine(), "AB");
      await assertEnds(t, clock, 2500, "line-timeout");
    }));
}

for (const [wayIn, start] of Object.entries(WAYS_IN)) {
  test(`a client that is silent is idle, and each line restarts its idle clock (${wayIn})`, () =>
    play(start, {}, async (client, clock, t) => {
      for (let i = 0; i < 3; i++) {
        await clock.advance(999);
        await client.write("x\n");
        assertEquals(await client.readLine(), "X");
      }
      await assertEnds(t, clock, 1000, "idle");
      assertEquals(await client.readLine(), null);
    }));

  // Bytes have no lines, so `conn.readable` has no line clock.
  if (wayIn !== "a conversation in streams") testLineClock(wayIn, start);

  test(`a client that finishes each line in time may trickle for ever (${wayIn})`, () =>
    play(start, {}, async (client, clock, t) => {
      for (let i = 0; i < 40; i++) {
        await client.write(i % 4 === 3 ? "x\n" : "x");
        await clock.advance(600);
      }
      assertEquals(t.stats.active, 1);
    }));

  test(`a client that does not read is slow and not idle, until a block's time is up (${wayIn})`, () =>
    play(start, { bufferBytes: 100, writeTimeout: 1500 }, async (client, clock, t) => {
      client.write("x\n".repeat(200)).catch(() => {});
      await assertEnds(t, clock, 1500, "write-timeout");
      assertEquals(t.all("closed")[0].bytesOut, 100, "What has left of the block counts");
    }));

  test(`a client that reads slowly, but in time, gets everything (${wayIn})`, () =>
    play(start, { bufferBytes: 100, idleTimeout: 600, writeTimeout: 5000 }, async (client, clock, t) => {
      const input = "some line\n".repeat(100);
      const sent = client.write(input).then(() => client.closeWrite());
      let answer = "";
      while (answer.length < input.length) {
        await clock.advance(300);
        answer += new TextDecoder().decode((await client.read())!);
      }
      await sent;
      assertEquals([answer, (await t.closed()).reason], [input.toUpperCase(), "end"]);
    }));

  test(`a client's own lines restart its clock, and its neighbour's lines do not (${wayIn})`, () =>
    play(start, {}, async (silent, clock, t) => {
      const talker = await t.admitted();
      for (let i = 0; i < 2; i++) {
        await clock.advance(500);
        await talker.write("x\n");
        await talker.readLine();
      }
      assertEquals(t.all("closed").map(({ conn }) => conn.remoteAddr), [silent.addr]);
    }));
}

test("the idle clock does not run while a handler works, through either way in", async () => {
  let work: PromiseWithResolvers<void>;
  const slowly = (line: string) => work.promise.then(() => shout(line));
  const starts: Start[] = [
    (options) => serve(options, slowly),
    (options) =>
      serveConnections(options, async (conn) => {
        for await (const line of conn.lines) conn.write(`${await slowly(line)}\n`);
      }),
  ];
  for (const start of starts) {
    work = Promise.withResolvers();
    await play(start, {}, async (client, clock, t) => {
      await client.write("work\nand a line begun");
      await clock.advance(60_000);
      assertEquals(t.all("closed"), []);
      work.resolve();
      assertEquals(await client.readLine(), "WORK");
      await assertEnds(t, clock, 1000, "idle");
    });
  }
});

test("what a conversation writes by itself keeps the connection from being idle, while the client takes it", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 100 });
  await using t = startConversations({ ...TIMEOUTS, listener, clock, firstLineTimeout: Infinity }, async (conn) => {
    const tick = () => clock.setTimer(() => conn.write("tick\n").then(tick, () => {}), 900);
    tick();
    for await (const line of conn.lines) await conn.write(line);
  });
  await t.admitted();
  // Twenty ticks fill the buffer; the write after them waits too long.
  await assertEnds(t, clock, 21 * 900 + 700, "write-timeout");
});

test("conn.signal tells a conversation which clock expired", async () => {
  const { listener, clock } = inMemory();
  const reasons: unknown[] = [];
  await using t = startConversations({ ...TIMEOUTS, listener, clock }, async (conn) => {
    for await (const line of conn.lines) reasons.push(line);
    reasons.push(conn.signal.reason);
  });
  const [idler, trickler] = [await t.admitted(), await t.admitted()];
  await idler.write("x\n");
  for (let i = 0; i < 5; i++) {
    await trickler.write("y");
    await clock.advance(500);
  }
  assertEquals(reasons, ["x", "idle", "line-timeout"]);
});

test("max-age lets the reply to the current line be sent, and the lines that have come be answered", async () => {
  const { promise: done, resolve: finish } = Promise.withResolvers<void>();
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, maxAge: 1000 }, (line) => done.then(() => shout(line)));
  const client = await t.admitted();
  await client.write("one\ntwo\n");
  await clock.advance(5000);
  assertEquals(t.stats.active, 1);
  finish();
  assertEquals(await client.readAll(), "ONE\nTWO\n");
  client.close();
  assertEquals((await t.closed()).reason, "max-age");
});

test("max-age waits for the end of a line that has begun, but not longer than lineTimeout", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, maxAge: 1000 });
  const [finisher, staller] = [await t.admitted(), await t.admitted()];
  for (const client of [finisher, staller]) await client.write("begun");
  await clock.advance(1200);
  assertEquals(t.stats.active, 2);
  await finisher.write(" and done\n");
  assertEquals(await finisher.readAll(), "BEGUN AND DONE\n");
  finisher.close();
  assertEquals((await t.closed()).reason, "max-age");
  await clock.advance(10_000);
  assertEquals((await t.closed(2)).reason, "line-timeout");
});

test("max-age ends a line that goes on without lineTimeout ten seconds later, and waits for one that has it", async () => {
  for (const [lineTimeout, reply] of [[Infinity, ""], [60_000, `${"X".repeat(30)}\n`]] as const) {
    const { listener, clock } = inMemory();
    await using t = startServer({ listener, clock, maxAge: 1000, lineTimeout });
    const client = await t.admitted();
    for (let seconds = 0; seconds < 30 && t.stats.active > 0; seconds++) {
      await client.write("x");
      await clock.advance(1000);
    }
    if (t.stats.active > 0) await client.write("\n");
    assertEquals(await client.readAll(), reply);
    client.close();
    assertEquals((await t.closed()).reason, "max-age");
  }
});

test("a graceful close waits two seconds at most for a client that does not end", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock }, (line, conn) => (conn.close(), shout(line)));
  const client = await t.admitted();
  await client.write("bye\n");
  assertEquals(await client.readAll(), "BYE\n");
  await assertEnds(t, clock, 2000, "closed");
});

test("a graceful close reads at most a megabyte of a client that goes on sending", async () => {
  await using t = startServer(inMemory(), (line, conn) => (conn.close(), shout(line)));
  const client = await t.admitted();
  await client.write("bye\n");
  assertEquals(await client.readAll(), "BYE\n");
  let sent = 0;
  while (await client.write(new Uint8Array(10_000)).then(() => true, () => false)) sent += 10_000;
  assertEquals([sent >= 1 << 20, sent < 1.3 * (1 << 20)], [true, true], `${sent} bytes were taken`);
  assertEquals((await t.closed()).reason, "closed");
});
