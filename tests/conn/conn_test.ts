import { assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { type Conn, ConnectionClosedError, type LineHandler } from "@x/shouty";
import { test } from "../kit/bounded.ts";
import { inMemory, startConversations, startServer } from "../kit/server.ts";

test("the second of two reads at once rejects, and the first goes on", async () => {
  const [refused, got] = [Promise.withResolvers<void>(), Promise.withResolvers<unknown>()];
  await using t = startConversations(inMemory(), async (conn) => {
    const first = conn.lines.next();
    for (
      const read of [
        () => conn.lines.next(),
        () => conn.readLine(),
        () => conn.readExactly(1),
        () => conn.batches.next(),
      ]
    ) {
      await assertRejects(read, TypeError, "another read of this connection has not settled");
    }
    assertThrows(() => conn.readStream(1), TypeError, "another read");
    refused.resolve();
    got.resolve([await first, await conn.readLine()]);
  });
  const client = await t.connect();
  await refused.promise;
  await client.write("a\nb\n");
  assertEquals(await got.promise, [{ value: "a", done: false }, "b"]);
});

test("after a break, the next loop over conn.lines gets the lines that follow", async () => {
  await using t = startConversations(inMemory(), async (conn) => {
    for await (const name of conn.lines) {
      conn.write(`Hello ${name}\n`);
      break;
    }
    for await (const line of conn.lines) {
      if (line === "") break;
      conn.write(`${line}!\n`);
    }
    conn.write(`left: ${(await Array.fromAsync(conn.lines)).join()}\n`);
  });
  for (const text of ["Ada\none\ntwo\n\nthree\nfour", "Ada\r\none\r\ntwo\r\n\r\nthree\r\nfour\r\n"]) {
    assertEquals(await t.talk(text), "Hello Ada\none!\ntwo!\nleft: three,four\n");
  }
});

test("conn.lines throws a TypeError in a line handler", async () => {
  await using t = startServer(inMemory(), (_, conn) => `${conn.lines}`);
  assertEquals(await t.talk("x\n"), "");
  const { error } = await t.until("handler-error");
  assertEquals((error as Error).message, "Cannot use conn.lines in a line handler: it gets each line as its argument");
});

test("conn has its id and its addresses", async () => {
  const { listener, clock } = inMemory();
  const handler: LineHandler = (_, { id, remoteAddr, localAddr }) => JSON.stringify([id, remoteAddr, localAddr]);
  await using t = startServer({ listener, clock }, handler);
  const client = await t.connect();
  await client.write("\n");
  assertEquals(JSON.parse((await client.readLine())!), [1, client.addr, listener.addr]);
});

test("conn.signal aborts with the close reason, also when it is first read after the end", async () => {
  const conns: Conn[] = [];
  const signals: AbortSignal[] = [];
  await using t = startConversations(inMemory(), async (conn) => {
    conns.push(conn);
    if (conn.id < 3) signals.push(conn.signal);
    for await (const _ of conn.lines);
  });
  assertEquals(await t.talk(""), "");
  for (let i = 0; i < 2; i++) (await t.admitted()).reset();
  await t.closed(3);
  assertEquals(signals.map(({ reason }) => reason), ["end", "reset"]);
  const ends = [[true, "end"], [true, "reset"], [true, "reset"]];
  assertEquals(conns.map(({ signal }) => [signal.aborted, signal.reason]), ends);
});

test("conn.readable goes on where conn.lines stopped, at every line and cut, and conn.lines after conn.readable", async () => {
  const input = "one\r\ntwo\n\nfour\xff\nfive";
  for (let lines = 0; lines <= 5; lines++) {
    for (let cut = 1; cut <= input.length; cut++) {
      const { listener, clock } = inMemory();
      const got: string[] = [];
      const rest: number[] = [];
      await using t = startConversations({ listener, clock }, async (conn) => {
        for (let left = lines; left > 0; left--) got.push((await conn.lines.next()).value ?? "");
        const reader = conn.readable.getReader();
        for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) rest.push(...chunk.value);
        assertEquals(await conn.lines.next(), { value: undefined, done: true });
      });
      const client = await t.admitted();
      const bytes = Uint8Array.from(input, (character) => character.charCodeAt(0));
      await client.write(bytes.subarray(0, cut));
      await clock.advance(0);
      await client.write(bytes.subarray(cut));
      await client.closeWrite();
      assertEquals((await t.closed()).reason, "end");
      const lineEnds = [0, 5, 9, 10, 16, 20];
      assertEquals(rest, [...bytes.subarray(lineEnds[lines])], `${lines} lines, cut at ${cut}`);
      assertEquals(got.length, lines);
    }
  }
});

test("conn.readable that is cancelled leaves its unread bytes to conn.lines", async () => {
  const { listener, clock } = inMemory();
  const got: unknown[] = [];
  await using t = startConversations({ listener, clock }, async (conn) => {
    const reader = conn.readable.getReader();
    got.push((await reader.read()).value?.length);
    const pending = reader.read();
    await reader.cancel();
    got.push(await pending);
    for await (const line of conn.lines) got.push(line);
  });
  const client = await t.admitted();
  await client.write("12345");
  await clock.advance(0);
  await client.write("one\ntwo");
  await client.closeWrite();
  assertEquals((await t.closed()).reason, "end");
  assertEquals(got, [5, { value: undefined, done: true }, "one", "two"]);
});

test("conn.readable reads nothing until it is pulled, and is the same object each time", async () => {
  const { listener, clock } = inMemory();
  const goOn = Promise.withResolvers<void>();
  await using t = startConversations({ listener, clock }, async (conn) => {
    assertStrictEquals(conn.readable, conn.readable);
    await goOn.promise;
    await conn.readable.cancel();
  });
  const client = await t.admitted();
  await client.write("nobody asked\n");
  await clock.advance(0);
  assertEquals(t.stats.bytesIn, 0);
  goOn.resolve();
  await client.closeWrite();
  assertEquals((await t.closed()).reason, "closed");
});

test("conn.writable ends this side when it is closed, and the peer can go on sending", async () => {
  const { listener, clock } = inMemory();
  const got: string[] = [];
  await using t = startConversations({ listener, clock }, async (conn) => {
    const writer = conn.writable.getWriter();
    await writer.write("text and ");
    await writer.write(new TextEncoder().encode("bytes"));
    await writer.close();
    await assertRejects(() => conn.write("late"), ConnectionClosedError);
    for await (const line of conn.lines) got.push(line);
  });
  const client = await t.admitted();
  assertEquals(await client.readAll(), "text and bytes");
  await client.write("still here\n");
  await client.closeWrite();
  assertEquals([(await t.closed()).reason, got], ["end", ["still here"]]);
});

test("conn.writable that is aborted ends the connection as closed", async () => {
  await using t = startConversations(inMemory(), (conn) => conn.writable.abort());
  await t.admitted();
  assertEquals((await t.closed()).reason, "closed");
});

test("a pipe from conn.readable to conn.writable ends with its connection, and for its reason", async () => {
  const { listener, clock } = inMemory();
  await using t = startConversations(
    { listener, clock, idleTimeout: 1000 },
    (conn) => conn.readable.pipeTo(conn.writable, { signal: conn.signal }),
  );
  const client = await t.admitted();
  await client.write("echo");
  await clock.advance(999);
  assertEquals(new TextDecoder().decode((await client.read())!), "echo");
  await clock.advance(1);
  assertEquals((await t.closed()).reason, "idle");
  assertEquals(t.all("handler-error"), []);
});
