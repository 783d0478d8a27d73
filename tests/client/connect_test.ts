import { assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import { connect, type ConnectOptions } from "@x/shouty";
import { listenUnix } from "@x/shouty/ops";
import { FakeClock, MemoryListener, TestClient } from "@x/shouty/testing";
import { test, testOnce } from "../kit/bounded.ts";
import { inMemory } from "../kit/connect.ts";
import { fakeCredentials } from "../kit/fakes/fake_tls.ts";
import { startConversations, startServer } from "../kit/server.ts";

test("a connection that was opened reads and writes like a handler's", async () => {
  await using t = startServer();
  await using conn = await connect({ port: t.port });
  assertEquals((conn.remoteAddr as Deno.NetAddr).port, t.port);
  assertEquals([conn.tls, conn.proxy, conn.data], [undefined, undefined, undefined]);
  await conn.write("one\ntwo\n12345three\nfour\n");
  assertEquals(await conn.readLine(), "ONE");
  assertEquals((await conn.lines.next()).value, "TWO");
  assertEquals(new TextDecoder().decode(await conn.readExactly(5)), "12345");
  assertEquals(await conn.readLine(), "THREE");
  assertEquals(new TextDecoder().decode((await conn.readUntil("\n"))!), "FOUR");
  await conn.closeWrite();
  assertEquals([await conn.readLine(), conn.ending], [null, "end"]);
  assertEquals((await conn.closed).reason, "end");
});

testOnce("connects to a Unix socket", async () => {
  const dir = await Deno.makeTempDir();
  const path = `${dir}/s`;
  await using t = startServer({ listener: await listenUnix({ path }) });
  await using conn = await connect({ path });
  await conn.write("over a file\n");
  assertEquals(await conn.readLine(), "OVER A FILE");
  assertEquals(t.stats.accepted, 1);
  await Deno.remove(dir, { recursive: true }).catch(() => {});
});

testOnce("a server that says nothing is idle while a read waits, and not before", async () => {
  const { conn, peer, clock } = await inMemory({ idleTimeout: 1000 });
  await clock.advance(10_000);
  const line = conn.readLine();
  await clock.advance(999);
  assertEquals(conn.ending, undefined);
  await clock.advance(1);
  assertEquals([await line, conn.ending], [null, "idle"]);
  await peer.closeWrite();
  await clock.advance(1000);
  assertEquals((await conn.closed).reason, "idle");
});

testOnce(
  "a server that has never said anything has the whole time for its first answer, unless it should speak first",
  async () => {
    const ask = async (options: ConnectOptions) => {
      const { conn, peer, clock } = await inMemory({ idleTimeout: 1000, ...options });
      const line = conn.readLine();
      await clock.advance(900);
      await conn.write("question\n");
      await clock.advance(900);
      await peer.write("answer\n");
      const result = [await line, conn.ending];
      peer.close();
      conn.close();
      await clock.advance(2000);
      await conn.closed;
      return result;
    };
    assertEquals(await ask({}), ["answer", undefined]);
    assertEquals(await ask({ firstLineTimeout: undefined }), ["answer", undefined]);
    assertEquals(await ask({ firstLineTimeout: 1000 }), [null, "first-line-timeout"]);
  },
);

testOnce("the framing, the data and the changes of a connection are its own", async () => {
  const listener = new MemoryListener();
  const dial = () => listener.dial();
  await using conn = await connect({ dial, framing: { lineEnd: "crlf" }, data: () => ({ count: 1 }) });
  const peer = new TestClient(await listener.accept());
  await peer.write("a\nb\r\nc|");
  assertEquals([await conn.readLine(), conn.data.count], ["a\nb", 1]);
  conn.setFraming({ lineEnd: { delimiter: "|" } });
  assertEquals(await conn.readLine(), "c");
  peer.close();
});

testOnce("data that throws closes the connection, and is the error of connect", async () => {
  const error = new Error("no data");
  const data = () => {
    throw error;
  };
  const listener = new MemoryListener();
  const failed = connect({ dial: () => listener.dial(), data });
  const peer = new TestClient(await listener.accept());
  assertEquals(await peer.readAll(), "");
  await peer.closeWrite();
  assertStrictEquals(await failed.catch((error) => error), error);
});

testOnce("each connection has its own bound on memory, which the caller sets", async () => {
  const { conn: small, peer, clock } = await inMemory({ maxBufferedBytes: 20_000 });
  const { conn: large, peer: other } = await inMemory({ clock, maxBufferedBytes: 100_000 });
  const tooMuch = assertRejects(() => small.readExactly(50_000), Deno.errors.UnexpectedEof);
  const enough = large.readExactly(50_000);
  await Promise.all([peer, other].map((peer) => peer.write(new Uint8Array(40_000))));
  await tooMuch;
  await clock.advance(1000);
  assertEquals([small.ending, (await small.closed).reason], ["memory", "memory"]);
  await other.write(new Uint8Array(10_000));
  assertEquals([(await enough).length, large.ending], [50_000, undefined]);
  large.close();
  for (const each of [peer, other]) each.close();
  await large.closed;
});

testOnce("writes to a server that nobody awaits are bounded by maxQueuedBytes", async () => {
  const { conn, peer } = await inMemory({ maxQueuedBytes: 200_000 });
  for (let i = 0; i < 30 && conn.ending === undefined; i++) conn.write(new Uint8Array(10_000));
  assertEquals((await conn.closed).reason, "write-queue");
  peer.close();
});

testOnce("startTls is for servers", async () => {
  const { conn, peer } = await inMemory();
  const error = await assertRejects(() => conn.startTls(fakeCredentials()), TypeError);
  assertEquals(error.message, "Cannot begin TLS: this side is the client, which has the option tls");
  peer.close();
  conn.close();
  await conn.closed;
});

testOnce("connections on one clock share one timer", async () => {
  const clock = new FakeClock();
  const [one, two] = [await inMemory({ clock }), await inMemory({ clock })];
  const lines = Promise.all([one.conn.readLine(), two.conn.readLine()]);
  await clock.advance(0);
  assertEquals(clock.pending, 1);
  for (const { conn, peer } of [one, two]) {
    peer.close();
    conn.close();
  }
  assertEquals(await lines, [null, null]);
});

/** Options that are wrong, and the error. */
const WRONG: readonly [ConnectOptions, string][] = [
  [{}, "Cannot connect: expected one of port, path and dial, got none of them"],
  [{ port: 1, path: "/x" }, "Cannot connect: expected one of port, path and dial, got several of them"],
  [{ port: 0 }, "Cannot use port 0: expected a whole number from 1 to 65535"],
  [{ port: 65_536 }, "Cannot use port 65536: expected a whole number from 1 to 65535"],
  [{ port: "80" as never }, 'Cannot use port "80": expected a number'],
  [{ path: "" }, 'Cannot use path "": expected at least one character'],
  [{ hostname: "", port: 1 }, 'Cannot use hostname "": expected at least one character'],
  [{ hostname: "x", path: "/x" }, 'Cannot use hostname "x" without port: expected both'],
  [{ dial: 1 as never }, "Cannot use dial: expected a function, got 1"],
  [
    { port: 1, connectTimeout: 0 },
    "Cannot use connectTimeout 0: expected more than 0 and at most 2147483647 ms, or Infinity",
  ],
  [{ port: 1, tls: "yes" as never }, 'Cannot use tls: expected an object, got "yes"'],
  [{ path: "/x", tls: true }, "Cannot use tls without a name to verify: expected tls.serverName beside path or dial"],
  [{ port: 1, tls: { serverName: 1 as never } }, "Cannot use tls.serverName: expected a string, got 1"],
  [{ port: 1, signal: {} as never }, "Cannot use signal: expected an AbortSignal, got an object"],
  [
    { port: 1, idleTimeout: -1 },
    "Cannot use idleTimeout -1: expected more than 0 and at most 2147483647 ms, or Infinity",
  ],
  [{ port: 1, maxBufferedBytes: 0 }, "Cannot use maxBufferedBytes 0: expected a whole number of at least 1"],
  [{ port: 1, maxBufferedBytes: null as never }, "Cannot use maxBufferedBytes null: expected a number"],
  [{ port: 1, firstLineTimeout: null as never }, "Cannot use firstLineTimeout null: expected a number"],
  [{ port: 1, framing: { lineEnd: "cr" as never } }, 'Cannot use framing.lineEnd "cr"'],
  [{ port: 1, data: 1 as never }, "Cannot use data: expected a function, got 1"],
];

testOnce("wrong options are named, with the value and what is allowed, before anything is opened", async () => {
  for (const [options, message] of WRONG) {
    const error = await connect(options).catch((error) => error);
    assertEquals([error instanceof TypeError || error instanceof RangeError, error.message.slice(0, message.length)], [
      true,
      message,
    ]);
  }
  const error = await connect(undefined as never).catch((error) => error);
  assertEquals(error.message, "Cannot use connect options: expected an object, got undefined");
});

test("connections that are open at the same time have their own numbers", async () => {
  await using t = startConversations({}, async (conn) => void await conn.readLine());
  await using one = await connect({ port: t.port });
  await using two = await connect({ port: t.port });
  assertEquals(two.id, one.id + 1);
});
