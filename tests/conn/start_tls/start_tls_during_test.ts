import { assertEquals } from "@std/assert";
import { test } from "../../kit/bounded.ts";
import { fakeCredentials, HELLO, readHidden, sendHidden, SERVER_HELLO } from "../../kit/fakes/fake_tls.ts";
import { inMemory } from "../../kit/server.ts";
import { shakeHands, startUpgrading } from "../../kit/start_tls.ts";

test("what is written and broadcast during the handshake is sent after it, encrypted", async () => {
  const { listener, clock } = inMemory();
  const before = Promise.withResolvers<void>();
  const credentials = fakeCredentials({ before: before.promise });
  const begun = Promise.withResolvers<void>();
  await using t = startUpgrading({ listener, clock }, credentials, async (conn) => {
    conn.write("go ahead\n");
    const upgraded = conn.startTls(credentials);
    await conn.write("meanwhile\n");
    begun.resolve();
    await upgraded;
    await conn.flushed();
  });
  const client = await t.admitted();
  await shakeHands(client);
  await begun.promise;
  t.server.broadcast("to all\n");
  await clock.advance(100);
  before.resolve();
  assertEquals(await readHidden(client, 17), "meanwhile\nto all\n");
});

test("flushed and closeWrite wait for the end of the handshake", async () => {
  const { listener, clock } = inMemory();
  const before = Promise.withResolvers<void>();
  const credentials = fakeCredentials({ before: before.promise });
  const seen: string[] = [];
  const begun = Promise.withResolvers<void>();
  await using t = startUpgrading({ listener, clock }, credentials, async (conn) => {
    conn.write("go ahead\n");
    const upgraded = conn.startTls(credentials).then(() => seen.push("upgraded"));
    await begun.promise;
    conn.write("meanwhile\n");
    const flushed = conn.flushed().then(() => seen.push("flushed"));
    await Promise.all([upgraded, flushed, conn.closeWrite().then(() => seen.push("ended"))]);
  });
  const client = await t.admitted();
  await shakeHands(client);
  begun.resolve();
  await clock.advance(100);
  assertEquals(seen, []);
  before.resolve();
  assertEquals(await readHidden(client, 10), "meanwhile\n");
  assertEquals(await client.readAll(), "");
  await client.closeWrite();
  await t.closed();
  assertEquals(seen.toSorted(), ["ended", "flushed", "upgraded"]);
});

test("before the handshake, startTls sends all that was written, also to a peer that reads slowly", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 16 });
  const credentials = fakeCredentials();
  await using t = startUpgrading({ listener, clock }, credentials, async (conn) => {
    conn.write(`${"x".repeat(1000)}\n`);
    conn.write("go ahead\n");
    const upgraded = conn.startTls(credentials);
    conn.write("secret\n");
    await upgraded;
  });
  const client = await t.admitted();
  await client.write("STARTTLS\n");
  assertEquals(await client.readLine(), "x".repeat(1000));
  assertEquals(await client.readLine(), "go ahead");
  await client.write(HELLO);
  assertEquals(await client.readBytes(SERVER_HELLO.length), SERVER_HELLO);
  assertEquals(await readHidden(client, 7), "secret\n");
});

test("a handshake has its own time: no other clock runs, and when it is up the connection ends", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials({ handshakeTimeout: 5000 });
  const options = { listener, clock, idleTimeout: 1000, handlerTimeout: 1000 };
  await using t = startUpgrading(options, credentials);
  const client = await t.admitted();
  await client.write("STARTTLS\n");
  assertEquals(await client.readLine(), "go ahead");
  await clock.advance(4999);
  assertEquals(t.all("closed"), []);
  await clock.advance(1);
  const { reason, error } = await t.closed();
  assertEquals([reason, (error as Error).message], ["tls-handshake", "No TLS handshake within 5000 ms"]);
  assertEquals(await client.readAll(), "");
});

