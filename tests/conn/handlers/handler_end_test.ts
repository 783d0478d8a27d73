import { assertEquals, assertRejects } from "@std/assert";
import {
  type Conn,
  connect,
  type ConnHandler,
  lineStream,
  serveConnections,
  type ServeOptions,
  type ServerEvent,
} from "@x/shouty";
import { test } from "../../kit/bounded.ts";
import { inMemory, startConversations, startServer } from "../../kit/server.ts";

/** Serves one client that sends and reads nothing until the connection ends, and returns how it ended. */
async function endings(handler: ConnHandler): Promise<string[]> {
  const told: string[] = [];
  const { promise: over, resolve } = Promise.withResolvers<void>();
  const onEvent = (event: ServerEvent) => {
    if (event.type === "handler-error") told.push(`handler-error: ${event.error}`);
    if (event.type === "closed") told.push(event.reason);
  };
  await using server = serveConnections({ hostname: "127.0.0.1", port: 0, writeTimeout: 50, onEvent }, async (conn) => {
    try {
      await handler(conn);
    } finally {
      resolve();
    }
  });
  using _client = await Deno.connect({ port: (server.addr as Deno.NetAddr).port });
  await over;
  await server.shutdown();
  return told;
}

Deno.test("a handler that writes to a connection that is being closed has not failed", async () => {
  const told = await endings(async (conn) => {
    // More than the kernel takes, so that the graceful close is not over at once.
    conn.write("x".repeat(32 * 1024 * 1024));
    conn.close();
    await conn.write("Too late.\n");
  });
  assertEquals(told, ["write-timeout"]);
});

Deno.test("a handler that its connection's signal interrupts has not failed", async () => {
  const told = await endings(async (conn) => {
    const { promise: called, reject } = Promise.withResolvers<never>();
    conn.signal.addEventListener("abort", () => reject(conn.signal.reason));
    conn.write("x".repeat(32 * 1024 * 1024));
    await called;
  });
  assertEquals(told, ["write-timeout"]);
});

/** Serves one client in memory that sends something and ends its side; returns the events that tell of the end. */
async function told(input: string, handler: ConnHandler, options: ServeOptions = {}): Promise<string[]> {
  await using t = startConversations({ ...inMemory(), ...options }, handler);
  await t.talk(input);
  const { reason } = await t.closed();
  return [...t.all("handler-error").map(({ error }) => `${error}`), reason];
}

test("a handler that fails with any of the errors that its reads gave at the end has not failed", async () => {
  const again = async (conn: Conn) => {
    try {
      await conn.readExactly(10);
    } catch (error) {
      await conn.readUntil("|").catch(() => {});
      throw error;
    }
  };
  assertEquals(await told("abc", again), ["end"]);
  const own = () => Promise.reject(new Deno.errors.UnexpectedEof("its own"));
  assertEquals(await told("abc", own), ["UnexpectedEof: its own", "handler-error"]);
});

test("a handler that throws undefined has failed", async () => {
  assertEquals(await told("abc", () => Promise.reject(undefined)), ["undefined", "handler-error"]);
});

test("a limit that the read of another connection has passed says nothing about this one", async () => {
  await using other = startConversations({}, (conn) => conn.write("abcd;"));
  const asks = async () => {
    await using conn = await connect({ port: other.port });
    await conn.readUntil(";", { maxBytes: 3 });
  };
  assertEquals(await told("", asks), ["LimitError: Data of one read longer than maxBytes, 3 bytes", "handler-error"]);
  const own = async (conn: Conn) => void await conn.readUntil(";", { maxBytes: 3 });
  assertEquals(await told("abcd;", own), ["read-too-long"]);
});

test("a line of another connection that is too long for lineStream says nothing about this one", async () => {
  const limits = { maxLineBytes: 3 };
  await using other = startConversations({}, (conn) => conn.write("abcd\n"));
  const passes = async (pass: (lines: ReadableStream<string>) => Promise<unknown>) => {
    await using conn = await connect({ port: other.port });
    await pass(lineStream(conn.readable, limits));
  };
  const reads = () => passes((lines) => Array.fromAsync(lines));
  assertEquals(await told("", reads), ["LimitError: Line longer than 3 bytes", "handler-error"]);
  await using piping = startConversations(
    inMemory(),
    (conn) => passes((lines) => lines.pipeTo(conn.writable)),
  );
  // An output that breaks off ends with a reset.
  await assertRejects(() => piping.talk(""), Deno.errors.ConnectionReset);
  assertEquals((await piping.closed()).reason, "closed");
  const own = (conn: Conn) => lineStream(conn.readable, limits).pipeTo(conn.writable);
  assertEquals(await told("abcd\n", own), ["line-too-long"]);
});

test("a handler that its connection's finishing interrupts has not failed", async () => {
  await using t = startConversations({ drain: "finish" }, async (conn) => {
    for (;;) await conn.write(await conn.readExactly(4, { signal: conn.finishing }));
  });
  const client = await t.connect();
  await client.write("ping");
  assertEquals(new TextDecoder().decode(await client.readBytes(4)), "ping");
  assertEquals((await t.server.shutdown()).closed, { drained: 1 });
  assertEquals(t.all("handler-error"), []);
});

test("of several calls of close the first counts, and ending tells of it at once", async () => {
  const seen: unknown[] = [];
  const close = (conn: Conn) => {
    conn.close({ lastWord: "bye", detail: "first" });
    seen.push(conn.ending);
    conn.close({ lastWord: "later", detail: "second" });
    conn.close();
  };
  await using lines = startServer(inMemory(), (line, conn) => (close(conn), line));
  assertEquals([await lines.talk("a\n"), (await lines.closed()).detail], ["a\nbye\n", "first"]);
  await using conversation = startConversations(inMemory(), close);
  assertEquals([await conversation.talk("a\n"), (await conversation.closed()).detail], ["bye\n", "first"]);
  assertEquals(seen, ["closed", "closed"]);
});
