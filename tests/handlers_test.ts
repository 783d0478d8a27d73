import { assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import { type CloseReason, type Conn, type ConnHandler, type LineHandler, shout } from "@x/shouty";
import { test } from "./bounded.ts";
import { inMemory, startConversations, startServer } from "./server.ts";

const FAILURE = new Error("This line is unlucky");

/** Fails at the line `bad`, in each of the ways there are. */
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
  test(`a line handler that ${how} ends its connection alone: earlier replies leave, the line gets none`, async () => {
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

test("a block handler that throws leaves the block unanswered, and earlier replies leave", async () => {
  const handler = Object.assign((line: string) => line, {
    block: (lines: string) => {
      if (lines.includes("bad")) throw FAILURE;
      return lines;
    },
  });
  await using t = startServer(inMemory(), handler);
  const client = await t.connect();
  await client.write("one\n");
  assertEquals(await client.readLine(), "one");
  await client.write("two\nbad\n");
  await client.closeWrite();
  assertEquals(await client.readAll(), "");
  assertEquals((await t.closed()).reason, "handler-error");
});

test("a line handler that returns neither text nor nothing has failed", async () => {
  for (const wrong of [5, null, {}, true, Promise.resolve(5), new Uint8Array(1)]) {
    await using t = startServer(inMemory(), (line) => line === "bad" ? wrong as unknown as string : line);
    assertEquals(await t.talk("ok\nbad\n"), "ok\n");
    const { error } = await t.until("handler-error");
    assertEquals((error as Error).message.includes("expected a string or undefined"), true);
  }
});

test("a conversation handler that fails, at once or later, ends its connection politely", async () => {
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

test("a handler that never returns holds nobody up, and a shutdown only until its deadline", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock }, (line) => line === "wait" ? new Promise(() => {}) : shout(line));
  const stuck = await t.connect();
  await stuck.write("wait\n");
  assertEquals(await t.talk("go\n"), "GO\n");
  const stopped = t.server.shutdown({ drain: "finish", drainTimeout: 100 });
  await clock.advance(100);
  assertEquals((await stopped).closed, { "drain-timeout": 1 });
});

test("a conversation handler's return closes the connection politely", async () => {
  await using t = startConversations(inMemory(), (conn) => void conn.write("Bye\n"));
  assertEquals(await t.talk("are you there?\n"), "Bye\n");
  assertEquals((await t.closed()).reason, "closed");
});

test("hooks that throw hurt nobody and are counted", async () => {
  const fail = () => {
    throw FAILURE;
  };
  await using t = startServer({ ...inMemory(), onListen: fail, onEvent: fail, errorLine: fail, maxLineBytes: 3 });
  assertEquals(await t.talk("ok\ntoo long\n"), "OK\n");
  assertEquals((await t.closed()).reason, "line-too-long");
  // onListen, errorLine, and onEvent for: listening, accepted, closed.
  assertEquals(t.stats.hookErrors, 5);
});

test("hooks that reject hurt nobody and are counted", async () => {
  // deno-lint-ignore require-await -- it stands for one that waits for something
  const fail = async () => {
    throw FAILURE;
  };
  await using t = startServer({ ...inMemory(), onListen: fail, onEvent: fail });
  assertEquals(await t.talk("ok\n"), "OK\n");
  await t.closed();
  await Promise.resolve();
  assertEquals(t.stats.hookErrors, 4);
});

test("conn.write in a line handler comes before the replies to later lines", async () => {
  const handler = (line: string, conn: Conn) => {
    conn.write(`about ${line}: `);
    conn.write(new Uint8Array([62, 32]));
    return line;
  };
  await using t = startServer(inMemory(), handler);
  assertEquals(await t.talk("a\nb\nc\n"), "about a: > a\nabout b: > b\nabout c: > c\n");
});

test("conn.write refuses what is neither text nor bytes, and the connection goes on", async () => {
  let error: unknown;
  await using t = startConversations(inMemory(), async (conn) => {
    await conn.write(5 as unknown as string).catch((reason) => error = reason);
    await conn.write("still here\n");
  });
  assertEquals(await t.talk(""), "still here\n");
  assertEquals((error as Error).message, "Cannot write: expected a string or a Uint8Array, got number");
});

test("conn.write rejects with the reason once the connection has ended, and ignoring it is safe", async () => {
  const done = Promise.withResolvers<unknown>();
  await using t = startConversations(inMemory(), async (conn) => {
    for await (const _ of conn.lines);
    conn.close();
    conn.write("ignored");
    done.resolve(await conn.write("late").catch((error) => error));
  });
  assertEquals(await t.talk(""), "");
  const { name, reason } = await done.promise as Error & { reason: CloseReason };
  assertEquals([name, reason], ["ConnectionClosedError", "closed"]);
});

test("un-awaited writes to a peer that is gone are nobody's failure", async () => {
  const gone = Promise.withResolvers<void>();
  await using t = startConversations(inMemory(), async (conn) => {
    await gone.promise;
    for (let i = 0; i < 100; i++) conn.write("x".repeat(1000));
    for await (const _ of conn.lines);
  });
  (await t.admitted()).reset();
  gone.resolve();
  assertEquals((await t.closed()).reason, "reset");
  assertEquals(t.all("handler-error"), []);
});

test("a handler that learns of the end by a write, or by the signal, has not failed", async () => {
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

test("conn.lines gives a line to each of several callers", async () => {
  const got = Promise.withResolvers<unknown>();
  await using t = startConversations(inMemory(), async ({ lines }) => {
    got.resolve(await Promise.all([lines.next(), lines.next(), lines.next(), lines.next()]));
  });
  const client = await t.connect();
  for (const text of ["a\n", "b\nc\n"]) await client.write(text);
  await client.closeWrite();
  const line = (value: string) => ({ value, done: false });
  assertEquals(await got.promise, [line("a"), line("b"), line("c"), { value: undefined, done: true }]);
});

test("a loop over conn.lines that was left with break is taken up by the next", async () => {
  await using t = startConversations(inMemory(), async (conn) => {
    for await (const name of conn.lines) {
      conn.write(`Hello ${name}\n`);
      break;
    }
    for await (const line of conn.lines) {
      if (line === "") break;
      conn.write(`${line}!\n`);
    }
    conn.write(`left: ${(await Array.fromAsync(conn.lines)).join()}\n`);
  });
  for (const text of ["Ada\none\ntwo\n\nthree\nfour", "Ada\r\none\r\ntwo\r\n\r\nthree\r\nfour\r\n"]) {
    assertEquals(await t.talk(text), "Hello Ada\none!\ntwo!\nleft: three,four\n");
  }
});

test("conn.lines is no part of a line handler", async () => {
  await using t = startServer(inMemory(), (_, conn) => `${conn.lines}`);
  assertEquals(await t.talk("x\n"), "");
  const { error } = await t.until("handler-error");
  assertEquals((error as Error).message, "Cannot use conn.lines in a line handler: it gets each line as its argument");
});

test("conn tells its number and its addresses", async () => {
  const { listener, clock } = inMemory();
  const handler: LineHandler = (_, { id, remoteAddr, localAddr }) => JSON.stringify([id, remoteAddr, localAddr]);
  await using t = startServer({ listener, clock }, handler);
  const client = await t.connect();
  await client.write("\n");
  assertEquals(JSON.parse((await client.readLine())!), [1, client.addr, listener.addr]);
});

test("conn.signal aborts with the reason of the end, also when it is asked for only then", async () => {
  const conns: Conn[] = [];
  const signals: AbortSignal[] = [];
  await using t = startConversations(inMemory(), async (conn) => {
    conns.push(conn);
    signals.push(conn.signal);
    for await (const _ of conn.lines);
  });
  assertEquals(await t.talk(""), "");
  (await t.admitted()).reset();
  await t.closed(2);
  assertEquals(signals.map(({ reason }) => reason), ["end", "reset"]);
  assertEquals(conns.map(({ signal }) => [signal.aborted, signal.reason]), [[true, "end"], [true, "reset"]]);
});

test("a writer that waits for each write holds little, however slow the peer", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 10_000 });
  let written = 0;
  await using t = startConversations({ listener, clock }, async (conn) => {
    for (let i = 0; i < 1000; i++, written += 1000) await conn.write("x".repeat(1000));
  });
  const client = await t.admitted();
  await clock.advance(1);
  assertEquals(written <= 10_000 + 65_536, true, `${written} bytes were taken`);
  assertEquals((await client.readAll()).length, 1_000_000);
});

test("a writer that waits for each write meets no maxQueuedBytes, however small", async () => {
  for (const maxQueuedBytes of [1, 1000, 100_000]) {
    const { listener, clock } = inMemory({ bufferBytes: 100 });
    await using t = startConversations({ listener, clock, maxQueuedBytes }, async (conn) => {
      for (let i = 0; i < 300; i++) await conn.write("x".repeat(600));
      await conn.write("y".repeat(200_000));
    });
    const client = await t.connect();
    await client.closeWrite();
    assertEquals((await client.readAll()).length, 380_000);
    assertEquals((await t.closed()).reason, "closed");
  }
});

test("a writer that does not wait is cut off when more than maxQueuedBytes wait", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 1000 });
  const outcome = Promise.withResolvers<unknown[]>();
  await using t = startConversations({ listener, clock, maxQueuedBytes: 200_000 }, async (conn) => {
    let writes = 0;
    while (!conn.signal.aborted) conn.write("x".repeat(1000)), writes++;
    outcome.resolve([writes, await conn.write("").catch((error) => error.reason)]);
  });
  await t.connect();
  assertEquals((await t.closed()).reason, "write-queue");
  assertEquals(await outcome.promise, [201, "write-queue"]);
});

