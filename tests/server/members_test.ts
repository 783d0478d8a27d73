import { assertEquals, assertThrows } from "@std/assert";
import { type Conn, connect, serve, serveConnections, type Server } from "@x/shouty";
import type { TestClient } from "@x/shouty/testing";
import { turn } from "../../internal/time/event_loop.ts";
import { test } from "../kit/bounded.ts";
import { inMemory, startConversations, startServer, type TestServer } from "../kit/server.ts";

const FAILURE = new Error("No data today");

/** Answers lines, and waits for the end. */
async function echo(conn: Conn): Promise<void> {
  for await (const line of conn.lines) await conn.write(`${line}\n`);
}

test("data is made once per connection, before the handler, and is what conn.data holds in every kind of handler", async () => {
  let made = 0;
  const data = (
    conn: Conn<{ name: string }>,
  ) => (made++, { name: `${conn.id} at ${(conn.remoteAddr as Deno.NetAddr).hostname}` });
  const reply = (line: string, conn: Conn<{ name: string }>) => `${line} ${conn.data.name}`;
  const block = (lines: string, conn: Conn<{ name: string }>) => lines.replaceAll("\n", ` ${conn.data.name}\n`);
  const listeners = [inMemory(), inMemory(), inMemory()];
  const servers: Server<{ name: string }>[] = [
    serve({ ...listeners[0], data }, reply),
    serve({ ...listeners[1], data }, Object.assign(reply.bind(null), { block })),
    serveConnections({ ...listeners[2], data }, async (conn) => {
      for await (const line of conn.lines) await conn.write(`${reply(line, conn)}\n`);
    }),
  ];
  for (const [i, { listener }] of listeners.entries()) {
    using client = listener.connect();
    await client.write("hello\nagain\n");
    await client.closeWrite();
    assertEquals(await client.readAll(), "hello 1 at 127.0.0.1\nagain 1 at 127.0.0.1\n");
    assertEquals(made, i + 1);
  }
  await Promise.all(servers.map((server) => server.shutdown()));
});

for (const kind of ["conversation", "line handler"]) {
  test(`data that throws is a handler-error: the ${kind} is not called, and other connections are served`, async () => {
    let called = 0;
    const data = (conn: Conn): undefined => {
      if (conn.id === 1) throw FAILURE;
    };
    const options = { ...inMemory(), data, lastWords: (reason: string) => reason };
    await using t = kind === "conversation"
      ? startConversations(options, (conn) => (called++, echo(conn)))
      : startServer(options, (line) => (called++, line));
    assertEquals(await t.talk("x\n"), "handler-error\n");
    const { reason, error } = await t.closed();
    assertEquals([reason, error, t.all("handler-error").length, called], ["handler-error", FAILURE, 1, 0]);
    assertEquals(await t.talk("fine\n"), "fine\n");
  });
}

test("a loop over server.connections that waits visits each connection once, although others end meanwhile", async () => {
  await using t = startServer(inMemory());
  const clients: TestClient[] = [];
  for (let i = 0; i < 5; i++) clients.push(await t.admitted());
  const visited: number[] = [];
  for (const { id } of t.server.connections) {
    visited.push(id);
    if (visited.length === 1) await clients[1].closeWrite(), await t.closed();
  }
  assertEquals(visited.toSorted(), [1, 2, 3, 4, 5]);
});

test("data may write, close, and change limits and framing, and does not see the connection among the others", async () => {
  const server: { t?: TestServer } = {};
  const data = (conn: Conn): undefined => {
    conn.setFraming({ lineEnd: { delimiter: ";" } });
    conn.setLimits({ maxLineBytes: 3 });
    conn.write("welcome;");
    assertEquals([...server.t!.server.connections], []);
    if (conn.id === 2) conn.close({ lastWord: "full" });
  };
  await using t = server.t = startServer({ ...inMemory(), data }, (line) => line);
  assertEquals(await t.talk("one;four;"), "welcome;one;error: line longer than 3 bytes;");
  assertEquals(await t.talk("one;"), "welcome;full;");
  assertEquals(t.all("handler-error"), []);
});

test("each connection in server.connections has its data, also while that of another is made or could not be made", async () => {
  const names = (): string[] => Array.from(server.connections, (conn) => conn.data.name);
  const data = (conn: Conn<never>): { name: string } => {
    if (conn.id === 2) throw FAILURE;
    return { name: `${conn.id} after ${names()}` };
  };
  const { listener } = inMemory();
  const options = { listener, data, lastWords: (reason: string) => reason };
  await using server: Server<{ name: string }> = serve(options, () => names().toSorted().join(" | "));
  using first = listener.connect();
  await first.write("x\n");
  assertEquals(await first.readLine(), "1 after ");
  using second = listener.connect();
  assertEquals(await second.readLine(), "handler-error");
  assertEquals(server.stats().active, 2);
  using third = listener.connect();
  await third.write("x\n");
  assertEquals(await third.readLine(), "1 after  | 3 after 1 after ");
});

