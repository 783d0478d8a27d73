import { assertEquals, assertStrictEquals } from "@std/assert";
import { type Conn, type ConnHandler, type LineHandler, shout } from "@x/shouty";
import { test } from "../../kit/bounded.ts";
import { inMemory, startConversations, startServer } from "../../kit/server.ts";

const FAILURE = new Error("This line is unlucky");

/** Handlers that fail at the line `bad`, each in another way. */
const FAILING: Record<string, LineHandler> = {
  "throws": (line) => {
    if (line === "bad") throw FAILURE;
    return shout(line);
  },
  "rejects": (line) => line === "bad" ? Promise.reject(FAILURE) : shout(line),
  "rejects later": async (line) => {
    await Promise.resolve();
    if (line === "bad") throw FAILURE;
    return shout(line);
  },
};

for (const [how, handler] of Object.entries(FAILING)) {
  test(`a line handler that ${how} ends its own connection alone; earlier replies are sent, the line gets none`, async () => {
    await using t = startServer(inMemory(), handler);
    const neighbour = await t.connect();
    assertEquals(await t.talk("one\ntwo\nbad\nthree\n"), "ONE\nTWO\n");
    const { reason, error } = await t.closed();
    assertEquals([reason, error], ["handler-error", FAILURE]);
    assertEquals(t.all("handler-error").map((event) => event.error), [FAILURE]);
    await neighbour.write("fine\n");
    assertEquals(await neighbour.readLine(), "FINE");
  });
}

test("a handler that rejects with another connection's error has failed all the same", async () => {
  let first: Conn | undefined;
  await using t = startServer(inMemory(), async (line, conn) => {
    first ??= conn;
    await first.write("");
    return line;
  });
  assertEquals(await t.talk("one\n"), "one\n");
  await t.closed();
  assertEquals(await t.talk("two\n"), "");
  assertEquals((await t.closed(2)).reason, "handler-error");
});

test("a line handler that returns neither text nor nothing has failed, and the error says what it has returned", async () => {
  const wrongs: [unknown, string][] = [[5, "5"], [null, "null"], [{}, "an object"], [["x"], "an array"], [
    true,
    "true",
  ]];
  for (const [wrong, got] of [...wrongs, [Promise.resolve(5), "5"], [new Uint8Array(1), "a Uint8Array"]]) {
    await using t = startServer(inMemory(), (line) => line === "bad" ? wrong as unknown as string : line);
    assertEquals(await t.talk("ok\nbad\n"), "ok\n");
    const { error } = await t.until("handler-error");
    assertEquals((error as Error).message.endsWith(`expected a string or undefined, got ${got}`), true);
  }
});

test("a conversation handler that fails, at once or later, ends its connection gracefully", async () => {
  const handlers: ConnHandler[] = [
    (conn) => {
      conn.write("Welcome\n");
      throw FAILURE;
    },
    async (conn) => {
      await conn.write("Welcome\n");
      for await (const _ of conn.lines) throw FAILURE;
    },
  ];
  for (const handler of handlers) {
    await using t = startConversations(inMemory(), handler);
    assertEquals(await t.talk("hello\nunread\n"), "Welcome\n");
    assertEquals((await t.closed()).reason, "handler-error");
    assertStrictEquals(t.all("handler-error")[0].error, FAILURE);
  }
});

test("hooks that throw do not harm the server, and are counted", async () => {
  const fail = () => {
    throw FAILURE;
  };
  await using t = startServer({ ...inMemory(), onListen: fail, onEvent: fail, lastWords: fail, maxLineBytes: 3 });
  assertEquals(await t.talk("ok\ntoo long\n"), "OK\n");
  assertEquals((await t.closed()).reason, "line-too-long");
  // onListen, lastWords, and onEvent for: listening, accepted, closed.
  assertEquals(t.stats.hookErrors, 5);
});

test("lastWords that returns neither text nor nothing tells the peer nothing, and is counted", async () => {
  for (const [line, errors] of [[5, 1], [Promise.resolve("too long"), 1], [null, 0], [undefined, 0]]) {
    await using t = startServer({ ...inMemory(), maxLineBytes: 3, lastWords: () => line as never });
    assertEquals(await t.talk("too long\n"), "");
    await t.closed();
    assertEquals(t.stats.hookErrors, errors);
  }
});

test("hooks that reject do not harm the server, and are counted", async () => {
  // deno-lint-ignore require-await -- it stands for a hook that awaits something
  const fail = async () => {
    throw FAILURE;
  };
  await using t = startServer({ ...inMemory(), onListen: fail, onEvent: fail });
  assertEquals(await t.talk("ok\n"), "OK\n");
  await t.closed();
  await Promise.resolve();
  assertEquals(t.stats.hookErrors, 4);
});

test("a handler that ends by a refused write, or by the signal, has not failed", async () => {
  const handlers: ConnHandler[] = [
    async (conn) => {
      for (;;) await conn.write("x".repeat(1000));
    },
    (conn) => new Promise((_, reject) => conn.signal.addEventListener("abort", () => reject(conn.signal.reason))),
    async (conn) => {
      conn.close();
      await conn.write("too late");
    },
  ];
  for (const handler of handlers) {
    const { listener, clock } = inMemory({ bufferBytes: 100 });
    await using t = startConversations({ listener, clock, maxAge: 1, writeTimeout: 500 }, handler);
    const client = await t.admitted();
    await clock.advance(500);
    if (t.all("closed").length === 0) client.close();
    const stopped = t.server.shutdown({ drainTimeout: 10 });
    await clock.advance(10);
    await stopped;
    assertEquals(t.all("handler-error"), []);
  }
});
