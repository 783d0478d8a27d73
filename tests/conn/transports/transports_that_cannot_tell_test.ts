import { assertEquals } from "@std/assert";
import type { Transport } from "@x/shouty";
import { test } from "../../kit/bounded.ts";
import { tapped } from "../../kit/faults.ts";
import { inMemory, startConversations, startServer } from "../../kit/server.ts";

/** Numbers of bytes that no call can have transferred. A transport that is not written in TypeScript can return them. */
const WRONG: unknown[] = [undefined, NaN, -1, 0.5, 1e9, "2", 2n, Symbol("two"), {}];

test("a transport that cannot tell of a reset is served, also while its handler works", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 200_000 });
  const onReset = () => {
    throw new Error("No events");
  };
  const odd = tapped(listener, () => ({ onReset }));
  const work = Promise.withResolvers<void>();
  await using t = startConversations({ listener: odd, clock }, async (conn) => {
    await work.promise;
    await conn.write(`${(await conn.readExactly(100_000)).length}\n`);
  });
  using client = listener.connect();
  await client.write("x".repeat(100_000));
  await clock.advance(1000);
  work.resolve();
  assertEquals(await client.readAll(), "100000\n");
  client.close();
  assertEquals((await t.closed()).reason, "closed");
});

test("a shutdown with finish ends a connection whose transport cannot tell whether it holds a part of something", async () => {
  for (const wrong of WRONG) {
    const { listener, clock } = inMemory();
    const get = () => {
      if (wrong === undefined) throw new Error("Not known");
      return wrong;
    };
    const accept = async () => Object.defineProperty(await listener.accept(), "whole", { get });
    const odd = { addr: listener.addr, accept, close: () => listener.close() };
    await using t = startServer({ listener: odd, clock, drain: "finish" });
    using client = listener.connect();
    await client.write("hello\n");
    assertEquals(await client.readLine(), "HELLO");
    const stopped = t.server.shutdown({ drainTimeout: 5000 });
    client.readAll().then(() => client.close());
    await clock.advance(0);
    assertEquals((await stopped).closed, { drained: 1 }, String(wrong));
  }
});

test("the memory of others is bounded beside a transport that does not know how much it holds", async () => {
  for (const wrong of [...WRONG.filter((wrong) => wrong !== 1e9), -Infinity, Infinity]) {
    const { listener, clock } = inMemory();
    const get = () => {
      if (wrong === undefined) throw new Error("Not known");
      return wrong;
    };
    let made = 0;
    const stuck = tapped(listener, () => made++ > 0 ? {} : { write: () => new Promise(() => {}) });
    const accept = async () => Object.defineProperty(await stuck.accept(), "heldBytes", { get });
    const odd = { addr: stuck.addr, accept, close: () => stuck.close() };
    const limits = {
      maxBufferedBytes: 64 * 1024,
      maxLineBytes: 1024 * 1024,
      writeTimeout: 60_000,
      idleTimeout: 60_000,
    };
    await using t = startServer({ listener: odd, clock, ...limits });
    using first = listener.connect();
    await first.write("hello\n");
    await clock.advance(1000);
    using second = listener.connect();
    const sending = second.write("x".repeat(500_000)).catch(() => {});
    await clock.advance(0);
    assertEquals(t.all("closed").map(({ reason }) => reason), ["memory"], String(wrong));
    second.close();
    await sending;
  }
});

/** Makes a property that cannot be read. */
function unreadable(transport: Transport, name: "progress" | "reset"): Transport {
  const get = () => {
    throw new Error("Not known");
  };
  return Object.defineProperty(transport, name, { get });
}

const ODD_PROGRESS: Readonly<Record<string, (transport: Transport) => Transport>> = {
  "cannot be asked for": (transport) => unreadable(transport, "progress"),
  ...Object.fromEntries([...WRONG.filter((wrong) => wrong !== 1e9), Infinity].map((wrong) => [
    `is ${typeof wrong} ${String(wrong)}`,
    (transport: Transport) => ({ ...transport, progress: () => wrong as number }),
  ])),
  "throws": (transport) => ({
    ...transport,
    progress() {
      throw new Error("No progress");
    },
  }),
  "rejects": (transport) => ({ ...transport, progress: () => Promise.reject(new Error("No progress")) as never }),
};

for (const [what, spoil] of Object.entries(ODD_PROGRESS)) {
  test(`a transport whose progress ${what} is cut off after its writeTimeout`, async () => {
    const { listener, clock } = inMemory();
    const stuck = tapped(listener, () => ({ write: () => new Promise<number>(() => {}) }));
    const odd = { addr: stuck.addr, accept: async () => spoil(await stuck.accept()), close: () => stuck.close() };
    await using t = startServer({ listener: odd, clock, writeTimeout: 1000, idleTimeout: 60_000 });
    using client = listener.connect();
    await client.write("hello\n");
    await clock.advance(3000);
    assertEquals(t.all("closed").map(({ reason }) => reason), ["write-timeout"]);
  });
}

test("a transport that cannot tell whether it can be reset is closed", async () => {
  const { listener, clock } = inMemory();
  let closed = 0;
  const stuck = tapped(listener, (inner) => ({
    write: () => new Promise<number>(() => {}),
    close() {
      closed++;
      inner.close();
    },
  }));
  const accept = async () => unreadable(await stuck.accept(), "reset");
  await using t = startServer({ listener: { addr: stuck.addr, accept, close: () => stuck.close() }, clock });
  using client = listener.connect();
  await client.write("hello\n");
  await clock.advance(30_000);
  assertEquals([(await t.closed()).reason, closed], ["write-timeout", 1]);
});