test("data may be a promise: what it rejects with is the error of the handler that awaits it, and of no one else", async () => {
  const { listener } = inMemory();
  const data = (conn: Conn<never>) => conn.id === 3 ? Promise.resolve("Ada") : Promise.reject(FAILURE);
  const options = { listener, data, lastWords: (reason: string) => reason };
  await using _server = serve(options, async (line, conn) => line === "hello" ? await conn.data : line);
  using _silent = listener.connect();
  for (const expected of ["handler-error", "Ada"]) {
    await turn();
    using client = listener.connect();
    await client.write("hello\n");
    assertEquals(await client.readLine(), expected);
  }
  const dial = () => listener.dial();
  const conn = await connect({ dial, data: () => Promise.reject(FAILURE) });
  await turn();
  await conn[Symbol.asyncDispose]();
});

test("server.connections has those that are open at each iteration, as the objects that their handlers get", async () => {
  const handled: Conn[] = [];
  await using t = startConversations(inMemory(), (conn) => (handled.push(conn), echo(conn)));
  const { connections } = t.server;
  assertEquals([...connections], []);
  const clients = [await t.admitted(), await t.admitted(), await t.admitted()];
  assertEquals(new Set(connections), new Set(handled));
  handled[1].close();
  await clients[1].closeWrite();
  await t.closed();
  assertEquals(new Set(connections), new Set([handled[0], handled[2]]));
  // One that ends while they are visited does not hide another.
  const seen: Conn<unknown>[] = [];
  for (const conn of connections) seen.push(conn), handled[2].close(), await clients[2].closeWrite(), await t.closed(2);
  assertEquals(new Set(seen), new Set([handled[0], handled[2]]));
});

async function read(client: TestClient): Promise<number[]> {
  const parts: number[] = [];
  for (let bytes = await client.read(); bytes !== null; bytes = await client.read()) parts.push(...bytes);
  return parts;
}

test("broadcast writes to all connections but one, and what a member's encoding does not have reaches the others", async () => {
  const conns: Conn[] = [];
  await using t = startConversations(inMemory(), (conn) => {
    conns.push(conn);
    if (conn.id === 2) conn.setFraming({ encoding: "latin1" });
    return echo(conn);
  });
  const clients = [await t.admitted(), await t.admitted(), await t.admitted()];
  t.server.broadcast("é\n", { except: conns[2] });
  t.server.broadcast("€\n");
  t.server.broadcast(Uint8Array.of(0xff));
  for (const wrong of [5, null, undefined, {}]) {
    assertThrows(() => t.server.broadcast(wrong as never), TypeError, "Cannot write");
  }
  const wrong = () => t.server.broadcast("not sent", { except: conns[0].id as never });
  assertThrows(wrong, TypeError, "Cannot use except: expected an object, got 1");
  for (const client of clients) await client.closeWrite();
  assertEquals(await Promise.all(clients.map(read)), [
    [0xc3, 0xa9, 10, 0xe2, 0x82, 0xac, 10, 0xff],
    [0xe9, 10, 0xff],
    [0xe2, 0x82, 0xac, 10, 0xff],
  ]);
  assertEquals([t.all("handler-error"), t.stats.hookErrors], [[], 0]);
});

test("broadcast cuts a member off that takes nothing, and holds up no other", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 1000 });
  await using t = startConversations({ listener, clock, maxQueuedBytes: 10_000 }, echo);
  const slow = await t.admitted();
  const quick = await t.admitted();
  let got = 0;
  const reading = (async () => {
    for (let bytes = await quick.read(); bytes !== null; bytes = await quick.read()) got += bytes.length;
  })();
  for (let i = 0; i < 20; i++) {
    t.server.broadcast("x".repeat(900));
    for (let turns = 0; turns < 100 && got < (i + 1) * 900; turns++) await turn();
  }
  assertEquals([(await t.closed()).reason, got], ["write-queue", 18_000]);
  await quick.closeWrite();
  await reading;
  slow.close();
  assertEquals((await t.closed(2)).reason, "end");
});

test("broadcast reaches clients of line handlers, and passes over connections that are ending", async () => {
  await using t = startServer(inMemory(), (line, conn) => {
    if (line === "quit") conn.close();
    t.server.broadcast(`someone says ${line}\n`, { except: conn });
    return "ok";
  });
  const clients = [await t.admitted(), await t.admitted()];
  await clients[0].write("quit\n");
  assertEquals(await clients[0].readAll(), "ok\n");
  await clients[1].write("still here\n");
  await clients[1].closeWrite();
  assertEquals(await clients[1].readAll(), "someone says quit\nok\n");
});
