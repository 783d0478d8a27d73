import { assert, assertEquals, assertRejects } from "@std/assert";
import { type Conn, ConnectionClosedError, type ConnHandler, type ServeOptions } from "@x/shouty";
import { turn } from "../../../internal/time/event_loop.ts";
import { test } from "../../kit/bounded.ts";
import { inMemory, startConversations, startServer, type TestServer } from "../../kit/server.ts";

/** Calls on a connection that a hook or a listener may make at any moment. */
const CALLS: Readonly<Record<string, (conn: Conn) => unknown>> = {
  "close": (conn) => conn.close({ lastWord: "bye", detail: "by the hook" }),
  "setFraming": (conn) => conn.setFraming({ lineEnd: "crlf", encoding: "latin1" }),
  "setLimits": (conn) => conn.setLimits({ maxAge: 5, maxLines: 1, idleTimeout: 5, maxLinesPerSecond: 1 }),
  "setDeadline": (conn) => conn.setDeadline(1),
  "write": (conn) => conn.write("more\n"),
  "closeWrite": (conn) => void conn.closeWrite(),
  "flushed": (conn) => void conn.flushed(),
  "readLine": (conn) => conn.readLine().catch(() => {}),
  "readExactly": (conn) => conn.readExactly(1).catch(() => {}),
  "readStream": (conn) => {
    if (!conn.signal.aborted) conn.readStream(9);
  },
  "readable": (conn) => conn.readable.cancel(),
  "abort writable": (conn) => conn.writable.abort().catch(() => {}),
  "dispose": (conn) => void conn[Symbol.asyncDispose](),
};

/** What ends a connection of a conversation that reads lines. */
const ENDS: Readonly<Record<string, ServeOptions & { input: string }>> = {
  "line-too-long": { maxLineBytes: 3, input: "seven" },
  "byte-limit": { maxConnectionBytes: 3, input: "seven" },
  "invalid-text": { framing: { invalidText: "error", lineEnd: { delimiter: "\n" } }, input: "\ud800\n" },
  "idle": { idleTimeout: 10, firstLineTimeout: 20, input: "" },
  "end": { input: "" },
};

for (const [what, call] of Object.entries(CALLS)) {
  test(`a listener of conn.signal, lastWords, and onEvent may call ${what} at any end, and the reason stays`, async () => {
    for (const [reason, { input, ...options }] of Object.entries(ENDS)) {
      for (const where of ["signal", "lastWords", "finishing", "onEvent", "closed"]) {
        const { listener, clock } = inMemory();
        let conn: Conn | undefined;
        const called = (here: string) => {
          if (here === where && conn !== undefined) call(conn);
        };
        await using t = startConversations({
          ...{ ...options, listener, clock },
          lastWords: () => (called("lastWords"), "last"),
          onEvent: ({ type }) => type === "closed" ? called("onEvent") : undefined,
        }, async (it) => {
          conn = it;
          conn.signal.addEventListener("abort", () => called("signal"));
          conn.finishing.addEventListener("abort", () => called("finishing"));
          conn.closed.then(() => called("closed"));
          for await (const _ of conn.lines);
        });
        const client = await t.admitted();
        if (reason === "invalid-text") await client.write(Uint8Array.of(0xff, 10));
        else await client.write(input);
        if (reason === "end") await client.closeWrite();
        await clock.advance(10);
        await client.closeWrite().catch(() => {});
        await clock.advance(2000);
        const event = await t.closed();
        assertEquals(event.reason, reason, `${where} at ${reason}`);
        assertEquals([t.all("handler-error"), t.stats.hookErrors], [[], 0], `${where} at ${reason}`);
        await clock.advance(100_000);
      }
    }
  });

  test(`data may call ${what}, in both kinds of handlers, and the server goes on`, async () => {
    for (const start of [startConversations, startServer]) {
      const { listener, clock } = inMemory();
      const data = (conn: Conn): undefined => void (conn.id === 1 && callSafely(call, conn));
      await using t = start(
        { listener, clock, data } as ServeOptions,
        ((first: unknown) => typeof first === "string" ? first : echo(first as Conn)) as never,
      );
      const client = await t.connect();
      await client.write("hello\n").catch(() => {});
      await client.closeWrite().catch(() => {});
      await client.readAll().catch(() => "");
      for (let i = 0; i < 10; i++) await clock.advance(2000);
      await t.closed();
      assertEquals(await t.talk("fine\n"), "fine\n");
    }
  });
}