test("after the handshake the other clocks run again", async () => {
  const { listener, clock } = inMemory();
  await using t = startUpgrading({ listener, clock, idleTimeout: 1000 }, fakeCredentials());
  const client = await t.admitted();
  await shakeHands(client);
  await clock.advance(999);
  assertEquals(t.all("closed"), []);
  await clock.advance(1);
  assertEquals((await t.closed()).reason, "idle");
});

test("after the handshake a handler that hangs is ended by its own clock", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials();
  await using t = startUpgrading({ listener, clock, handlerTimeout: 1000 }, credentials, async (conn) => {
    conn.write("go ahead\n");
    await conn.startTls(credentials);
    await new Promise((resolve) => conn.signal.addEventListener("abort", resolve));
  });
  const client = await t.admitted();
  await shakeHands(client);
  await clock.advance(1000);
  await client.closeWrite();
  assertEquals((await t.closed()).reason, "handler-timeout");
});

test("after a slow handshake no clock of the peer runs while the handler works", async () => {
  const { listener, clock } = inMemory();
  const [before, worked] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const credentials = fakeCredentials({ handshakeTimeout: 60_000, before: before.promise });
  await using t = startUpgrading({ listener, clock }, credentials, async (conn) => {
    conn.write("go ahead\n");
    await conn.startTls(credentials);
    await worked.promise;
  });
  const client = await t.admitted();
  await shakeHands(client);
  await clock.advance(30_000);
  before.resolve();
  await clock.advance(0);
  await clock.advance(60_000);
  assertEquals(t.all("closed"), []);
  worked.resolve();
  await sendHidden(client, "hidden\n");
  assertEquals(await readHidden(client, 7), "HIDDEN\n");
});

test("a shutdown with finish lets the handshake end, and then the connection at the next boundary", async () => {
  const { listener, clock } = inMemory();
  const before = Promise.withResolvers<void>();
  const credentials = fakeCredentials({ before: before.promise });
  await using t = startUpgrading({ listener, clock }, credentials);
  const client = await t.admitted();
  await shakeHands(client);
  const stopped = t.server.shutdown({ drain: "finish" });
  await sendHidden(client, "last\n");
  before.resolve();
  assertEquals(await readHidden(client, 5), "LAST\n");
  assertEquals(await client.readAll(), "");
  await client.closeWrite();
  assertEquals((await stopped).closed, { drained: 1 });
});

test("what is held back during a handshake counts as memory, so that a silent client cannot make others wait", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials();
  const options = { listener, clock, maxBufferedBytes: 100_000, maxQueuedBytes: 200_000 };
  await using t = startUpgrading(options, credentials);
  const silent = await t.admitted();
  await silent.write("STARTTLS\n");
  assertEquals(await silent.readLine(), "go ahead");
  const other = await t.admitted();
  const news = `${"x".repeat(150_000)}\n`;
  t.server.broadcast(news);
  assertEquals(await other.readLine(), news.trimEnd());
  await other.write("hello\n");
  assertEquals(await other.readLine(), "HELLO");
  assertEquals((await t.closed()).reason, "memory");
});

test("what is held back goes on to count when the client has taken what came before it", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 4 });
  const credentials = fakeCredentials();
  await using t = startUpgrading({ listener, clock, maxBufferedBytes: 150_000 }, credentials, async (conn) => {
    conn.write("go ahead\n");
    const upgraded = conn.startTls(credentials);
    conn.write("x".repeat(100_000));
    await upgraded;
  });
  for (let i = 0; i < 2; i++) {
    const silent = await t.admitted();
    await silent.write("STARTTLS\n");
    // The second one passes the limit, so one of the two is reset, perhaps while it reads.
    await silent.readLine().catch(() => {});
    await clock.advance(0);
  }
  const other = await t.admitted();
  await other.write("hello\n");
  assertEquals(await other.readLine(), "HELLO");
  assertEquals((await t.closed()).reason, "memory");
});
