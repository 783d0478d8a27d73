import { assertEquals, assertRejects } from "@std/assert";
import { type Conn, connect, ConnectionClosedError } from "@x/shouty";
import { test, testOnce } from "../kit/bounded.ts";
import { inMemory } from "../kit/connect.ts";
import { startServer } from "../kit/server.ts";

const LAST_READS: Readonly<Record<string, (conn: Conn) => Promise<unknown>>> = {
  readLine: (conn) => conn.readLine(),
  "the next of lines": (conn) => conn.lines.next(),
  readUntil: (conn) => conn.readUntil("c"),
  readExactly: (conn) => conn.readExactly(3),
  "readExactly, after less was asked for": async (conn) => {
    await assertRejects(() => conn.readUntil("|"), Deno.errors.UnexpectedEof);
    await conn.readExactly(3);
  },
  readStream: (conn) => new Response(conn.readStream(3)).text(),
  "a read of readable": (conn) => conn.readable.getReader().read(),
};

for (const [name, read] of Object.entries(LAST_READS)) {
  testOnce(`a connection is over when both sides have ended and ${name} has got the rest`, async () => {
    for (const closesFirst of [true, false]) {
      const { conn, peer, clock } = await inMemory({ framing: { lineEnd: { delimiter: "c" } } });
      if (closesFirst) await conn.closeWrite();
      await peer.write("abc");
      await peer.closeWrite();
      await clock.advance(300);
      await read(conn);
      if (!closesFirst) assertEquals(conn.signal.aborted, false), await conn.closeWrite();
      const { reason } = await conn.closed;
      assertEquals([conn.ending, reason, await conn.readLine()], ["end", "end", null]);
    }
  });
}

testOnce("bytes beyond maxConnectionBytes are the end of a connection whose sides have both ended", async () => {
  const { conn, peer, clock } = await inMemory({ maxConnectionBytes: 4 });
  await conn.closeWrite();
  await peer.write("abc\ndef\n");
  await peer.closeWrite();
  await clock.advance(300);
  assertEquals([await conn.readLine(), await conn.readLine(), conn.ending], ["abc", null, "byte-limit"]);
});

testOnce("a connection is over when the peer ends its side while nothing is read, if all is read by then", async () => {
  const { conn, peer, clock } = await inMemory();
  await conn.closeWrite();
  await peer.write("abc\n");
  assertEquals(await conn.readLine(), "abc");
  await peer.closeWrite();
  await clock.advance(300);
  assertEquals((await conn.closed).reason, "end");
});

test("close sends what was written, and the server sees the end", async () => {
  await using t = startServer();
  const conn = await connect({ port: t.port });
  conn.write("last\n");
  conn.close();
  assertEquals((await conn.closed).reason, "closed");
  assertEquals(conn.signal.reason, "closed");
  const { reason, lines } = await t.closed();
  assertEquals([reason, lines], ["end", 1]);
});

testOnce("the peer's end leaves this side open, until it has ended too", async () => {
  const { conn, peer } = await inMemory();
  await peer.write("bye\n");
  await peer.closeWrite();
  assertEquals([await conn.readLine(), await conn.readLine(), conn.ending], ["bye", null, "end"]);
  await conn.write("still here\n");
  assertEquals(await peer.readLine(), "still here");
  assertEquals(conn.signal.aborted, false);
  await conn.closeWrite();
  assertEquals([await peer.readLine(), (await conn.closed).reason, conn.signal.reason], [null, "end", "end"]);
});

testOnce(
  "lines that a server has sent before its end wait for a caller that works on each of them for long",
  async () => {
    const { conn, peer, clock } = await inMemory();
    await peer.write("one\ntwo\nthree\n");
    await peer.closeWrite();
    for (const line of ["one", "two", "three", null]) {
      assertEquals(await conn.readLine(), line);
      await clock.advance(3_600_000);
    }
    assertEquals([conn.ending, conn.signal.aborted], ["end", false]);
    conn.close();
    assertEquals([(await conn.closed).reason, clock.pending], ["closed", 0]);
  },
);

