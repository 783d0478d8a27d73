import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { serve, serveConnections, type Transport } from "@x/shouty";
import { FakeClock, MemoryListener, MemoryTls, TestClient } from "@x/shouty/testing";
import { turn } from "../../internal/time/event_loop.ts";
import { test } from "../kit/bounded.ts";
import { connect, text } from "../kit/memory_ends.ts";
import { inMemory } from "../kit/server.ts";
import { countWork } from "../kit/workers/work.ts";

const { BadResource, BrokenPipe } = Deno.errors;

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

test("a TestClient says that its end has no reset, if there is none", async () => {
  const [client, { read, write, closeWrite, close }] = await connect();
  const calls = { read, write, closeWrite, close };
  const addrs = { remoteAddr: client.addr, localAddr: client.addr };
  const other = new TestClient({ ...calls, ...addrs } as Transport);
  assertThrows(() => other.reset(), TypeError, "Cannot reset: this kind of connection has no reset()");
  client.close();
});

test("a client can write while the server lingers, and gets BrokenPipe after that", async () => {
  const { clock, listener } = inMemory();
  await using server = serveConnections({ listener, clock }, (conn) => conn.close({ lastWord: "bye" }));
  using client = listener.connect();
  assertEquals([await client.readLine(), await client.readLine()], ["bye", null]);
  await client.write("too late\n");
  await clock.advance(1999);
  assertEquals(server.stats().active, 1);
  await client.write("too late\n");
  await clock.advance(1);
  assertEquals(server.stats().active, 0);
  await assertRejects(() => client.write("too late\n"), Deno.errors.BrokenPipe);
});

test("a client gets ConnectionReset for what it writes after the server has reset the connection", async () => {
  const clock = new FakeClock();
  const listener = new MemoryListener({ bufferBytes: 16 });
  await using server = serve({ listener, clock, writeTimeout: 500 });
  using client = listener.connect();
  await client.write("more than fits\ninto the buffer\n");
  await clock.advance(500);
  assertEquals(server.stats().closed["write-timeout"], 1);
  await assertRejects(() => client.write("more\n"), Deno.errors.ConnectionReset);
});
