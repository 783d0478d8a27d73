import { assertEquals, assertGreater, assertInstanceOf, assertLess, assertRejects, assertThrows } from "@std/assert";
import type { Listener, Transport } from "@x/shouty";
import { listenEpoll, listenFd } from "@x/shouty/ops";
import { askNow, socketsTurn } from "../../../internal/time/event_loop.ts";
import { broken, disposable, LOOPBACK, pair, RawPeer, readText, test } from "../../kit/sockets/epoll_peers.ts";
import { plainFd } from "../../kit/sockets/fd.ts";

const { ConnectionReset } = Deno.errors;

/** Writes until the kernel has no room; returns the number of bytes sent, and the write that waits. */
async function fill(transport: Transport): Promise<{ sent: number; writing: Promise<number> }> {
  const bytes = new Uint8Array(1024 * 1024);
  for (let sent = 0;;) {
    let settled = false;
    const writing = transport.write(bytes);
    writing.then(() => settled = true, () => {});
    await Promise.resolve();
    if (!settled) return { sent, writing };
    sent += await writing;
  }
}

test("what the peer's side takes on epoll is progress once, from the moment on at which a write waits", async () => {
  using listener = disposable(listenEpoll(LOOPBACK));
  const [client, transport] = await pair(listener);
  const { sent, writing } = await fill(transport);
  // The bytes that the kernel has moved into the peer's buffer since the write began to wait.
  let progress = transport.progress!();
  const inBuffers = sent;
  const ended = writing.then((last) => transport.closeWrite().then(() => last));
  let read = 0;
  for (let bytes; (bytes = await client.read()) !== null;) read += bytes.length;
  const total = sent + await ended;
  assertEquals(read, total);
  for (let last = -1; last !== progress;) {
    last = progress;
    await socketsTurn();
    progress += transport.progress!();
  }
  // The peer's kernel had taken some of the bytes before.
  assertLess(progress, total);
  assertGreater(progress, total - inBuffers);
  assertEquals(transport.progress!(), 0);
  for (const end of [transport, client]) end.close();
  assertEquals(transport.progress!(), 0);
});

test("a write that waits goes on, asked for progress, long before the kernel calls the socket writable", async () => {
  using listener = disposable(listenEpoll(LOOPBACK));
  const peer = new RawPeer((listener.addr as Deno.NetAddr).port);
  const transport = await listener.accept();
  const { sent, writing } = await fill(transport);
  let settled = false;
  writing.then(() => settled = true);
  let taken = 0;
  let progress = 0;
  while (!settled) {
    taken += peer.receive(16 * 1024);
    await socketsTurn();
    progress += transport.progress!();
    await Promise.resolve();
  }
  assertGreater(progress, 0);
  // The kernel would have waited until a third of its buffer was free.
  assertLess(taken, sent / 16);
  peer.close();
  transport.close();
});

test("a connection that is closed on epoll while input is unread has a clean end for its peer", async () => {
  using listener = disposable(listenEpoll(LOOPBACK));
  const [client, transport] = await pair(listener);
  await client.write(new TextEncoder().encode("never read"));
  await socketsTurn();
  await transport.write(new TextEncoder().encode("all"));
  transport.close();
  for (let turns = 3; turns > 0; turns--) await socketsTurn();
  assertEquals(await client.readAll(), "all");
  client.close();
});

test("a connection that is reset on epoll is no clean end for its peer, as a closed one is", async () => {
  using listener = disposable(listenEpoll(LOOPBACK));
  for (const how of ["reset", "close"] as const) {
    const [client, transport] = await pair(listener);
    await transport.write(new TextEncoder().encode("half an answ"));
    assertEquals(new TextDecoder().decode((await client.read())!), "half an answ");
    transport[how]!();
    if (how === "close") assertEquals(await client.read(), null);
    else await assertRejects(() => client.read(), ConnectionReset);
    assertThrows(() => transport[how]!(), Deno.errors.BadResource);
    client.close();
  }
});

test("a connection that was reset before it is accepted has no address on epoll, as on Deno's sockets", async () => {
  for (const listener of [listenEpoll(LOOPBACK), Deno.listen(LOOPBACK)]) {
    const peer = new RawPeer((listener.addr as Deno.NetAddr).port);
    peer.reset();
    await assertRejects(async () => await transportWithAddress(listener), Deno.errors.NotConnected);
    const [client, transport] = await pair(listener);
    for (const end of [client, transport, listener]) end.close();
  }
});

/** Accepts as the server does, which closes a connection that has no address. */
async function transportWithAddress(listener: Listener): Promise<void> {
  const transport = await listener.accept();
  try {
    transport.remoteAddr;
  } finally {
    transport.close();
  }
}

/** The errors with which a transport calls `onReset`. */
function resetsOf(transport: Transport): unknown[] {
  const told: unknown[] = [];
  transport.onReset!((error) => told.push(error));
  return told;
}

