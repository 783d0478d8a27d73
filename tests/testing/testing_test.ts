import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { Buffer } from "node:buffer";
import { FakeClock, MemoryListener, MemoryTls } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";
import { connect, readText } from "../kit/memory_ends.ts";

const { BadResource, BrokenPipe, Busy, ConnectionRefused, ConnectionReset, Interrupted } = Deno.errors;

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

test("bytes that were written in memory, or are being written, may be changed, also those of a Buffer", async () => {
  const [client, server] = await connect();
  for (const bytes of [new TextEncoder().encode("ping"), Buffer.from("ping")]) {
    const first = client.write("first ");
    const second = client.write(bytes);
    bytes.fill(0);
    await Promise.all([first, second]);
    assertEquals(await readText(server), "first ping");
    bytes.set(new TextEncoder().encode("pong"));
    await server.write(bytes);
    bytes.fill(0);
    assertEquals(new TextDecoder().decode((await client.read())!), "pong");
  }
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

test("without an option, each direction of a connection in memory holds 64 KiB", async () => {
  const [client, server] = await connect();
  assertEquals(await server.write(new Uint8Array(100_000)), 65_536);
  client.close();
});
