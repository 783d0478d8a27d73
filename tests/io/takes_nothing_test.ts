import { assertEquals, assertLess, assertLessOrEqual } from "@std/assert";
import type { Conn, ServeOptions } from "@x/shouty";
import type { FakeClock, TestClient } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";
import { tapped } from "../kit/faults.ts";
import { inMemory, startConversations, startServer, type TestServer } from "../kit/server.ts";

/** More than the peer's kernel takes, and less than a handler may write without waiting. */
const OUTPUT = "x".repeat(2000);

const BUFFER = { bufferBytes: 16 };

const never = () => new Promise<never>(() => {});

/** What ends the connection while its output waits: a handler, or something that happens around a line handler. */
interface Ending {
  readonly options?: ServeOptions;
  readonly handler?: (conn: Conn) => unknown;
  readonly happens?: (t: TestServer, client: TestClient, clock: FakeClock) => unknown;
  /** Whether only `writeTimeout` ends it: without, a write that a handler awaits may wait for as long as its peer likes. */
  readonly needsWriteTimeout?: boolean;
}

const broadcast = (t: TestServer) => void t.server.broadcast(OUTPUT);

const ENDINGS: Record<string, Ending> = {
  "firstLineTimeout": { happens: async (t, _, clock) => (await clock.advance(8000), broadcast(t)) },
  "lineTimeout": {
    happens: async (t, client, clock) => (await client.write("x"), await clock.advance(8000), broadcast(t)),
  },
  "maxAge": { options: { maxAge: 5000 }, happens: broadcast },
  "maxLines": {
    options: { maxLines: 1 },
    happens: (t, client) => (broadcast(t), client.write("x\n")),
    needsWriteTimeout: true,
  },
  "the end of input": { happens: (t, client) => (broadcast(t), client.closeWrite()) },
  "a drain": { happens: (t) => (broadcast(t), void t.server.shutdown({ drain: "finish", drainTimeout: Infinity })) },
  "a drain that lingers": { happens: (t) => (broadcast(t), void t.server.shutdown({ drainTimeout: Infinity })) },
  "a long line": { options: { maxLineBytes: 1 }, happens: (t, client) => (broadcast(t), client.write("xx\n")) },
  "a handler that returns": { handler: (conn) => void conn.write(OUTPUT) },
  "a handler that throws": {
    handler(conn) {
      conn.write(OUTPUT);
      throw new Error("Thrown by the handler");
    },
  },
  "a last word": { handler: (conn) => (conn.write(OUTPUT), conn.close({ lastWord: "bye" })) },
  "the end of this side": { handler: (conn) => (conn.write(OUTPUT), conn.closeWrite()), needsWriteTimeout: true },
  "a deadline, and a handler that does not settle": {
    handler: (conn) => (conn.write(OUTPUT), conn.setDeadline(1000), never()),
  },
  "handlerTimeout": {
    options: { handlerTimeout: 1000 },
    handler: (conn) => (conn.write(OUTPUT), never()),
    needsWriteTimeout: true,
  },
  "a wait for input": { handler: (conn) => (conn.write(OUTPUT), conn.readLine()) },
};

for (const [name, { options, handler, happens, needsWriteTimeout }] of Object.entries(ENDINGS)) {
  for (const writeTimeout of needsWriteTimeout ? [10_000] : [10_000, Infinity]) {
    test(`A peer that takes nothing is closed after ${name} (writeTimeout ${writeTimeout})`, async () => {
      const { listener, clock } = inMemory(BUFFER);
      const all = { listener, clock, writeTimeout, ...options };
      await using t = handler === undefined ? startServer(all) : startConversations(all, async (conn) => {
        await handler(conn);
      });
      const client = await t.connect();
      await clock.advance(0);
      await happens?.(t, client, clock);
      // More than each default limit, one after the other.
      await clock.advance(60_000);
      assertEquals(t.all("closed").length, 1, `${Array.from(t.server.connections, (conn) => conn.stats().phase)}`);
    });
  }
}

test("A peer that takes nothing is closed although a read that was given up ends with the connection", async () => {
  const { listener, clock } = inMemory(BUFFER);
  const closing = Promise.withResolvers<void>();
  await using t = startConversations({ listener, clock, writeTimeout: Infinity }, async (conn) => {
    conn.write(OUTPUT);
    const aborter = new AbortController();
    const read = conn.readLine({ signal: aborter.signal });
    await closing.promise;
    conn.close();
    aborter.abort();
    await read.catch(() => {});
  });
  await t.connect();
  await clock.advance(0);
  closing.resolve();
  await clock.advance(60_000);
  assertEquals(t.all("closed").length, 1);
});

test("A peer that takes nothing is closed although its handler ends while a read waits to tell it of long lines", async () => {
  const { listener, clock } = inMemory(BUFFER);
  const ending = Promise.withResolvers<void>();
  const framing = { onLongLine: "discard" } as const;
  const options = { listener, clock, writeTimeout: Infinity, maxLineBytes: 1, framing };
  await using t = startConversations(options, async (conn) => {
    conn.readLine();
    conn.write("x".repeat(70_000));
    await ending.promise;
  });
  const client = await t.connect();
  await client.write("xxxxxx\n");
  await clock.advance(0);
  ending.resolve();
  await clock.advance(60_000);
  assertEquals(t.all("closed").length, 1);
});

test("A peer that takes the last writes slowly gets them, also with writeTimeout switched off", async () => {
  const { listener, clock } = inMemory();
  // Some kernels take nothing more until a third of their buffer is free.
  const write = ({ length }: Uint8Array) => new Promise<number>((took) => clock.setTimer(() => took(length), 25_000));
  const slow = tapped(listener, () => ({ write }));
  await using t = startConversations({ listener: slow, clock, writeTimeout: Infinity }, (conn) => {
    conn.write("reply\n");
  });
  using _client = listener.connect();
  await clock.advance(40_000);
  assertEquals(t.all("closed").map(({ reason, bytesOut }) => [reason, bytesOut]), [["closed", 6]]);
});

test("While the last writes wait, changed limits of the input set no timers, and idleMs is no more than the age", async () => {
  const { listener, clock } = inMemory(BUFFER);
  await using t = startConversations({ listener, clock, idleTimeout: Infinity, writeTimeout: 10_000 }, async (conn) => {
    conn.write(OUTPUT);
    conn.readLine();
    await conn.closed;
  });
  await clock.advance(100_000);
  const client = await t.connect();
  await client.write("x");
  await clock.advance(0);
  const [conn] = t.server.connections as Iterable<Conn>;
  conn.close();
  conn.setLimits({ lineTimeout: 500, minBytesPerSecond: 1 });
  let timers = 0;
  const setTimer = clock.setTimer.bind(clock);
  clock.setTimer = (callback, delay) => {
    // Without a limit here, a failing test would not end.
    assertLess(timers++, 100);
    return setTimer(callback, delay);
  };
  await clock.advance(1000);
  const { idleMs, ageMs, phase } = conn.stats();
  assertEquals(phase, "leaving");
  assertLessOrEqual(idleMs, ageMs);
});