test("a peer that resets is noticed on epoll although nothing is read or written, once", async () => {
  using listener = disposable(listenEpoll(LOOPBACK));
  let told: unknown[] = [];
  const transport = await broken(listener, (transport) => {
    told = resetsOf(transport);
    return Promise.resolve();
  });
  while (told.length === 0) await socketsTurn();
  assertInstanceOf(told[0], ConnectionReset);
  await assertRejects(() => readText(transport), ConnectionReset);
  assertEquals(await readText(transport), null);
  await socketsTurn();
  assertEquals(told.length, 1);
  transport.close();
});

test("input before a reset is read before its error, and onReset is called at once if the reset came first", async () => {
  using listener = disposable(listenEpoll(LOOPBACK));
  const transport = await broken(listener, () => Promise.resolve(), "last words");
  await socketsTurn();
  const told = resetsOf(transport);
  await socketsTurn();
  assertEquals(told.length, 1);
  assertEquals(await readText(transport), "last words");
  await assertRejects(() => readText(transport), ConnectionReset);
  assertEquals(await readText(transport), null);
  transport.close();
});

test("onReset is not called for a reset that a read meets, for an end, or for a reset after a close", async () => {
  using listener = disposable(listenEpoll(LOOPBACK));
  const told: unknown[][] = [];
  let reading: Promise<unknown>;
  const read = await broken(listener, (transport) => {
    told.push(resetsOf(transport));
    reading = assertRejects(() => readText(transport), ConnectionReset);
    return Promise.resolve();
  });
  await reading!;
  const [client, ended] = await pair(listener);
  told.push(resetsOf(ended));
  await client.closeWrite();
  await socketsTurn();
  const peer = new RawPeer((listener.addr as Deno.NetAddr).port);
  const closed = await listener.accept();
  told.push(resetsOf(closed));
  peer.reset();
  askNow();
  closed.close();
  await socketsTurn();
  assertEquals(told, [[], [], []]);
  for (const end of [read, ended, client]) end.close();
});

test("input that the kernel has is read when epoll is asked, on however many sockets, without a turn of the loop", async () => {
  // Ends a poller first: it must not ask any more, because the new one may have got its descriptors.
  await listenEpoll(LOOPBACK).close();
  using listener = disposable(listenEpoll(LOOPBACK));
  const pairs: [RawPeer, Transport][] = [];
  // One call to the kernel tells of 64.
  while (pairs.length < 150) {
    pairs.push([new RawPeer((listener.addr as Deno.NetAddr).port), await listener.accept()]);
  }
  await socketsTurn();
  let read = 0;
  const reading = pairs.map(([, transport]) => readText(transport).then((text) => read += Number(text === "hello")));
  for (const [peer] of pairs) peer.send("hello");
  askNow();
  for (let steps = 0; steps < 5; steps++) await undefined;
  assertEquals(read, pairs.length);
  await Promise.all(reading);
  for (const end of pairs.flat()) end.close();
});

const [SOL_SOCKET, SO_KEEPALIVE] = [1, 9];
const [IPPROTO_TCP, TCP_NODELAY, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT] = [6, 1, 4, 5, 6, 18];

/** A connection's socket options: Nagle's algorithm and keep-alive. */
async function optionsOf(listener: Listener): Promise<number[]> {
  const peer = new RawPeer((listener.addr as Deno.NetAddr).port);
  const transport = await listener.accept();
  const fd = peer.otherEnd();
  const tcp = [TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT, TCP_NODELAY];
  const options = [peer.option(fd, SOL_SOCKET, SO_KEEPALIVE)];
  options.push(...tcp.map((name) => peer.option(fd, IPPROTO_TCP, name)));
  peer.close();
  transport.close();
  return options;
}

test("connections on epoll have Nagle's algorithm off, and keep-alive on as keepAliveMs says", async () => {
  const cases: [number | undefined, number[]][] = [
    [undefined, [1, 15, 15, 3, 60_000, 1]],
    [1000, [1, 1, 1, 3, 4000, 1]],
    [1001, [1, 2, 2, 3, 8000, 1]],
    [32_767_000, [1, 32_767, 32_767, 3, 131_068_000, 1]],
  ];
  for (const [keepAliveMs, expected] of cases) {
    using listener = disposable(listenEpoll({ ...LOOPBACK, keepAliveMs }));
    assertEquals(await optionsOf(listener), expected);
  }
  using listener = disposable(listenEpoll({ ...LOOPBACK, keepAliveMs: Infinity }));
  const [keptAlive, , , , userTimeout, noDelay] = await optionsOf(listener);
  assertEquals([keptAlive, userTimeout, noDelay], [0, 0, 1]);
});

test("a socket of another process gets what those of epoll have, whatever it was like", async () => {
  const fd = plainFd();
  const flags = () => parseInt(/flags:\s*(\d+)/.exec(Deno.readTextFileSync(`/proc/self/fdinfo/${fd}`))![1], 8);
  const [NONBLOCK, CLOEXEC] = [0o4000, 0o2000000];
  assertEquals(flags() & (NONBLOCK | CLOEXEC), 0);
  using listener = disposable(listenFd({ fd, engine: "epoll", keepAliveMs: 2000 }));
  assertEquals(flags() & (NONBLOCK | CLOEXEC), NONBLOCK | CLOEXEC);
  assertEquals(await optionsOf(listener), [1, 2, 2, 3, 8000, 1]);
});
