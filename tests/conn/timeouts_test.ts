import { assertEquals, assertLess } from "@std/assert";
import { type CloseReason, serve, serveConnections, type ServeOptions, shout } from "@x/shouty";
import type { FakeClock, TestClient } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";
import type { Listener } from "@x/shouty";
import type { MemoryListener } from "@x/shouty/testing";
import { tapped } from "../kit/faults.ts";
import { inMemory, type Start, startConversations, startServer, TestServer, WAYS_IN } from "../kit/server.ts";

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

/** Makes a listener whose transports take the given number of bytes of each write, and then none. */
function taking(listener: MemoryListener, counts: number[], progress?: () => number): Listener {
  const write = () => {
    const count = counts.shift();
    return count === undefined ? new Promise<number>(() => {}) : Promise.resolve(count);
  };
  return tapped(listener, () => ({ write, ...(progress && { progress }) }));
}

test("a peer whose progress cannot be seen is closed three writeTimeouts after it last took bytes", async () => {
  for (const taken of [[], [30_000], [30_000, 500]]) {
    const { listener, clock } = inMemory();
    const options = { listener: taking(listener, [...taken]), clock, writeTimeout: 1000 };
    await using t = startServer(options, () => "x".repeat(60_000));
    await t.own(listener.connect()).write("more than it reads\n");
    await clock.advance(2999);
    assertEquals(t.all("closed"), [], `${taken}`);
    await clock.advance(1);
    assertEquals((await t.closed()).reason, "write-timeout");
  }
});

test("a peer whose progress can be seen stays while its side takes 1 KiB within each writeTimeout, and no longer", async () => {
  const { listener, clock } = inMemory();
  // The server asks for it four times in a writeTimeout.
  let taken = 1024 / 4;
  const options = { listener: taking(listener, [30_000], () => taken), clock, writeTimeout: 1000 };
  await using t = startServer(options, () => "x".repeat(60_000));
  await t.own(listener.connect()).write("more than it reads\n");
  await clock.advance(20_000);
  assertEquals(t.all("closed"), []);
  taken--;
  await clock.advance(999);
  assertEquals(t.all("closed"), []);
  await clock.advance(1);
  assertEquals((await t.closed()).reason, "write-timeout");
});

test("a peer that takes much at once, and then nothing, is gone a quarter of writeTimeout later than that at most", async () => {
  const { listener, clock } = inMemory();
  const taken = [1_000_000, 0, 0, 0, 0];
  const options = { listener: taking(listener, [30_000], () => taken.shift() ?? 0), clock, writeTimeout: 1000 };
  await using t = startServer(options, () => "x".repeat(60_000));
  await t.own(listener.connect()).write("more than it reads\n");
  await clock.advance(1249);
  assertEquals(t.all("closed"), []);
  await clock.advance(1);
  assertEquals((await t.closed()).reason, "write-timeout");
});

for (const writeTimeout of [60_000, Infinity]) {
  test(`the clock of the handler stands still while a write waits, with writeTimeout ${writeTimeout}`, async () => {
    const { listener, clock } = inMemory({ bufferBytes: 16 });
    const options = { writeTimeout, idleTimeout: Infinity, handlerTimeout: 2000 };
    await using t = startConversations({ listener, clock, ...options }, async (conn) => {
      conn.write("x".repeat(99) + "\n");
      await conn.flushed();
    });
    const client = await t.admitted();
    await clock.advance(3000);
    const [conn] = t.server.connections;
    assertEquals([conn.stats().waitsFor, t.all("closed")], ["write", []]);
    assertEquals((await client.readLine())!.length, 99);
  });
}

test("a peer that takes what was written, however slowly, is not idle, also without a write clock", async () => {
  for (const idleOn of ["both", "read"] as const) {
    const { listener, clock } = inMemory({ bufferBytes: 1024 });
    const options = { writeTimeout: Infinity, idleTimeout: 2000, firstLineTimeout: Infinity, idleOn };
    await using t = startConversations({ listener, clock, ...options }, async (conn) => {
      conn.write("x".repeat(10_000) + "\n");
      await conn.readLine();
    });
    const client = await t.admitted();
    const [conn] = t.server.connections;
    for (let i = 0; i < 5; i++) {
      await client.readBytes(1024);
      await clock.advance(1000);
    }
    assertEquals(conn.ending, idleOn === "read" ? "idle" : undefined);
  }
});