testOnce("a caller may bound the time that a connection stays open after the server has ended its side", async () => {
  const { conn, peer, clock } = await inMemory({ halfCloseTimeout: 5000 });
  await peer.write("one\ntwo\n");
  await peer.closeWrite();
  assertEquals([await conn.readLine(), await conn.readLine(), await conn.readLine()], ["one", "two", null]);
  await clock.advance(10_000);
  assertEquals((await conn.closed).reason, "handler-timeout");
});

testOnce("this side's end leaves the input open, until it is read", async () => {
  const { conn, peer } = await inMemory();
  await conn.writable.close();
  await peer.write("one\ntwo\n");
  await peer.closeWrite();
  assertEquals([await conn.readLine(), conn.signal.aborted], ["one", false]);
  assertEquals(await new Response(conn.readable).text(), "two\n");
  assertEquals((await conn.closed).reason, "end");
});

testOnce("a write after this side's end says that this side has ended, not the connection", async () => {
  const { conn, peer } = await inMemory();
  await conn.closeWrite();
  for (const refused of [() => conn.write("more\n"), () => conn.flushed()]) {
    const { message, reason } = await assertRejects(refused, ConnectionClosedError);
    assertEquals([message, reason], ["Cannot write: this side has ended", "closed"]);
  }
  await peer.write("still read\n");
  assertEquals([await conn.readLine(), conn.ending], ["still read", undefined]);
  peer.close();
  assertEquals([await conn.readLine(), (await conn.closed).reason], [null, "end"]);
  const { message } = await assertRejects(() => conn.write("more\n"), ConnectionClosedError);
  assertEquals(message, "Cannot write: the connection has ended (end)");
});

testOnce("at a limit the caller may still write for a second, and the server is told nothing", async () => {
  const { conn, peer, clock } = await inMemory({ maxLineBytes: 5 });
  await peer.write("too long\n");
  assertEquals([await conn.readLine(), conn.ending], [null, "line-too-long"]);
  await conn.write("QUIT\n");
  await clock.advance(999);
  assertEquals(await peer.readLine(), "QUIT");
  await clock.advance(1);
  assertEquals(await peer.readAll(), "");
  await peer.closeWrite();
  assertEquals((await conn.closed).reason, "line-too-long");
});

for (const limits of [{ maxLines: 2 }, { maxAge: 1000 }]) {
  const reason = "maxLines" in limits ? "max-lines" : "max-age";
  testOnce(`after ${reason} the caller may still write for a second, and the connection ends`, async () => {
    const { conn, peer, clock } = await inMemory(limits);
    await peer.write("one\ntwo\n");
    assertEquals([await conn.readLine(), await conn.readLine()], ["one", "two"]);
    const last = conn.readLine();
    // The limit ends the input at once; the age is up to a tenth longer than it says.
    await clock.advance("maxAge" in limits ? 1100 : 0);
    assertEquals([await last, conn.ending, conn.signal.reason], [null, reason, reason]);
    await conn.write("QUIT\n");
    assertEquals(await peer.readLine(), "QUIT");
    peer.close();
    await clock.advance(1000);
    assertEquals([(await conn.closed).reason, clock.pending], [reason, 0]);
  });
}

testOnce("a reset by the server ends the connection while the caller does something else", async () => {
  const { conn, peer, clock } = await inMemory();
  peer.reset();
  await clock.advance(1000);
  assertEquals((await conn.closed).reason, "reset");
  await assertRejects(() => conn.write("x"), ConnectionClosedError);
});

testOnce("what a read has left at the end of input stays readable, although both sides have ended", async () => {
  const { conn, peer } = await inMemory();
  await conn.closeWrite();
  await peer.write("abc");
  await peer.closeWrite();
  await assertRejects(() => conn.readExactly(5), Deno.errors.UnexpectedEof);
  await assertRejects(() => conn.readUntil("|"), Deno.errors.UnexpectedEof);
  assertEquals(new TextDecoder().decode(await conn.readExactly(2)), "ab");
  assertEquals([await conn.readLine(), conn.signal.aborted], ["c", true]);
  assertEquals([await conn.readLine(), (await conn.closed).reason], [null, "end"]);
});
