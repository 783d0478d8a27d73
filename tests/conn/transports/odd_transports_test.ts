import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import type { Transport } from "@x/shouty";
import type { MemoryListener } from "@x/shouty/testing";
import { turn } from "../../../internal/time/event_loop.ts";
import { test } from "../../kit/bounded.ts";
import { tapped } from "../../kit/faults.ts";
import { inMemory, startConversations, startServer, TestServer, WAYS_IN } from "../../kit/server.ts";

/** Numbers of bytes that no call can have transferred. A transport that is not written in TypeScript can return them. */
const WRONG: unknown[] = [undefined, NaN, -1, 0.5, 1e9, "2", 2n, Symbol("two"), {}];

/** Sends text, and reads the replies to the end. */
async function talk(listener: MemoryListener, text: string): Promise<string> {
  using client = listener.connect();
  await client.write(text);
  await client.closeWrite();
  return await client.readAll();
}

for (const [kind, start] of Object.entries(WAYS_IN)) {
  test(`${kind}: a transport that returns no number of bytes ends its connection alone, and counts nothing`, async () => {
    for (const method of ["read", "write"] as const) {
      // POSIX's 0 for the end of input would be read again and again.
      for (const wrong of method === "read" ? [...WRONG, 0] : WRONG) {
        const { listener } = inMemory();
        let made = 0;
        // The second connection is as it should be.
        const odd = tapped(listener, () => made++ > 0 ? {} : { [method]: () => Promise.resolve(wrong) });
        await using t = new TestServer(start, { listener: odd });
        using client = listener.connect();
        await client.write("hello\n");
        const { reason, error } = await t.closed();
        assertEquals(reason, "transport-error");
        assertMatch((error as Error).message, new RegExp(`^Cannot use what ${method} returned: expected .+, got .`));
        assertEquals(await talk(listener, "fine\n"), "FINE\n");
        assertEquals([t.stats.bytesIn, t.stats.bytesOut], [method === "read" ? 5 : 11, 5]);
      }
    }
  });
}

for (const [kind, start] of Object.entries(WAYS_IN)) {
  test(`${kind}: a transport whose read or write throws at once ends its connection alone`, async () => {
    for (const method of ["read", "write"] as const) {
      const { listener } = inMemory();
      let made = 0;
      const fail = () => {
        throw new Error("No handle");
      };
      const odd = tapped(listener, () => made++ > 0 ? {} : { [method]: fail });
      await using t = new TestServer(start, { listener: odd });
      using client = listener.connect();
      await client.write("hello\n");
      const { reason, error } = await t.closed();
      assertEquals([reason, (error as Error).message], ["transport-error", "No handle"]);
      assertEquals(await talk(listener, "fine\n"), "FINE\n");
    }
  });
}

test("a transport that returns no number of bytes ends its connection also while a handler works", async () => {
  for (const wrong of [...WRONG, 0]) {
    const { listener, clock } = inMemory();
    const odd = tapped(listener, () => ({ read: () => Promise.resolve(wrong as number) }));
    const work = Promise.withResolvers<void>();
    await using t = startConversations({ listener: odd, clock }, (conn) => {
      conn.signal.addEventListener("abort", () => work.resolve());
      return work.promise;
    });
    using _client = listener.connect();
    await t.until("accepted");
    await clock.advance(250);
    assertEquals(t.all("closed").map(({ reason }) => reason), ["transport-error"]);
    await work.promise;
  }
});

for (const isFull of [false, true]) {
  const what = isFull ? "rejects it" : "closes it";
  test(`a server that ${what} asks a transport that returns no number of bytes only once`, async () => {
    for (const wrong of [...WRONG, 0]) {
      const { listener } = inMemory();
      let [made, calls] = [0, 0];
      // Without an end, the loop would take the whole process with it.
      const read = () => ++calls > 10 ? new Promise<number>(() => {}) : Promise.resolve(wrong as number);
      // The first connection of a server that is full is as it should be.
      const odd = tapped(listener, () => isFull && made++ === 0 ? {} : { read });
      const options = { listener: odd, maxConnections: 1 };
      await using t = startConversations(options, async (conn) => {
        if (isFull) await conn.readLine();
        else await conn.write("bye\n");
      });
      if (isFull) t.own(listener.connect());
      const client = t.own(listener.connect());
      assertMatch(await client.readAll(), isFull ? /^error: .+\n$/ : /^bye\n$/);
      for (let turns = 5; turns > 0; turns--) await turn();
      assertEquals(calls, 1);
    }
  });
}

test("a transport may return a number of bytes at once, and close in an async function that fails", async () => {
  const fail = () => Promise.reject(new Error("It is closed"));
  for (const start of Object.values(WAYS_IN)) {
    const { listener } = inMemory();
    const odd = tapped(listener, (inner) => ({
      write: (bytes) => (inner.write(bytes), bytes.length as unknown as Promise<number>),
      close: () => (inner.close(), fail() as unknown as void),
      setNoDelay: fail,
      setKeepAlive: fail,
    }));
    await using _t = new TestServer(start, { listener: odd });
    assertEquals(await talk(listener, "one\ntwo\n"), "ONE\nTWO\n");
  }
});

test(
  "a transport that can neither keep the process alive nor let it end is served, and so are the others",
  async () => {
    const { listener } = inMemory();
    const fail = () => {
      throw new Error("No handle");
    };
    const odd = tapped(listener, () => ({ ref: fail, unref: fail }));
    await using t = startServer({ listener: odd });
    t.server.unref();
    assertEquals(await talk(listener, "one\n"), "ONE\n");
    using client = listener.connect();
    await t.until("accepted", 2);
    t.server.ref();
    await client.write("two\n");
    assertEquals(await client.readLine(), "TWO");
  },
);

test(
  "what accept returned is refused if it is no transport, and the listener is asked again after a pause",
  async () => {
    const { listener, clock } = inMemory();
    const accepted: unknown[] = [undefined, null, 5, {}, Promise.resolve()];
    const odd = {
      addr: listener.addr,
      accept: () => accepted.length > 0 ? accepted.shift() as Promise<Transport> : listener.accept(),
      close: () => listener.close(),
    };
    await using t = startServer({ listener: odd, clock });
    await clock.advance(1000);
    const events = t.all("accept-error");
    assertEquals(events.map(({ retryMs }) => retryMs), [5, 10, 20, 40, 80]);
    assertEquals(
      (events[3].error as Error).message,
      "Cannot use what accept returned: expected a transport, got an object without the method read",
    );
    assertEquals(await talk(listener, "fine\n"), "FINE\n");
  },
);

test("a transport without an address is closed, the error says so, and accepting goes on", async () => {
  const { listener, clock } = inMemory();
  const missing = [undefined, "127.0.0.1"];
  const odd = tapped(listener, () => missing.length > 0 ? { remoteAddr: missing.shift() as never } : {});
  await using t = startServer({ listener: odd, clock });
  for (const got of ["undefined", '"127.0.0.1"']) {
    await assertRejects(() => talk(listener, "hello\n"), Deno.errors.ConnectionReset);
    const { error } = t.all("accept-error").at(-1)!;
    assertEquals(
      `${error}`,
      `TypeError: Cannot use the remoteAddr of what accept returned: expected an object, got ${got}`,
    );
  }
  assertEquals(await talk(listener, "fine\n"), "FINE\n");
});
