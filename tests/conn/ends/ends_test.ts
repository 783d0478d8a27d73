/** Endings in the middle of something else. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import type { Transport } from "@x/shouty";
import { test } from "../../kit/bounded.ts";
import { tapped } from "../../kit/faults.ts";
import { inMemory, startConversations, startServer } from "../../kit/server.ts";

test("a listener of conn.signal that closes the connection does not change why it ended", async () => {
  const { listener, clock } = inMemory();
  await using t = startConversations({ listener, clock, idleTimeout: 1000 }, async (conn) => {
    conn.signal.addEventListener("abort", () => conn.close());
    for await (const _ of conn.lines);
  });
  await t.admitted();
  await clock.advance(1000);
  assertEquals((await t.closed()).reason, "idle");
});

test("a listener of conn.signal that closes the connection shortens no time for what was written", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 8 });
  const options = { listener, clock, idleTimeout: Infinity, writeTimeout: 60_000 };
  await using t = startConversations(options, async (conn) => {
    conn.signal.addEventListener("abort", () => conn.close());
    conn.setDeadline(1000);
    await conn.write("x".repeat(100));
    await new Promise<void>(() => {});
  });
  const client = await t.admitted();
  await clock.advance(10_000);
  assertEquals(await client.readAll(), "x".repeat(100));
  client.close();
  assertEquals((await t.closed()).reason, "deadline");
});

test("a client that speaks HTTP gets its answer, however much of its request has not been read", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, answerMisdirected: true });
  const client = await t.admitted();
  await client.write(`GET / HTTP/1.1\r\nCookie: ${"x".repeat(3000)}\r\n\r\n`);
  // The server ends its own side, then reads and discards until the client ends its side too.
  assertStringIncludes(await client.readAll(), "400 Bad Request");
  await clock.advance(0);
  assertEquals(t.stats.active, 1);
  client.close();
  assertEquals((await t.closed()).reason, "misdirected");
});

test("a conversation that a drain has ended may take its time to say goodbye, whatever idleTimeout is", async () => {
  const { listener, clock } = inMemory();
  const [noMoreLines, saved] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  await using t = startConversations({ listener, clock, idleTimeout: 1000 }, async (conn) => {
    for await (const _ of conn.lines);
    noMoreLines.resolve();
    await saved.promise;
    await conn.write("goodbye\n");
  });
  const client = await t.admitted();
  await clock.advance(900);
  const stopped = t.server.shutdown({ drain: "finish" });
  await clock.advance(0);
  await noMoreLines.promise;
  await clock.advance(5000);
  saved.resolve();
  assertEquals(await client.readLine(), "goodbye");
  client.close();
  assertEquals((await stopped).closed, { drained: 1 });
});

test("what is read ahead lands in the connection's own memory, although memory becomes short meanwhile", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 1 << 20 });
  const goOn = Promise.withResolvers<void>();
  const options = { listener, clock, idleTimeout: Infinity, maxBufferedBytes: 20_000 };
  await using t = startServer(options, async (line) => (line === "slow" && await goOn.promise, line.toUpperCase()));
  const client = await t.admitted();
  await client.write("slow\n");
  await clock.advance(1000);
  await client.write("ahead\n".repeat(200));
  await clock.advance(0);
  const other = await t.admitted();
  await other.write("y".repeat(12_000));
  await clock.advance(0);
  goOn.resolve();
  for (const line of ["SLOW", ...Array(200).fill("AHEAD")]) assertEquals(await client.readLine(), line);
  // A third connection may get a buffer that was given back.
  const third = await t.admitted();
  await third.write("mine\n");
  assertEquals(await third.readLine(), "MINE");
  await client.write("behind\n");
  assertEquals(await client.readLine(), "BEHIND");
});

test("a connection that gives way is closed without a reset, so that its peer reads why", async () => {
  const { listener, clock } = inMemory();
  const resets: string[] = [];
  const reset = (inner: Transport) => () => (resets.push("reset"), inner.close());
  const options = { listener: tapped(listener, (inner) => ({ reset: reset(inner) })), clock, maxBufferedBytes: 1000 };
  await using t = startServer(options);
  const client = t.own(listener.connect());
  await client.write("z".repeat(1024));
  assertEquals(await client.readLine().catch(() => "lost"), "error: too much unfinished input");
  assertEquals([(await t.closed()).reason, resets], ["memory", []]);
});

test("a connection whose handler works gives way at once, and not when the handler may no longer write", async () => {
  const { listener, clock } = inMemory();
  await using t = startConversations({ listener, clock, maxBufferedBytes: 4000 }, async (conn) => {
    if (conn.id === 1) await new Promise<void>(() => {});
    await conn.readLine();
  });
  const [client, other] = [await t.admitted(), await t.admitted()];
  await client.write("z".repeat(4000));
  await clock.advance(250);
  assertEquals(t.all("closed"), []);
  await other.write("y".repeat(1000));
  await clock.advance(0);
  assertEquals(t.all("closed").map(({ conn, reason }) => [conn.id, reason]), [[1, "memory"]]);
});

test("a deadline that passes while no read is outstanding lets the peer read all before the transport is closed", async () => {
  const { listener, clock } = inMemory();
  const calls: string[] = [];
  const told = tapped(listener, (inner) => ({
    closeWrite: () => (calls.push("closeWrite"), inner.closeWrite()),
    read: (into) => (calls.push("read"), inner.read(into)),
    close: () => (calls.push("close"), inner.close()),
  }));
  await using t = startConversations({ listener: told, clock }, async (conn) => {
    await conn.write("hello\n");
    conn.setDeadline(100);
    await new Promise<void>((resolve) => conn.signal.addEventListener("abort", () => resolve()));
  });
  const client = t.own(listener.connect());
  await client.write("never read");
  await client.closeWrite();
  await clock.advance(100);
  assertEquals((await t.closed()).reason, "deadline");
  assertEquals(calls, ["closeWrite", "read", "read", "close"]);
});

test("a read that settles after its connection has ended writes into no buffer of another one", async () => {
  const { listener, clock } = inMemory();
  const late = Promise.withResolvers<number>();
  let into: Uint8Array = new Uint8Array(0);
  let made = 0;
  const slow = tapped(listener, () => made++ > 0 ? {} : { read: (bytes) => (into = bytes, late.promise) });
  await using t = startServer({ listener: slow, clock, idleTimeout: 1000 });
  t.own(listener.connect());
  await t.until("accepted");
  await clock.advance(4000);
  assertEquals((await t.closed()).reason, "idle");
  const client = t.own(listener.connect());
  await client.write("hel");
  await clock.advance(0);
  into.fill(63);
  late.resolve(into.length);
  await clock.advance(0);
  await client.write("lo\n");
  assertEquals(await client.readLine(), "HELLO");
});

test("a line that is too long ends a conversation for that reason, although it has ended its own side already", async () => {
  const { listener, clock } = inMemory();
  const writes: number[] = [];
  const write = (inner: Transport) => (bytes: Uint8Array) => (writes.push(bytes.length), inner.write(bytes));
  const options = { listener: tapped(listener, (inner) => ({ write: write(inner) })), clock, maxLineBytes: 8 };
  await using t = startConversations(options, async (conn) => {
    await conn.writable.close();
    for await (const _ of conn.lines);
  });
  const client = t.own(listener.connect());
  assertEquals(await client.readAll(), "");
  await client.write("more than eight bytes\n");
  client.close();
  assertEquals([(await t.closed()).reason, writes], ["line-too-long", []]);
});

test("lines that wait for memory are answered as they came, although more input is read meanwhile", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 1000 });
  const goOn = Promise.withResolvers<void>();
  const options = { listener, clock, idleTimeout: Infinity, lineTimeout: Infinity, maxBufferedBytes: 40_000 };
  await using t = startServer(options, async (line) => {
    if (line === "long") return "x".repeat(100_000);
    if (line === "slow") await goOn.promise;
    return line.toUpperCase();
  });
  const client = await t.admitted();
  await client.write("slow\n");
  await clock.advance(1000);
  await client.write("second\n");
  await clock.advance(0);
  const greedy = await t.admitted();
  await greedy.write("long\n");
  await clock.advance(0);
  goOn.resolve();
  assertEquals(await client.readLine(), "SLOW");
  for (let i = 0; i < 10; i++) {
    await client.write(`${"y".repeat(49)}\n`);
    await clock.advance(0);
  }
  greedy.close();
  for (const line of ["SECOND", ...Array(10).fill("Y".repeat(49))]) assertEquals(await client.readLine(), line);
});

for (const [how, act] of Object.entries({ "two seconds": undefined, "the end of a drain": 100 })) {
  test(`under TLS, a peer that has ended its side and takes no close_notify keeps its place for ${how} at most`, async () => {
    const { listener, clock } = inMemory();
    const tls = { version: "TLSv1.3", cipher: "", serverName: undefined, alpn: undefined } as const;
    const secure = tapped(listener, () => ({ tls, closeWrite: () => new Promise(() => {}) }));
    await using t = startServer({ listener: secure, clock });
    const client = t.own(listener.connect());
    await client.write("line\n");
    await client.closeWrite();
    assertEquals(await client.readLine(), "LINE");
    if (act !== undefined) t.server.shutdown({ drainTimeout: act });
    await clock.advance((act ?? 2000) - 1);
    assertEquals(t.stats.active, 1);
    await clock.advance(1);
    assertEquals(t.all("closed").map(({ reason }) => reason), ["end"]);
  });
}
