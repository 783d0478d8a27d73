import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { serve, serveConnections, type Transport } from "@x/shouty";
import { FakeClock, MemoryListener, MemoryTls, TestClient } from "@x/shouty/testing";
import { turn } from "../../internal/time/event_loop.ts";
import { test } from "../kit/bounded.ts";
import { countWork } from "../kit/workers/work.ts";

const { BadResource, BrokenPipe, Busy, ConnectionRefused, ConnectionReset, Interrupted } = Deno.errors;

/** Both ends of a connection. */
async function connect(bufferBytes?: number): Promise<[TestClient, Transport]> {
  const listener = new MemoryListener({ bufferBytes });
  const client = listener.connect();
  return [client, await listener.accept()];
}

function text(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

async function readText(end: Transport, size = 100): Promise<string | null> {
  const buffer = new Uint8Array(size);
  const count = await end.read(buffer);
  return count === null ? null : text(buffer.subarray(0, count));
}

test("a connection in memory carries bytes both ways, and each side ends by itself", async () => {
  const [client, server] = await connect();
  await client.write("ping");
  assertEquals([await readText(server, 2), await readText(server)], ["pi", "ng"]);
  await client.closeWrite();
  assertEquals(await readText(server), null);
  await server.write(new TextEncoder().encode("one\ntwo\nrest"));
  await server.closeWrite();
  await assertRejects(() => server.write(new Uint8Array(1)), BrokenPipe, "this side has ended");
  assertEquals([await client.readLine(), await client.readLine()], ["one", "two"]);
  assertEquals([await client.readAll(), await client.readLine(), await client.read()], ["rest", null, null]);
});

test("a read into nothing is no end in memory, and an unfinished last line is a line to a TestClient", async () => {
  const [client, server] = await connect();
  await client.write("hello");
  await client.closeWrite();
  assertEquals([await readText(server, 0), await readText(server), await readText(server)], ["", "hello", null]);
  await server.write(new TextEncoder().encode("last"));
  await server.closeWrite();
  assertEquals([await client.readLine(), await client.readLine()], ["last", null]);
});

test("a connection in memory takes no more than its buffer holds until it is read", async () => {
  const [client, server] = await connect(4);
  assertEquals(await server.write(new Uint8Array(10)), 4);
  let taken = false;
  const second = server.write(new Uint8Array(10)).then((count) => (taken = true, count));
  await new FakeClock().advance(1);
  assertEquals(taken, false);
  assertEquals(await client.read(), new Uint8Array(4));
  assertEquals(await second, 4);
  const whole = client.write("more than four");
  let all = "";
  while (all.length < 14) all += await readText(server);
  await whole;
  assertEquals(all, "more than four");
});

test("closing a connection in memory interrupts what is outstanding, and nothing follows", async () => {
  const [, server] = await connect(1);
  await server.write(new Uint8Array(1));
  const outstanding = [server.read(new Uint8Array(1)), server.write(new Uint8Array(1))];
  await assertRejects(() => server.read(new Uint8Array(1)), Busy);
  server.close();
  for (const operation of outstanding) await assertRejects(() => operation, Interrupted);
  await assertRejects(() => server.read(new Uint8Array(1)), BadResource);
  await assertRejects(() => server.write(new Uint8Array(1)), BadResource);
  await assertRejects(() => server.closeWrite(), BadResource);
  assertThrows(() => server.close(), BadResource);
});

test("closing a connection in memory lets the other end read what was sent, and write no more", async () => {
  const [client, server] = await connect();
  await server.write(new TextEncoder().encode("bye"));
  server.close();
  assertEquals(await client.readAll(), "bye");
  await assertRejects(() => client.write("hello?"), BrokenPipe);
  await assertRejects(() => client.read(), ConnectionReset);
});

test("closing a connection in memory with unread input destroys what was sent, as a kernel may", async () => {
  const [client, server] = await connect();
  await client.write("unread");
  await server.write(new TextEncoder().encode("lost"));
  server.close();
  await assertRejects(() => client.read(), ConnectionReset);
});

test("resetting a connection in memory fails both sides of the other end", async () => {
  const [client, server] = await connect();
  const reading = server.read(new Uint8Array(1));
  client.reset();
  await assertRejects(() => reading, ConnectionReset);
  await assertRejects(() => server.write(new Uint8Array(1)), ConnectionReset);
  await assertRejects(() => client.write("x"), BadResource);
});

test("a listener in memory refuses and resets clients when it is closed", async () => {
  const listener = new MemoryListener();
  const waiting = listener.connect();
  listener.close();
  await assertRejects(() => waiting.read(), ConnectionReset);
  assertThrows(() => listener.connect(), ConnectionRefused);
  assertThrows(() => listener.close(), BadResource);
  await assertRejects(() => listener.accept(), BadResource);
  assertThrows(() => new MemoryListener({ bufferBytes: 0 }), RangeError, "bufferBytes 0");
});

test("a listener in memory accepts one at a time, in order, each from an address of its own", async () => {
  const listener = new MemoryListener();
  const first = listener.accept();
  await assertRejects(() => listener.accept(), Busy);
  const clients = [listener.connect(), listener.connect(), listener.connect({ transport: "unix", path: "/x" })];
  const ends = [await first, await listener.accept(), await listener.accept()];
  assertEquals(ends.map((end) => (end.remoteAddr as Deno.NetAddr).port), [49_152, 49_153, undefined]);
  assertEquals(ends.map((end) => end.remoteAddr), clients.map((client) => client.addr));
  assertEquals(ends[0].localAddr, listener.addr);
  const outstanding = listener.accept();
  listener.close();
  await assertRejects(() => outstanding, BadResource);
});

test("a listener in memory takes any number of clients, and their ports begin again", () => {
  const listener = new MemoryListener();
  const ports: number[] = [];
  for (let i = 0; i <= 16_384; i++) {
    using client = listener.connect();
    ports.push((client.addr as Deno.NetAddr).port);
  }
  assertEquals([ports[0], ports.at(-2), ports.at(-1)], [49_152, 65_535, 49_152]);
  listener.close();
});

test("an end in memory tells how many of its bytes the other end has read since it was asked last", async () => {
  const [client, server] = await connect();
  assertEquals(server.progress?.(), 0);
  await server.write(new Uint8Array(10));
  await client.write("ping");
  assertEquals(server.progress?.(), 0, "What the peer has not read is no progress");
  await client.read();
  await server.read(new Uint8Array(3));
  assertEquals([server.progress?.(), server.progress?.()], [10, 0]);
  await server.write(new Uint8Array(5));
  client.reset();
  assertEquals(server.progress?.(), 0, "What a reset has destroyed was not read");
});

test("TestClient.readLine() copies and searches each byte once, however many lines there are", async () => {
  const [client, server] = await connect();
  const lines = 16_384;
  await server.write(new TextEncoder().encode("one\n".repeat(lines)));
  server.close();
  using work = countWork();
  for (let i = 0; i < lines; i++) assertEquals(await client.readLine(), "one");
  assertEquals(await client.readLine(), null);
  assertEquals([work.copied, work.searched], ["one\n".length * lines, "one\n".length * lines]);
});

test("TestClient gives each byte once, whichever way it is asked for", async () => {
  const [client, server] = await connect();
  await server.write(new TextEncoder().encode("one\ntwo\nthr"));
  assertEquals(await client.readLine(), "one");
  assertEquals(text((await client.read())!), "two\nthr");
  const line = client.readLine();
  await server.write(new TextEncoder().encode("ee\nfour\nrest"));
  assertEquals(await line, "ee");
  assertEquals(await client.readLine(), "four");
  await server.closeWrite();
  assertEquals(await client.readAll(), "rest");
});

test("FakeClock calls timers in the order of their times, even those that are set on the way", async () => {
  const clock = new FakeClock();
  const rung: string[] = [];
  const ring = (name: string) => rung.push(`${name} at ${clock.now()}`);
  clock.setTimer(() => ring("late"), 30);
  clock.setTimer(() => {
    ring("early");
    clock.setTimer(() => ring("new"), 10);
  }, 10);
  clock.setTimer(() => ring("called off"), 5)();
  assertEquals(clock.pending, 2);
  await clock.advance(25);
  assertEquals([rung, clock.now(), clock.pending], [["early at 10", "new at 20"], 25, 1]);
  await clock.advance(5);
  assertEquals(rung.at(-1), "late at 30");
  for (const delay of [20, 10]) clock.setTimer(() => ring(`after ${delay}`), delay);
  await clock.advance(30);
  assertEquals(rung.slice(-2), ["after 10 at 40", "after 20 at 50"]);
});

test("FakeClock lets what is ready run before it moves", async () => {
  const clock = new FakeClock();
  let called = false;
  Promise.resolve().then(() => Promise.resolve()).then(() => clock.setTimer(() => called = true, 10));
  await clock.advance(10);
  assertEquals(called, true);
});

test("FakeClock adds up the times of calls that come side by side", async () => {
  const clock = new FakeClock();
  const rung: number[] = [];
  for (const at of [5, 15, 35]) clock.setTimer(() => rung.push(at, clock.now()), at);
  await Promise.all([clock.advance(10), clock.advance(20), clock.advance(0)]);
  assertEquals([rung, clock.now()], [[5, 5, 15, 15], 30]);
});

test("FakeClock moves on after a timer whose callback threw", async () => {
  const clock = new FakeClock();
  clock.setTimer(() => {
    throw new Error("rung in vain");
  }, 10);
  const [first] = await Promise.allSettled([clock.advance(20), clock.advance(20)]);
  assertEquals([first.status, clock.now()], ["rejected", 30]);
});

test("FakeClock does not go back", async () => {
  const clock = new FakeClock();
  await clock.advance(10);
  for (const wrong of [-5, NaN, Infinity, "10", undefined]) {
    const error = await assertRejects(() => clock.advance(wrong as number), RangeError);
    assertMatch(error.message, /^Cannot advance by .+ ms: expected a finite number of at least 0$/);
  }
  assertEquals(clock.now(), 10);
});

test("a client needs an end of a connection, and not a promise of one", () => {
  const end = new MemoryListener().dial() as never;
  assertThrows(() => new TestClient(end), TypeError, "Cannot use end: expected an end of a connection, got a promise");
});

test("a client reads bytes and lines in any order, and fewer bytes at the server's end", async () => {
  const listener = new MemoryListener();
  await using _server = serveConnections({ listener }, (conn) => void conn.write("a line\nabcdef\0gh\nend"));
  const client = listener.connect();
  assertEquals(await client.readLine(), "a line");
  assertEquals(await client.readBytes(0), new Uint8Array());
  assertEquals(new TextDecoder().decode(await client.readBytes(7)), "abcdef\0");
  assertEquals(await client.readLine(), "gh");
  assertEquals(new TextDecoder().decode(await client.readBytes(100)), "end");
  await assertRejects(() => client.readBytes(-1), RangeError, "Cannot use count -1");
  client.close();
});

for (const [where, open] of Object.entries({ "in memory": openInMemory, "on a socket": openOnSocket })) {
  test(`${where}, the end of a side comes behind a write that waits, and the other side's answer is read`, async () => {
    const [client, server] = await open();
    const text = "0123456789\n".repeat(400_000);
    const written = client.write(text);
    const ended = client.closeWrite();
    await assertRejects(() => client.write("more"), Deno.errors.BrokenPipe);
    await server.write("hi\n");
    assertEquals(await client.readLine(), "hi");
    assertEquals(await server.readAll(), text);
    await Promise.all([written, ended]);
    await assertRejects(() => client.write("more"), Deno.errors.BrokenPipe);
    await server.write("still open\n");
    assertEquals(await client.readLine(), "still open");
    for (const end of [client, server]) end[Symbol.dispose]();
  });

  test(`${where}, a second read of a TestClient is refused, and the first one still counts for startTls`, async () => {
    const [client, server] = await open();
    const first = client.read();
    await assertRejects(() => client.read(), Deno.errors.Busy, "another read is outstanding");
    await assertRejects(() => client.startTls({ serverName: "x" }), TypeError, "a read has not settled");
    await server.write("one");
    assertEquals(new TextDecoder().decode((await first)!), "one");
    for (const end of [client, server]) end[Symbol.dispose]();
  });
}

for (const [where, open] of Object.entries({ "in memory": openInMemory, "on a socket": openOnSocket })) {
  test(`${where}, writes of a TestClient that are not awaited are sent whole, in the order of the calls`, async () => {
    const [client, server] = await open();
    const texts = ["a", "b", "c"].map((letter) => letter.repeat(4_000_000));
    const bytes = new TextEncoder().encode(texts[2]);
    const written = [...texts.slice(0, 2), bytes].map((data) => client.write(data));
    bytes.fill(0);
    const ended = client.closeWrite();
    assertEquals(await server.readAll() === texts.join(""), true);
    await Promise.all([...written, ended]);
    for (const end of [client, server]) end[Symbol.dispose]();
  });
}

test("a write and an end of a TestClient that are not awaited do no harm when they fail, and reject if they are", async () => {
  const clock = new FakeClock();
  const listener = new MemoryListener({ bufferBytes: 1024 });
  await using server = serve({ listener, clock, writeTimeout: 500 });
  using client = listener.connect();
  let unhandled = 0;
  const onUnhandled = (event: Event) => (event.preventDefault(), void unhandled++);
  globalThis.addEventListener("unhandledrejection", onUnhandled);
  try {
    client.write("hello\n".repeat(10_000));
    client.write("hello\n");
    client.closeWrite();
    await clock.advance(1000);
    assertEquals(server.stats().closed["write-timeout"], 1);
    client.close();
    client.write("hello\n");
    client.closeWrite();
    await new Promise((resolve) => setTimeout(resolve, 0));
  } finally {
    globalThis.removeEventListener("unhandledrejection", onUnhandled);
  }
  assertEquals(unhandled, 0);
  await assertRejects(() => client.write("hello\n"), BrokenPipe);
  await assertRejects(() => client.closeWrite(), BadResource);
});

test("addresses and data that are none are refused with an error that says what is allowed", async () => {
  const listener = new MemoryListener();
  const address = 'expected an address such as { transport: "tcp", hostname: "192.0.2.1", port: 5000 }';
  for (
    const [wrong, message] of [
      ["x", `Cannot use remoteAddr "x": ${address}`],
      [null, `Cannot use remoteAddr null: ${address}`],
      [{}, 'Cannot use remoteAddr.transport undefined: expected "tcp" or "udp" or "unix" or "unixpacket"'],
      [{ transport: "tcp", port: 1 }, "Cannot use remoteAddr.hostname undefined: expected a string"],
      [{ transport: "tcp", hostname: "::1", port: "1" }, 'Cannot use remoteAddr.port "1": expected a number'],
      [
        { transport: "udp", hostname: "::1", port: 65_536 },
        "Cannot use remoteAddr.port 65536: expected a whole number",
      ],
      [{ transport: "unix", path: 5 }, "Cannot use remoteAddr.path 5: expected a string"],
    ] as const
  ) assertThrows(() => listener.connect(wrong as never), Error, message);
  for (const name of ["connect options", "proxy"]) {
    const options = name === "proxy" ? { proxy: "x" } : "x";
    assertThrows(
      () => listener.connect(undefined, options as never),
      TypeError,
      `Cannot use ${name}: expected an object`,
    );
  }
  // What a kind of address consists of is checked for those that name a host or a file.
  listener.connect({ transport: "vsock", cid: 1, port: 2 }).close();
  await listener.accept();
  const noObject = "options: expected an object, got null";
  assertThrows(() => new MemoryListener(null as never), TypeError, `Cannot use MemoryListener ${noObject}`);
  assertThrows(() => new MemoryTls(null as never), TypeError, `Cannot use MemoryTls ${noObject}`);
  const client = listener.connect();
  const server = await listener.accept();
  for (const [wrong, shown] of [[5, "5"], [undefined, "undefined"], [{}, "an object"], [[1], "an array"]]) {
    const message = `Cannot write ${shown}: expected a string or a Uint8Array`;
    await assertRejects(() => client.write(wrong as never), TypeError, message);
  }
  await client.write("text");
  assertEquals(await readText(server), "text");
});

test("TLS begins behind writes of a TestClient that are not awaited", async () => {
  const listener = new MemoryListener({ bufferBytes: 4 });
  const credentials = new MemoryTls();
  await using _server = serveConnections({ listener }, async (conn) => {
    const plain = await conn.readLine();
    await conn.startTls(credentials);
    await conn.write(`${plain}, ${await conn.readLine()}\n`);
  });
  using client = listener.connect();
  client.write("plain text\n");
  await client.startTls({ credentials });
  client.write("secret\n");
  assertEquals(await client.readLine(), "plain text, secret");
  await client.closeWrite();
});

async function openInMemory(): Promise<TestClient[]> {
  const listener = new MemoryListener();
  const client = listener.connect();
  return [client, new TestClient(await listener.accept())];
}

async function openOnSocket(): Promise<TestClient[]> {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const client = await Deno.connect({ hostname: "127.0.0.1", port: listener.addr.port });
  return [new TestClient(client), new TestClient(await listener.accept())];
}

test("the time of a FakeClock never goes back, also for a timer that was due before it was set", async () => {
  const clock = new FakeClock();
  const seen: number[] = [];
  await clock.advance(10);
  clock.setTimer(() => seen.push(clock.now()), -5);
  await clock.advance(1);
  assertEquals([seen, clock.now()], [[10], 11]);
});

test("a TestClient keeps a BOM, and a character that comes in two parts", async () => {
  const [client, server] = await connect();
  const bytes = new TextEncoder().encode("\ufeff1 €\n\ufeff2 €");
  const line = client.readLine();
  for (const byte of bytes.subarray(0, 9)) await server.write(Uint8Array.of(byte)), await turn();
  assertEquals(await line, "\ufeff1 €");
  const rest = client.readAll();
  for (const byte of bytes.subarray(9)) await server.write(Uint8Array.of(byte)), await turn();
  server.close();
  assertEquals(await rest, "\ufeff2 €");
  client.close();
});

test("without an option, each direction of a connection in memory holds 64 KiB", async () => {
  const [client, server] = await connect();
  assertEquals(await server.write(new Uint8Array(100_000)), 65_536);
  client.close();
});

test("a TestClient says that its end has no reset, if there is none", async () => {
  const [client, { read, write, closeWrite, close }] = await connect();
  const calls = { read, write, closeWrite, close };
  const addrs = { remoteAddr: client.addr, localAddr: client.addr };
  const other = new TestClient({ ...calls, ...addrs } as Transport);
  assertThrows(() => other.reset(), TypeError, "Cannot reset: this kind of connection has no reset()");
  client.close();
});
