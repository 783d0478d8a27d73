import { assertEquals, assertInstanceOf, assertRejects, assertStrictEquals } from "@std/assert";
import { type Conn, connect, ConnectionClosedError, type ConnectOptions, type Transport } from "@x/shouty";
import { listenUnix } from "@x/shouty/ops";
import { FakeClock, MemoryListener, TestClient } from "@x/shouty/testing";
import { test, testOnce } from "../kit/bounded.ts";
import { dial } from "../../internal/client/dial.ts";
import { fakeCredentials } from "../kit/fakes/fake_tls.ts";
import { refusingPort } from "../kit/sockets/refusing_port.ts";
import { startConversations, startServer } from "../kit/server.ts";

/** Connects in memory, on a clock that the test moves; returns the connection and the server's end of it. */
async function inMemory(options: ConnectOptions = {}): Promise<{ conn: Conn; peer: TestClient; clock: FakeClock }> {
  const clock = new FakeClock();
  const listener = new MemoryListener();
  const conn = await connect({ dial: () => listener.dial(), clock, ...options });
  return { conn, peer: new TestClient(await listener.accept()), clock };
}

/** A transport whose reads and writes never settle, and which knows whether it is closed. */
function silent(): Transport & { closed: number } {
  const addr = { transport: "tcp", hostname: "127.0.0.1", port: 1 } as const;
  const never = () => new Promise<never>(() => {});
  return { localAddr: addr, remoteAddr: addr, read: never, write: never, closeWrite: never, close, closed: 0 };
  function close(this: { closed: number }) {
    this.closed++;
  }
}

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

testOnce("a reset by the server ends the connection while the caller does something else", async () => {
  const { conn, peer, clock } = await inMemory();
  peer.reset();
  await clock.advance(1000);
  assertEquals((await conn.closed).reason, "reset");
  await assertRejects(() => conn.write("x"), ConnectionClosedError);
});

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

testOnce("a server that nobody is at is named in the error", async () => {
  using refusing = await refusingPort();
  const { port } = refusing;
  const error = await assertRejects(() => connect({ port }), Deno.errors.ConnectionRefused);
  assertEquals(error.message.startsWith(`Cannot connect to 127.0.0.1:${port}: Connection refused`), true);
  assertEquals((error as Error & { code?: string }).code, "ECONNREFUSED");
  await assertRejects(() => connect({ path: "/nowhere/at/all" }), Deno.errors.NotFound, "unix:/nowhere/at/all");
});

testOnce("a socket that the kernel has connected to itself is closed, and the server counts as down", async () => {
  // The kernel does this once in some thousands of attempts, if it may choose the target's port for this end.
  const { connect: original } = Deno;
  const addr = { transport: "tcp", hostname: "127.0.0.1", port: 50_000 } as const;
  const socket = { localAddr: addr, remoteAddr: { ...addr }, closed: 0, close: () => void socket.closed++ };
  Deno.connect = (() => Promise.resolve(socket)) as unknown as typeof Deno.connect;
  try {
    await assertRejects(() => connect({ port: 50_000 }), Deno.errors.ConnectionRefused, "to 127.0.0.1:50000: nothing");
    assertEquals(socket.closed, 1);
  } finally {
    Deno.connect = original;
  }
});

testOnce("an attempt ends when connectTimeout is up, and closes a connection that comes later", async () => {
  const clock = new FakeClock();
  const opening = Promise.withResolvers<Transport>();
  const failed = connect({ dial: () => opening.promise, clock, connectTimeout: 500 }).catch((error) => error);
  await clock.advance(500);
  const error = await failed;
  assertInstanceOf(error, Deno.errors.TimedOut);
  assertEquals(error.message, "Cannot connect: no answer within 500 ms");
  const transport = silent();
  opening.resolve(transport);
  await clock.advance(0);
  assertEquals([transport.closed, clock.pending], [1, 0]);
});

testOnce("a TLS handshake that nobody answers counts as connecting", async () => {
  const clock = new FakeClock();
  const transport = silent();
  const options = { dial: () => transport, clock, tls: { serverName: "example.org" }, connectTimeout: 500 };
  const failed = connect(options).catch((error) => error);
  await clock.advance(0);
  // The library for TLS is being loaded.
  await import("../../ops/tls/client.ts");
  await clock.advance(500);
  assertInstanceOf(await failed, Deno.errors.TimedOut);
  assertEquals(transport.closed, 1);

  const late = silent();
  const aborter = new AbortController();
  const aborted = connect({ ...options, dial: () => late, signal: aborter.signal }).catch((error) => error);
  await clock.advance(0);
  aborter.abort("enough");
  assertEquals([await aborted, late.closed, clock.pending], ["enough", 1, 0]);
});