test("conn.close in a line handler: the line gets its reply, later ones get none, whatever they are", async () => {
  const replies: LineHandler[] = [
    (line, conn) => (line === "quit" && conn.close(), shout(line)),
    async (line, conn) => {
      await Promise.resolve();
      if (line === "quit") conn.close();
      return shout(line);
    },
  ];
  for (const handler of replies) {
    for (const after of ["", "more\n", "unterminated", "a line that is much too long\n"]) {
      await using t = startServer({ ...inMemory(), maxLineBytes: 12 }, handler);
      assertEquals(await t.talk(`one\nquit\n${after}`), "ONE\nQUIT\n");
      assertEquals((await t.closed()).reason, "closed");
    }
  }
});

test("conn.close in a conversation lets what was written leave, and the loop ends at once", async () => {
  const after: string[] = [];
  const ended = Promise.withResolvers<void>();
  await using t = startConversations(inMemory(), async (conn) => {
    for await (const line of conn.lines) {
      if (line === "quit") conn.write("bye\n"), conn.close();
      else after.push(line);
    }
    ended.resolve();
  });
  const client = await t.connect();
  await client.write("quit\n");
  assertEquals(await client.readLine(), "bye");
  await ended.promise;
  assertEquals([await client.readLine(), after], [null, []]);
});