test("a peer that neither sends nor takes anything is idle, if no write clock ends its connection before", async () => {
  for (const writeTimeout of [60_000, Infinity]) {
    const { listener, clock } = inMemory({ bufferBytes: 16 });
    const options = { writeTimeout, idleTimeout: 2000, firstLineTimeout: Infinity };
    await using t = startConversations({ listener, clock, ...options }, async (conn) => {
      conn.write("x".repeat(99) + "\n");
      await conn.readLine();
    });
    await t.admitted();
    const [conn] = t.server.connections;
    await clock.advance(3000);
    assertEquals(conn.ending, writeTimeout === Infinity ? "idle" : undefined);
  }
});

for (const writeTimeout of [1000, Infinity]) {
  test(`a client that reads nothing of what its long lines get is read no more (writeTimeout ${writeTimeout})`, async () => {
    const { listener, clock } = inMemory({ bufferBytes: 64 * 1024 });
    const options = { writeTimeout, idleTimeout: 1000, maxLineBytes: 1, framing: { onLongLine: "discard" } } as const;
    await using t = startConversations({ listener, clock, ...options }, async (conn) => {
      await conn.readLine();
    });
    const client = await t.admitted();
    const [conn] = t.server.connections;
    const sending = client.write("xx\n".repeat(1_000_000)).catch(() => {});
    await clock.advance(500);
    const { bytesIn } = t.stats;
    assertLess(bytesIn, 256 * 1024);
    await clock.advance(3000);
    assertEquals([conn.ending, t.stats.bytesIn], [writeTimeout === Infinity ? "idle" : "write-timeout", bytesIn]);
    client.close();
    await sending;
  });
}

test("a handler that has ended its side may go on reading for longer than writeTimeout", async () => {
  const { listener, clock } = inMemory();
  await using t = startConversations({ listener, clock, idleTimeout: Infinity, writeTimeout: 1000 }, async (conn) => {
    await conn.closeWrite();
    for await (const _ of conn.lines);
  });
  const client = await t.admitted();
  assertEquals(await client.readAll(), "");
  await client.write("one\n");
  await clock.advance(100_000);
  await client.write("two\n");
  await client.closeWrite();
  const { reason, lines } = await t.closed();
  assertEquals([reason, lines], ["end", 2]);
});

test("a handler that ends its side waits no longer than writeTimeout for a transport whose peer takes nothing", async () => {
  const { listener, clock } = inMemory();
  const full = tapped(listener, () => ({ closeWrite: () => new Promise(() => {}) }));
  let waitsFor: string | undefined;
  await using t = startConversations({ ...TIMEOUTS, listener: full, clock }, async (conn) => {
    const ended = conn.closeWrite();
    await Promise.resolve();
    waitsFor = conn.stats().waitsFor;
    await ended;
  });
  t.own(await listener.connect());
  await clock.advance(3 * TIMEOUTS.writeTimeout - 1);
  assertEquals([waitsFor, t.all("closed")], ["write", []]);
  await clock.advance(1);
  assertEquals(t.all("closed").map(({ reason }) => reason), ["write-timeout"]);
});

for (const before of [1000, Infinity]) {
  test(`setLimits starts writeTimeout anew while a handler ends its side (${before})`, async () => {
    const { listener, clock } = inMemory();
    const full = tapped(listener, () => ({ closeWrite: () => new Promise(() => {}) }));
    const options = { ...TIMEOUTS, writeTimeout: before, listener: full, clock };
    await using t = startConversations(options, (conn) => conn.closeWrite());
    t.own(await listener.connect());
    await clock.advance(500);
    const [conn] = t.server.connections;
    conn.setLimits({ writeTimeout: 2000 });
    await clock.advance(5999);
    assertEquals(t.all("closed"), []);
    await clock.advance(1);
    assertEquals(t.all("closed").map(({ reason }) => reason), ["write-timeout"]);
  });
}