testOnce("the signal ends an attempt before it begins, while it runs, and the open connection", async () => {
  const reason = new Error("enough");
  const dial = () => new Promise<Transport>(() => {});
  assertStrictEquals(await connect({ dial, signal: AbortSignal.abort(reason) }).catch((error) => error), reason);

  const during = new AbortController();
  const failed = connect({ dial, signal: during.signal }).catch((error) => error);
  during.abort(reason);
  assertStrictEquals(await failed, reason);

  const open = new AbortController();
  const { conn, peer } = await inMemory({ signal: open.signal });
  const line = conn.readLine();
  open.abort(reason);
  assertEquals(await line, null);
  const { reason: why, error } = await conn.closed;
  assertEquals([why, error], ["closed", reason]);
  await assertRejects(() => peer.readLine(), Deno.errors.ConnectionReset);
});

testOnce("a signal that outlives its connections keeps nothing of them", async () => {
  const { signal } = new AbortController();
  const heard: unknown[] = [];
  signal.addEventListener = (_type: string, listener: unknown) => void heard.push(listener);
  signal.removeEventListener = (_type: string, listener: unknown) => void heard.splice(heard.indexOf(listener), 1);
  const { conn, peer } = await inMemory({ signal });
  assertEquals(heard.length, 1);
  peer.close();
  conn.close();
  await conn.closed;
  await null;
  assertEquals(heard.length, 0);
});

testOnce("an attempt whose clock fails is over, and hears the signal no more", async () => {
  const setTimer = () => {
    throw new Error("No timer");
  };
  const aborter = new AbortController();
  const options = { dial: silent, clock: { now: () => 0, setTimer }, signal: aborter.signal };
  await assertRejects(() => connect(options), Error, "No timer");
  aborter.abort(new Error("Too late"));
  await new Promise((resolve) => setTimeout(resolve, 0));
});

testOnce("a transport that cannot become a connection is closed", async () => {
  const transport = silent();
  const odd = Object.defineProperty(transport, "remoteAddr", {
    get() {
      throw new Deno.errors.NotConnected("No address");
    },
  });
  await assertRejects(() => connect({ dial: () => odd }), Deno.errors.NotConnected, "No address");
  assertEquals(transport.closed, 1);
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

testOnce("an outgoing connection has TCP keep-alive, unless keepAliveMs is Infinity", async () => {
  for (const keepAliveMs of [undefined, Infinity]) {
    const kept: boolean[] = [];
    const transport = Object.assign(silent(), { setKeepAlive: (on: boolean) => void kept.push(on) });
    const stop = new AbortController();
    const conn = await connect({ dial: () => transport, keepAliveMs, signal: stop.signal });
    assertEquals(kept, keepAliveMs === Infinity ? [] : [true]);
    stop.abort();
    await conn.closed;
  }
});

testOnce("with connectTimeout Infinity an attempt has no timer", async () => {
  const clock = new FakeClock();
  const opening = Promise.withResolvers<Transport>();
  const opened = connect({ dial: () => opening.promise, clock, connectTimeout: Infinity });
  await clock.advance(0);
  assertEquals(clock.pending, 0);
  const listener = new MemoryListener();
  listener.connect().close();
  opening.resolve(await listener.accept());
  (await opened).close();
});

testOnce("the signal ends the attempt or the connection, whenever it aborts", async () => {
  const listener = new MemoryListener();
  for (let steps = 0; steps < 40; steps++) {
    const peer = listener.connect();
    const transport = await listener.accept();
    const stop = new AbortController();
    let dialled = false;
    const opening = connect({ dial: () => (dialled = true, transport), signal: stop.signal });
    for (let step = 0; step < steps; step++) await null;
    stop.abort("enough");
    const outcome = await opening.then(async (conn) => (await conn.closed).error, (error) => error);
    if (!dialled) transport.close();
    assertEquals([outcome, await peer.readLine().catch(() => null)], ["enough", null], `after ${steps} steps`);
    peer.close();
  }
});

testOnce("a TLS handshake that succeeds just after the attempt was given up leaves nothing open", async () => {
  const [transport, secured] = [silent(), silent()];
  const handshake = Promise.withResolvers<Transport>();
  const begun = Promise.withResolvers<void>();
  const secure = () => (begun.resolve(), handshake.promise);
  const stop = new AbortController();
  const failed = dial({ dial: () => transport, tls: { serverName: "example.org" } }, secure, stop.signal).catch(String);
  await begun.promise;
  stop.abort("enough");
  assertEquals(await failed, "enough");
  handshake.resolve(secured);
  await new FakeClock().advance(0);
  assertEquals([transport.closed > 0, secured.closed], [true, 1]);
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