test("conn.lines after conn.close is over, and leaves the last reads to the polite ending", async () => {
  const results: unknown[] = [];
  const { listener, clock } = inMemory();
  await using t = startConversations({ listener, clock }, async (conn) => {
    await conn.write("bye\n");
    conn.close();
    await clock.advance(10);
    results.push(await conn.lines.next());
  });
  const client = await t.connect();
  assertEquals(await client.readLine(), "bye");
  await clock.advance(100);
  await client.write("unread\n");
  assertEquals(await client.readLine(), null);
  assertEquals(results, [{ value: undefined, done: true }]);
  await client.closeWrite();
  assertEquals((await t.closed()).reason, "closed");
});

test("a conversation that returns early ends as closed, whatever was still to come", async () => {
  for (const after of ["", "\n", "more\n", "a line that is much too long\n"]) {
    await using t = startConversations({ ...inMemory(), maxLineBytes: 12 }, async (conn) => {
      for await (const line of conn.lines) return await conn.write(`${line}\n`);
    });
    assertEquals(await t.talk(`one\n${after}`), "one\n");
    assertEquals((await t.closed()).reason, "closed");
  }
});

test("a conversation gets no part of a line that the peer did not finish before it broke off", async () => {
  const got: string[] = [];
  await using t = startConversations(inMemory(), async (conn) => {
    for await (const line of conn.lines) got.push(line), await conn.write("ok\n");
  });
  const client = await t.connect();
  await client.write("whole\nDELETE EVERYTH");
  assertEquals(await client.readLine(), "ok");
  client.reset();
  await t.closed();
  assertEquals(got, ["whole"]);
});

test("the transport sees no call after it is closed", async () => {
  const { listener, clock } = inMemory();
  await using t = startConversations({ listener, clock, idleTimeout: 50 }, async (conn) => {
    for await (const _ of conn.lines);
    assertEquals(await conn.lines.next(), { value: undefined, done: true });
    await assertRejects(() => conn.write("x"));
  });
  await t.admitted();
  await clock.advance(50);
  assertEquals((await t.closed()).reason, "idle");
  assertEquals(t.all("handler-error"), []);
});
