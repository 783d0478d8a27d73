import { assertEquals, assertRejects } from "@std/assert";
import type { Conn, ServeOptions } from "@x/shouty";
import { test } from "../kit/bounded.ts";
import { inMemory, startConversations, type TestServer } from "../kit/server.ts";

const text = (bytes: Uint8Array | null | undefined) => new TextDecoder().decode(bytes ?? undefined);

/** Runs a handler against a client in memory; what fails in the handler fails here. */
async function play(
  handler: (conn: Conn, t: TestServer) => Promise<void>,
  client: (write: (data: string) => Promise<void>) => Promise<void>,
  options: ServeOptions = {},
): Promise<void> {
  const done = Promise.withResolvers<void>();
  const t: TestServer = startConversations(
    { ...inMemory(), ...options },
    (conn) => handler(conn, t).then(done.resolve, done.reject),
  );
  await using _ = t;
  const peer = await t.connect();
  await client((data) => peer.write(data));
  await peer.closeWrite();
  await done.promise;
}

const tick = () => new Promise((resolve) => setTimeout(resolve, 0));

test("the bytes behind a reader of conn.readable that was released are for the next read", () =>
  play(async (conn) => {
    const reader = conn.readable.getReader();
    const given = reader.read();
    await tick();
    reader.releaseLock();
    await assertRejects(() => given, TypeError);
    assertEquals([await conn.readLine(), await conn.readLine()], ["one", "two"]);
    await conn.readable.cancel();
    assertEquals([await conn.readLine(), await conn.readLine()], ["three", null]);
  }, async (write) => {
    await tick();
    await tick();
    await write("one\ntwo\nthree\n");
  }));

test("bytes that come between a released reader and the next read stay in the input", () =>
  play(async (conn, t) => {
    const reader = conn.readable.getReader();
    const given = reader.read();
    await tick();
    reader.releaseLock();
    await assertRejects(() => given, TypeError);
    while (t.server.stats().bytesIn === 0) await tick();
    assertEquals(await conn.readLine(), "one");
    const chunks = await Array.fromAsync(conn.readable, text);
    assertEquals(chunks.join(""), "two\n");
  }, async (write) => {
    await tick();
    await tick();
    await write("one\ntwo\n");
  }));

test("a pipe from conn.readable that was aborted takes nothing from the next read", () =>
  play(async (conn) => {
    const [stop, piped] = [new AbortController(), [] as string[]];
    const sink = new WritableStream<Uint8Array>({ write: (chunk) => void piped.push(text(chunk)) });
    const pipe = conn.readable.pipeTo(sink, { signal: stop.signal, preventCancel: true });
    while (piped.length === 0) await tick();
    stop.abort();
    await assertRejects(() => pipe, DOMException);
    const line = conn.readLine();
    await conn.write("go on\n");
    assertEquals([await line, await conn.readLine()], ["line1", "line2"]);
    assertEquals(piped, ["raw\n"]);
  }, async (write) => {
    await write("raw\n");
    for (let i = 0; i < 5; i++) await tick();
    await write("line1\nline2\n");
  }));

test("a read may follow one that was aborted, or a stream that was cancelled, at once", () =>
  play(async (conn) => {
    const stop = new AbortController();
    const given = conn.readLine({ signal: stop.signal });
    stop.abort("enough");
    const next = conn.readLine();
    assertEquals(await given.catch((reason) => reason), "enough");
    assertEquals(await next, "one");
    const body = conn.readStream(4);
    const cancelled = body.cancel();
    assertEquals(await conn.readLine(), "two");
    await cancelled;
    const reader = conn.readable.getReader();
    const pulled = reader.read();
    await tick();
    const cancelling = reader.cancel();
    const line = conn.readLine();
    await assertRejects(() => conn.readLine(), TypeError, "another read of this connection has not settled");
    assertEquals([(await pulled).done, await line], [true, "three"]);
    await cancelling;
  }, async (write) => {
    await write("one\nskiptwo\n");
    for (let i = 0; i < 5; i++) await tick();
    await write("three\n");
  }));

test("a read of a stream that waits for a read that was given up ends with its cancel, and takes nothing", () =>
  play(async (conn, t) => {
    const reader = conn.readable.getReader();
    const stop = new AbortController();
    const given = conn.readLine({ signal: stop.signal });
    while (t.server.stats().bytesIn === 0) await tick();
    stop.abort();
    const pulled = reader.read();
    const cancelled = reader.cancel();
    await assertRejects(() => given, DOMException);
    assertEquals((await pulled).done, true);
    await cancelled;
    assertEquals([await conn.readLine(), await conn.readLine()], ["DELETE /a", "next"]);
  }, async (write) => {
    await write("DELETE /a");
    for (let i = 0; i < 5; i++) await tick();
    await write("\nnext\n");
  }));

test("the cancel of a stream that has got its bytes does not end the read that follows", () =>
  play(async (conn) => {
    const reader = conn.readable.getReader();
    assertEquals(text((await reader.read()).value), "raw");
    reader.releaseLock();
    const line = conn.readLine();
    await conn.readable.cancel();
    assertEquals(await line, "line");
  }, async (write) => {
    await write("raw");
    for (let i = 0; i < 5; i++) await tick();
    await write("line\n");
  }));

