import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { setImmediate } from "node:timers";
import type { Conn, ConnOptions, Server } from "@x/shouty";
import type { TestClient } from "@x/shouty/testing";
import { turn } from "../../internal/time/event_loop.ts";
import { testOnce } from "../kit/bounded.ts";
import { restlessClock } from "../kit/fakes/restless_clock.ts";
import { startConversations, startServer } from "../kit/server.ts";

const failure = (read: Promise<unknown>): Promise<unknown> => read.catch((error: unknown) => error);

/** What a handler may go on doing after the end of its connection. */
const AFTER_THE_END: Readonly<Record<string, (conn: Conn) => Promise<unknown>>> = {
  "readExactly": (conn) => conn.readExactly(5),
  "readUntil": (conn) => conn.readUntil("x"),
  "readLine": (conn) => conn.readLine(),
  "batches": (conn) => conn.batches.next(),
  "write": (conn) => conn.write("x"),
  "flushed": (conn) => conn.flushed(),
  "startTls": (conn) => conn.startTls({} as never),
};

for (const [what, call] of Object.entries(AFTER_THE_END)) {
  testOnce(
    `a handler that goes on with ${what} after the end of its connection does not keep others waiting`,
    async () => {
      const begun = Promise.withResolvers<void>();
      let [calls, stopped] = [0, false];
      await using t = startConversations({}, async (conn) => {
        conn.close();
        begun.resolve();
        while (!stopped && calls < 1_000_000) calls++, await failure(call(conn));
      });
      using _client = await t.connect();
      await begun.promise;
      for (let left = 60; left > 0; left--) await new Promise<void>((resolve) => setImmediate(() => resolve()));
      stopped = true;
      assertGreater(calls, 1);
      assertLess(calls, 200_000);
    },
  );
}

/** What ends the input, and the limit that a handler passes which goes on reading. */
const ENDS_OF_INPUT: Readonly<
  Record<string, [ConnOptions, (client: TestClient, server: Server<unknown>) => Promise<unknown> | undefined]>
> = {
  "halfCloseTimeout ends a connection": [{ halfCloseTimeout: 50 }, (client) => client.closeWrite()],
  "handlerTimeout ends a connection with maxLines": [
    { handlerTimeout: 50, maxLines: 1 },
    (client) => client.write("one\n"),
  ],
  "handlerTimeout ends a draining connection": [
    { handlerTimeout: 50 },
    (_, server) => void server.shutdown({ drain: "finish", drainTimeout: 60_000 }),
  ],
};

for (const [what, [limits, end]] of Object.entries(ENDS_OF_INPUT)) {
  testOnce(`${what} whose handler goes on reading after the end of input`, async () => {
    let reads = 0;
    await using t = startConversations(limits, async (conn) => {
      while (!conn.signal.aborted && reads < 10_000_000) reads++, await conn.readLine();
    });
    await end(await t.admitted(), t.server);
    assertEquals((await t.closed()).reason, "handler-timeout");
    assertLess(reads, 10_000_000);
  });
}

testOnce(
  "maxAge ends a connection whose handler goes on reading after the end of input, ten seconds later",
  async () => {
    const clock = restlessClock();
    let reads = 0;
    await using t = startConversations({ clock, maxAge: 1000, idleTimeout: Infinity }, async (conn) => {
      while (!conn.signal.aborted && reads < 10_000_000) reads++, await conn.readLine();
    });
    await t.admitted();
    clock.pass(1100);
    const ended = () => [...t.server.connections].every(({ ending }) => ending === "max-age");
    while (!ended()) await turn();
    clock.pass(9999);
    await turn();
    assertEquals(t.all("closed"), []);
    clock.pass(1);
    assertEquals((await t.closed()).reason, "max-age");
    assertLess(reads, 10_000_000);
  },
);

/** What a line handler may go on trying although it is refused. */
const REFUSED: Readonly<Record<string, (conn: Conn<unknown>) => Promise<unknown>>> = {
  "readLine": (conn) => conn.readLine(),
  "readExactly": (conn) => conn.readExactly(1),
  "readUntil": (conn) => conn.readUntil("x"),
  "write": (conn) => conn.write("x"),
  "write of no text": (conn) => conn.write(5 as never),
  "flushed": (conn) => conn.flushed(),
  "startTls": (conn) => conn.startTls({} as never),
};

for (const [what, call] of Object.entries(REFUSED)) {
  testOnce(`a line handler that goes on with ${what} after it is refused does not keep others waiting`, async () => {
    const begun = Promise.withResolvers<void>();
    let [calls, stopped] = [0, false];
    await using t = startServer({}, async (_, conn) => {
      conn.write("last\n");
      await conn.closeWrite();
      begun.resolve();
      while (!stopped && calls < 1_000_000) calls++, await failure(call(conn));
      return undefined;
    });
    const client = await t.connect();
    await client.write("hello\n");
    await begun.promise;
    for (let left = 60; left > 0; left--) await new Promise<void>((resolve) => setImmediate(() => resolve()));
    stopped = true;
    assertGreater(calls, 1);
    assertLess(calls, 200_000);
  });
}
