import { assertEquals, assertInstanceOf, assertRejects, assertStrictEquals } from "@std/assert";
import { connect, connectPool, type Transport } from "@x/shouty";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { testOnce } from "../kit/bounded.ts";
import { dial } from "../../internal/client/dial.ts";
import { inMemory } from "../kit/connect.ts";
import { refusingPort } from "../kit/sockets/refusing_port.ts";

/** A transport whose reads and writes never settle, and which knows whether it is closed. */
function silent(): Transport & { closed: number } {
  const addr = { transport: "tcp", hostname: "127.0.0.1", port: 1 } as const;
  const never = () => new Promise<never>(() => {});
  return { localAddr: addr, remoteAddr: addr, read: never, write: never, closeWrite: never, close, closed: 0 };
  function close(this: { closed: number }) {
    this.closed++;
  }
}

testOnce("a server that nobody is at is named in the error", async () => {
  using refusing = await refusingPort();
  const { port } = refusing;
  const error = await assertRejects(() => connect({ port }), Deno.errors.ConnectionRefused);
  assertEquals(error.message.startsWith(`Cannot connect to 127.0.0.1:${port}: Connection refused`), true);
  assertEquals((error as Error & { code?: string }).code, "ECONNREFUSED");
  await assertRejects(() => connect({ path: "/nowhere/at/all" }), Deno.errors.NotFound, "unix:/nowhere/at/all");
  await assertRejects(() => connect({ hostname: "localhost:80", port }), URIError, "Cannot connect to [localhost:80]:");
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

testOnce("the signal of dial aborts when an attempt is given up, and not when it is done", async () => {
  const clock = new FakeClock();
  const signals: AbortSignal[] = [];
  const never = ({ signal }: { signal: AbortSignal }) => {
    signals.push(signal);
    return new Promise<never>(() => {});
  };
  const late = connect({ dial: never, clock, connectTimeout: 500 }).catch((error) => error);
  const aborter = new AbortController();
  const aborted = connect({ dial: never, clock, signal: aborter.signal }).catch((error) => error);
  const pool = connectPool({ dial: never, clock, size: 1 }, () => {});
  await clock.advance(0);
  assertEquals(signals.map(({ aborted }) => aborted), [false, false, false]);
  await clock.advance(500);
  aborter.abort("enough");
  await pool.shutdown();
  assertStrictEquals(signals[0].reason, await late);
  assertEquals([signals[1].reason, await aborted, signals[2].aborted], ["enough", "enough", true]);

  const listener = new MemoryListener();
  const conn = await connect({ dial: ({ signal }) => (signals.push(signal), listener.dial()), clock });
  conn.close();
  await conn.closed;
  assertEquals(signals[3].aborted, false);
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