test("reads that follow one that was given up keep their order, and only one of them waits", () =>
  play(async (conn) => {
    const stop = new AbortController();
    const given = conn.readLine({ signal: stop.signal });
    stop.abort();
    const message = "another read of this connection has not settled";
    const late = given.catch(() => assertRejects(() => conn.readLine(), TypeError, message));
    const next = conn.readLine();
    await assertRejects(() => conn.readExactly(1), TypeError, message);
    assertEquals(await next, "one");
    await late;
    // One that is aborted before it begins leaves its place.
    const [first, second] = [new AbortController(), new AbortController()];
    const reads = [
      conn.readLine({ signal: first.signal }),
      (first.abort("1"), conn.readLine({ signal: second.signal })),
    ];
    second.abort("2");
    reads.push(conn.readLine());
    assertEquals(await Promise.all(reads.map((read) => read.catch((reason) => reason))), ["1", "2", "two"]);
  }, async (write) => {
    for (let i = 0; i < 3; i++) await tick();
    await write("one\n");
    for (let i = 0; i < 5; i++) await tick();
    await write("two\n");
  }));

test("a read that waits in vain for a body that was begun meanwhile leaves conn.readable as it was", () =>
  play(async (conn, t) => {
    const reader = conn.readable.getReader();
    const stop = new AbortController();
    const given = conn.readLine({ signal: stop.signal });
    while (t.server.stats().bytesIn === 0) await tick();
    stop.abort();
    reader.read().catch(() => {});
    reader.releaseLock();
    const body = conn.readStream(3);
    await assertRejects(() => given, DOMException);
    assertEquals(await new Response(body).text(), "abc");
    assertEquals((await Array.fromAsync(conn.readable, text)).join(""), "def\n");
  }, async (write) => {
    await write("abc");
    for (let i = 0; i < 5; i++) await tick();
    await write("def\n");
  }));

for (const what of ["idleTimeout", "firstLineTimeout", "a drain"] as const) {
  test(`a released reader of conn.readable is no wait for the peer, and nothing for ${what} to end`, async () => {
    const { listener, clock } = inMemory();
    const [released, worked] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const seen: unknown[] = [];
    const options = what === "firstLineTimeout"
      ? { firstLineTimeout: 1000, idleTimeout: Infinity }
      : { idleTimeout: 1000 };
    await using t = startConversations({ listener, clock, ...options, drain: "finish" }, async (conn) => {
      const reader = conn.readable.getReader();
      reader.read().catch(() => {});
      await tick();
      reader.releaseLock();
      released.resolve();
      await worked.promise;
      for await (const line of conn.lines) seen.push(line);
    });
    const client = await t.admitted();
    await released.promise;
    const [conn] = t.server.connections;
    if (what === "a drain") t.server.shutdown();
    else await clock.advance(5000);
    await clock.advance(10);
    assertEquals([conn.stats().waitsFor, conn.ending], ["handler", undefined]);
    // A read that begins after that has its whole time.
    if (what === "idleTimeout") worked.resolve(), await clock.advance(900);
    await client.write("two\n");
    worked.resolve();
    await clock.advance(10);
    await client.closeWrite();
    await t.closed();
    assertEquals(seen, ["two"]);
  });
}

test("a stream of a body that is cancelled while it waits is skipped before the next read", () =>
  play(async (conn) => {
    const reader = conn.readStream(8).getReader();
    assertEquals(text((await reader.read()).value), "123");
    const waits = reader.read();
    const cancelled = reader.cancel();
    assertEquals(await conn.readLine(), "line");
    await cancelled;
    assertEquals((await waits).done, true);
  }, async (write) => {
    await write("123");
    for (let i = 0; i < 5; i++) await tick();
    await write("45678line\n");
  }));

test("the second of two reads is refused, whatever is wrong with its arguments", () =>
  play(async (conn) => {
    const line = conn.readLine();
    const message = "another read of this connection has not settled";
    await assertRejects(() => conn.readExactly(2 ** 21), TypeError, message);
    await assertRejects(() => conn.readExactly(-1), TypeError, message);
    await assertRejects(() => conn.readUntil(""), TypeError, message);
    assertEquals(await line, "a");
  }, async (write) => {
    await tick();
    await write("a\n");
  }));

for (const onLongLine of ["discard", "truncate"] as const) {
  test(`bytes that are read in the middle of a line that is too long end it, under "${onLongLine}"`, () =>
    play(async (conn, t) => {
      const stop = new AbortController();
      const line = conn.readLine({ signal: stop.signal });
      while (t.server.stats().bytesIn === 0) await tick();
      stop.abort();
      await assertRejects(() => line, DOMException);
      assertEquals(text(await conn.readUntil("\n")), "ij");
      assertEquals([await conn.readLine(), await conn.readLine()], ["ok", "next"]);
    }, async (write) => {
      await write("abcdefgh");
      for (let i = 0; i < 5; i++) await tick();
      await write("ij\nok\nnext\n");
    }, { maxLineBytes: 4, framing: { onLongLine }, lastWords: () => null }));
}
