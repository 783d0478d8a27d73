import { assertEquals, assertRejects } from "@std/assert";
import { type CloseReason, type Conn, ConnectionClosedError, lineStream, type ServeOptions } from "@x/shouty";
import type { FakeClock, TestClient } from "@x/shouty/testing";
import { turn } from "../../../internal/time/event_loop.ts";
import { test } from "../../kit/bounded.ts";
import { inMemory, startConversations, startServer, type TestServer } from "../../kit/server.ts";

/** Limits, clocks and deadlines: how the peer or the handler meets each of them. */
interface Ending {
  readonly reason: CloseReason;
  readonly options?: ServeOptions;
  readonly input?: string;
  /** Milliseconds until the clock expires. */
  readonly after?: number;
  readonly read?: (conn: Conn) => Promise<unknown>;
}

const ENDINGS: readonly Ending[] = [
  { reason: "idle", options: { idleTimeout: 100, firstLineTimeout: 999 }, after: 100 },
  { reason: "first-line-timeout", options: { firstLineTimeout: 100 }, after: 100 },
  { reason: "line-timeout", options: { lineTimeout: 100 }, input: "x", after: 100 },
  { reason: "read-rate", input: "x", after: 5000, read: (conn) => conn.readExactly(9) },
  { reason: "deadline", after: 100, read: (conn) => (conn.setDeadline(100), conn.readLine()) },
  { reason: "handler-timeout", options: { handlerTimeout: 100 }, after: 100, read: untilAborted },
  { reason: "line-too-long", options: { maxLineBytes: 3 }, input: "four\n" },
  { reason: "byte-limit", options: { maxConnectionBytes: 3 }, input: "four\n" },
  { reason: "unterminated", options: { framing: { unterminated: "error" } }, input: "cut" },
  { reason: "invalid-text", options: { framing: { invalidText: "error", encoding: "utf-8" } }, input: "\xff\n" },
];

function untilAborted(conn: Conn): Promise<unknown> {
  return new Promise((resolve) => conn.signal.addEventListener("abort", resolve));
}

async function send(client: TestClient, { input, reason }: Ending, clock: FakeClock): Promise<void> {
  if (input !== undefined) await client.write(reason === "invalid-text" ? Uint8Array.of(255, 10) : input);
  if (reason === "unterminated") await client.closeWrite();
  await clock.advance(0);
}

for (const ending of ENDINGS) {
  const { reason, options = {}, after = 0, read = (conn) => conn.readLine() } = ending;

  test(`at ${reason} the input ends, the signal aborts, the handler has its say, lastWords its own, and then it closes`, async () => {
    const { listener, clock } = inMemory();
    const order: unknown[] = [];
    const done = Promise.withResolvers<void>();
    const lastWords = (why: string, limit: number) => (order.push(["lastWords", why, limit > 0]), `last: ${why}`);
    await using t = startConversations({ ...options, listener, clock, lastWords }, async (conn) => {
      conn.closed.then((event) => order.push(["closed", event.reason]));
      conn.signal.addEventListener("abort", () => order.push(["abort", conn.signal.reason, conn.ending]));
      await read(conn).catch(() => {});
      order.push(["over", conn.ending, await conn.readLine(), conn.signal.aborted]);
      await conn.write("I say\n");
      await conn.flushed();
      await done.promise;
      conn.write("goodbye\n");
    });
    const client = await t.admitted();
    await send(client, ending, clock);
    await clock.advance(after);
    assertEquals(order, [["abort", reason, reason], ["over", reason, null, true]]);
    assertEquals(await client.readLine(), "I say");
    await clock.advance(999);
    done.resolve();
    assertEquals(await client.readAll(), `goodbye\nlast: ${reason}\n`);
    await client.closeWrite().catch(() => {});
    assertEquals((await t.closed()).reason, reason);
    const hasLimit = !["unterminated", "invalid-text"].includes(reason);
    assertEquals(order.slice(2), [["lastWords", reason, hasLimit], ["closed", reason]]);
  });

  test(`at ${reason} a handler that goes on is not waited for longer than 1 s, and its later writes are refused`, async () => {
    const { listener, clock } = inMemory();
    const late = Promise.withResolvers<void>();
    const refused = Promise.withResolvers<unknown>();
    await using t = startConversations({ ...options, listener, clock, lastWords: () => "last" }, async (conn) => {
      await read(conn).catch(() => {});
      await late.promise;
      refused.resolve(await conn.write("too late\n").catch((error) => error));
      await assertRejects(() => conn.flushed(), ConnectionClosedError);
    });
    const client = await t.admitted();
    await send(client, ending, clock);
    await clock.advance(after + 999);
    assertEquals(t.all("closed"), []);
    await clock.advance(1);
    assertEquals(await client.readAll(), "last\n");
    late.resolve();
    const error = await refused.promise;
    assertEquals([error instanceof ConnectionClosedError, (error as ConnectionClosedError).reason], [true, reason]);
    await client.closeWrite().catch(() => {});
    assertEquals([(await t.closed()).reason, t.all("handler-error")], [reason, []]);
  });
}

