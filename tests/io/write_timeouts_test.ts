import { assertEquals, assertLess } from "@std/assert";
import { test } from "../kit/bounded.ts";
import type { Listener } from "@x/shouty";
import type { MemoryListener } from "@x/shouty/testing";
import { tapped } from "../kit/faults.ts";
import { inMemory, startConversations, startServer } from "../kit/server.ts";

const TIMEOUTS = { idleTimeout: 1000, firstLineTimeout: 1000, lineTimeout: 2500, writeTimeout: 700 };

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