/** In a line handler every read throws. */
function callSafely(call: (conn: Conn) => unknown, conn: Conn): void {
  try {
    call(conn);
  } catch (error) {
    assert(error instanceof TypeError);
  }
}

async function echo(conn: Conn): Promise<void> {
  try {
    for await (const line of conn.lines) await conn.write(`${line}\n`);
  } catch (error) {
    // A read of `data` has not settled, or this side has ended.
    assert(error instanceof TypeError || error instanceof ConnectionClosedError);
  }
}

/** Ways in which a handler passes on the error that the end of its connection gave it. */
const PASSED_ON: Readonly<Record<string, ConnHandler>> = {
  "readExactly": (conn) => conn.readExactly(100).then(() => {}),
  "readUntil": (conn) => conn.readUntil("\0").then(() => {}),
  "a body": async (conn) => void await new Response(conn.readStream(100)).bytes(),
  "a body that is piped": (conn) => conn.readStream(100).pipeTo(new WritableStream()),
  "a read with conn.signal": (conn) => conn.readExactly(100, { signal: conn.signal }).then(() => {}),
  "conn.signal in a pipe": (conn) => conn.readStream(100).pipeTo(new WritableStream(), { signal: conn.signal }),
};

for (const [what, handler] of Object.entries(PASSED_ON)) {
  test(`a handler that passes on the error of ${what} has not failed: the reason is that of the end`, async () => {
    for (const reason of ["end", "idle", "deadline", "byte-limit", "read-rate"] as const) {
      const { listener, clock } = inMemory();
      const options = { listener, clock, idleTimeout: reason === "idle" ? 1000 : 60_000, maxConnectionBytes: 50 };
      await using t = startConversations(options, (conn) => {
        if (reason === "deadline") conn.setDeadline(1000);
        return handler(conn);
      });
      const client = await t.admitted();
      await client.write("x".repeat(reason === "byte-limit" ? 60 : 1));
      if (reason === "end") await client.closeWrite();
      for (let i = 0; i < 10; i++) await clock.advance(1000);
      assertEquals([(await t.closed()).reason, t.all("handler-error")], [reason, []]);
    }
  });
}

test("a handler that ignores everything loses its connection all the same, and is counted until it settles", async () => {
  const { listener, clock } = inMemory();
  const done = Promise.withResolvers<void>();
  await using t: TestServer = startConversations({ listener, clock, maxAge: 1000 }, () => done.promise);
  const client = await t.admitted();
  await client.write("x".repeat(1000));
  await clock.advance(1100 + 10_000);
  await clock.advance(2000);
  assertEquals([(await t.closed()).reason, t.stats.handlers, t.stats.active], ["max-age", 1, 0]);
  done.resolve();
  await turn();
  assertEquals(t.stats.handlers, 0);
});

test("after the end every read says so at once, in any order, and streams end or fail", async () => {
  const { t, conn } = await ended();
  await using _ = t;
  for (let round = 0; round < 2; round++) {
    assertEquals([await conn.readLine(), await conn.readUntil("x")], [null, null]);
    assertEquals([(await conn.lines.next()).done, (await conn.batches.next()).done], [true, true]);
    await assertRejects(() => conn.readExactly(1), Deno.errors.UnexpectedEof);
    await assertRejects(() => new Response(conn.readStream(1)).bytes(), Deno.errors.UnexpectedEof);
    assertEquals(await new Response(conn.readStream(0)).text(), "");
    const reader = conn.readable.getReader();
    assertEquals((await reader.read()).done, true);
    reader.releaseLock();
    await assertRejects(() => conn.write("x"), ConnectionClosedError);
    conn.close();
    await conn.closeWrite();
    await conn[Symbol.asyncDispose]();
  }
  await conn.readStream(5).cancel();
  assertEquals([await conn.readLine(), conn.ending, conn.signal.reason], [null, "end", "end"]);
});

async function ended(): Promise<{ t: TestServer; conn: Conn }> {
  let conn: Conn;
  const t = startConversations(inMemory(), async (it) => {
    conn = it;
    for await (const _ of conn.lines);
  });
  await t.talk("one\ntwo");
  await t.closed();
  return { t, conn: conn! };
}