test("a limit that conn.readable passes aborts the signal a second later, if the handler goes on", async () => {
  for (const read of [(conn: Conn) => conn.readable, (conn: Conn) => lineStream(conn.readable)]) {
    const { listener, clock } = inMemory();
    const aborted: boolean[] = [];
    await using t = startConversations({ listener, clock, maxConnectionBytes: 5 }, async (conn) => {
      await Array.fromAsync<unknown>(read(conn as Conn)).catch(() => {});
      aborted.push(conn.signal.aborted);
      await untilAborted(conn as Conn);
      aborted.push(conn.signal.aborted);
    });
    const client = await t.admitted();
    await client.write("ok\nabcdef\n");
    await clock.advance(999);
    assertEquals(aborted, [false]);
    await clock.advance(1);
    assertEquals(aborted, [false, true]);
    assertEquals(await client.readAll(), "error: more than 5 bytes from one connection\n");
    await client.closeWrite();
    assertEquals((await t.closed()).reason, "byte-limit");
  }
});

test("a reply behind a limit that conn.readable has met is not lost by a reset", async () => {
  await using t = startConversations({ maxConnectionBytes: 1000, lastWords: () => null }, async (conn) => {
    for await (const _ of conn.readable) await new Promise((resolve) => setTimeout(resolve, 400));
    await conn.write(new Uint8Array(1_000_000));
    await conn.flushed();
  });
  const client = await t.admitted();
  await client.write(`${"x".repeat(99)}\n`.repeat(11));
  await t.until("accepted");
  // What a client sends that is not read any more makes a plain close reset the connection.
  while ([...t.server.connections].some((conn) => conn.ending === undefined)) await turn();
  await client.write("more\n").catch(() => {});
  while (t.stats.bytesOut < 1_000_000) await turn();
  for (let turns = 20; turns > 0; turns--) await turn();
  assertEquals((await client.readAll()).length, 1_000_000);
  client.close();
  assertEquals((await t.closed()).reason, "byte-limit");
});

/** The ends at which the signal waits for the handler and its output. */
const QUIET: Readonly<Record<string, (t: TestServer, client: TestClient, clock: FakeClock) => unknown>> = {
  "end": (_, client) => client.closeWrite(),
  "drained": (t) => void t.server.shutdown({ drain: "finish" }),
  "max-lines": (_, client) => client.write("1\n2\n3\n"),
  "max-age": (_, __, clock) => clock.advance(1100),
  "closed": (t) => {
    for (const conn of t.server.connections) conn.close();
  },
};

for (const [reason, end] of Object.entries(QUIET)) {
  test(`at ${reason} the signal aborts once the handler and its output are done`, async () => {
    const { listener, clock } = inMemory({ bufferBytes: 8 });
    const done = Promise.withResolvers<void>();
    const over = Promise.withResolvers<void>();
    let conn: Conn;
    const options = { maxLines: 3, maxAge: 1000, writeTimeout: 60_000, idleTimeout: 60_000, lastWords: () => null };
    await using t = startConversations({ ...options, listener, clock }, async (it) => {
      conn = it;
      await conn.write("hello\n");
      for await (const _ of conn.lines);
      over.resolve();
      conn.write("the output\n").catch(() => {});
      await done.promise;
    });
    const client = await t.admitted();
    assertEquals(await client.readLine(), "hello");
    await end(t, client, clock);
    await over.promise;
    await clock.advance(0);
    assertEquals([conn!.ending, conn!.signal.aborted], [reason, false]);
    done.resolve();
    await clock.advance(0);
    if (reason !== "closed") {
      assertEquals([conn!.signal.aborted, await client.readAll()], [false, "the output\n"]);
      await clock.advance(0);
    }
    assertEquals(conn!.signal.reason, reason);
    await client.closeWrite().catch(() => {});
    assertEquals((await t.closed()).reason, reason);
  });
}

test("a line handler at work has its reply sent at a limit, and then the last line", async () => {
  const { listener, clock } = inMemory();
  const work = Promise.withResolvers<string>();
  const options = { listener, clock, lastWords: (reason: string) => reason };
  await using t = startServer(
    options,
    (line, conn) => (conn.setDeadline(100, "login"), line === "x" ? "x" : work.promise),
  );
  const client = await t.admitted();
  await client.write("x\ny\nz\n");
  await clock.advance(100);
  work.resolve("answer");
  assertEquals(await client.readAll(), "x\nanswer\ndeadline\n");
  await client.closeWrite();
  const { reason, detail } = await t.closed();
  assertEquals([reason, detail], ["deadline", "login"]);
});
