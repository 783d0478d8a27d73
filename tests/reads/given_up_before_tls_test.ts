import { assertEquals, assertRejects } from "@std/assert";
import type { Conn } from "@x/shouty";
import { test } from "../kit/bounded.ts";
import { fakeCredentials, HELLO, readHidden, sendHidden, SERVER_HELLO } from "../kit/fakes/fake_tls.ts";
import { inMemory, startConversations } from "../kit/server.ts";
import { SHARE_LINES, TURN_BYTES, TURNS } from "../../internal/time/turns.ts";

const tick = () => new Promise((resolve) => setTimeout(resolve, 0));

/** Begins to read, and returns what gives the read up. */
const GIVEN_UP: Readonly<Record<string, (conn: Conn) => () => void>> = {
  "a read whose signal has aborted": (conn) => {
    const stop = new AbortController();
    conn.readLine({ signal: stop.signal }).catch(() => {});
    return () => stop.abort();
  },
  "a reader of conn.readable that was released": (conn) => {
    const reader = conn.readable.getReader();
    reader.read().catch(() => {});
    return () => reader.releaseLock();
  },
  "a pipe from conn.readable that was aborted": (conn) => {
    const stop = new AbortController();
    const options = { signal: stop.signal, preventCancel: true };
    conn.readable.pipeTo(new WritableStream(), options).catch(() => {});
    return () => stop.abort();
  },
  "a stream that was cancelled": (conn) => {
    const reader = conn.readable.getReader();
    reader.read();
    return () => void reader.cancel();
  },
  "a stream that waits for a read that was given up": (conn) => {
    const [stop, { readable }] = [new AbortController(), conn];
    conn.readLine({ signal: stop.signal }).catch(() => {});
    return () => {
      stop.abort();
      const reader = readable.getReader();
      reader.read().catch(() => {});
      reader.releaseLock();
    };
  },
};

for (const [what, begin] of Object.entries(GIVEN_UP)) {
  for (const later of [false, true]) {
    test(`TLS may begin ${later ? "some time" : "at once"} behind ${what}, which takes nothing of the handshake`, async () => {
      const { listener, clock } = inMemory();
      const credentials = fakeCredentials();
      const options = { listener, clock, idleTimeout: 1000, handlerTimeout: 1000 };
      await using t = startConversations(options, async (conn) => {
        const giveUp = begin(conn);
        await tick();
        giveUp();
        if (later || what.includes("pipe")) await tick();
        conn.write("go ahead\n");
        const upgraded = conn.startTls(credentials);
        await assertRejects(() => conn.readLine(), TypeError, "another read of this connection has not settled");
        await upgraded;
        for await (const line of conn.lines) await conn.write(`${line.toUpperCase()}\n`);
      });
      const client = await t.admitted();
      assertEquals(await client.readLine(), "go ahead");
      // No clock runs during a handshake that the read has begun.
      await clock.advance(5000);
      await client.write(HELLO);
      assertEquals(await client.readBytes(SERVER_HELLO.length), SERVER_HELLO);
      await sendHidden(client, "hidden\n");
      assertEquals(await readHidden(client, 7), "HIDDEN\n");
      assertEquals([t.all("handler-error"), credentials.firstBytes], [[], [HELLO]]);
      await client.closeWrite();
      await t.closed();
    });
  }
}

test("a handshake waits for a read that was given up while it waited for its turn", async () => {
  const { listener, clock } = inMemory();
  const [credentials, worked] = [fakeCredentials(), Promise.withResolvers<void>()];
  await using t = startConversations({ listener, clock, handlerTimeout: 1000 }, async (conn) => {
    await worked.promise;
    for (let left = SHARE_LINES - 1; left > 0; left--) assertEquals(await conn.readLine(), "x");
    // Others have used this turn up.
    TURNS.take(TURN_BYTES);
    const stop = new AbortController();
    conn.readLine({ signal: stop.signal }).catch(() => {});
    stop.abort();
    await conn.startTls(credentials);
    await conn.write("done\n");
  });
  const client = await t.admitted();
  await client.write("x\n".repeat(SHARE_LINES - 1));
  // All of it is read ahead, so that the handler need not wait for any of these lines.
  await clock.advance(500);
  worked.resolve();
  await clock.advance(0);
  await clock.advance(5000);
  await client.write(HELLO);
  assertEquals(await client.readBytes(SERVER_HELLO.length), SERVER_HELLO);
  assertEquals([await readHidden(client, 5), t.all("handler-error")], ["done\n", []]);
});

test("a stream that waits for a read that was given up is refused if its reader comes back during a handshake", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials();
  await using t = startConversations({ listener, clock }, async (conn) => {
    const [stop, { readable }] = [new AbortController(), conn];
    conn.readLine({ signal: stop.signal }).catch(() => {});
    await tick();
    stop.abort();
    const reader = readable.getReader();
    reader.read().catch(() => {});
    reader.releaseLock();
    const upgraded = conn.startTls(credentials);
    const again = readable.getReader().read();
    await conn.write("refused\n");
    await assertRejects(() => again, TypeError, "another read of this connection has not settled");
    await upgraded;
  });
  const client = await t.admitted();
  await clock.advance(10);
  await client.write(HELLO);
  assertEquals(await client.readBytes(SERVER_HELLO.length), SERVER_HELLO);
  assertEquals([await readHidden(client, 8), t.all("handler-error")], ["refused\n", []]);
});
