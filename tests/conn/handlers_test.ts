import { assertEquals, assertLess, assertStrictEquals } from "@std/assert";
import { type Conn, type ConnHandler, type LineHandler, shout, type Transport } from "@x/shouty";
import { ANSWER_BYTES, type BytesHandler } from "../../internal/api/handlers.ts";
import { turn } from "../../internal/time/event_loop.ts";
import { test } from "../kit/bounded.ts";
import { tapped } from "../kit/faults.ts";
import { inMemory, startConversations, startServer } from "../kit/server.ts";

const bytesOf = (lines: Uint8Array): Uint8Array | undefined => (shout as BytesHandler)[ANSWER_BYTES]!(lines);

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

test("a handler is called as a function, not as a method of something in the server", async () => {
  const seen: unknown[] = [];
  function note(this: unknown): void {
    seen.push(this);
  }
  await using lines = startServer(inMemory(), note as LineHandler);
  await lines.talk("one\n");
  await using talks = startConversations(inMemory(), note as ConnHandler);
  await talks.talk("");
  assertEquals(seen, [undefined, undefined]);
});

test("earlier replies do not wait for a line whose answer takes its time", async () => {
  const work = Promise.withResolvers<string>();
  await using t = startServer(inMemory(), (line) => line === "slow" ? work.promise : shout(line));
  const client = await t.connect();
  await client.write("one\ntwo\nslow\nthree\n");
  assertEquals([await client.readLine(), await client.readLine()], ["ONE", "TWO"]);
  work.resolve("done");
  assertEquals([await client.readLine(), await client.readLine()], ["done", "THREE"]);
});

test("the replies of an async line handler that does not wait are written together", async () => {
  const { listener, clock } = inMemory();
  let writes = 0;
  const write = (inner: Transport) => (bytes: Uint8Array) => (writes++, inner.write(bytes));
  const options = { listener: tapped(listener, (inner) => ({ write: write(inner) })), clock };
  await using t = startServer(options, (line) => Promise.resolve(shout(line)));
  const client = t.own(listener.connect());
  await client.write("line\n".repeat(500));
  for (let i = 0; i < 500; i++) assertEquals(await client.readLine(), "LINE");
  assertLess(writes, 10);
});

test("a block handler that throws leaves the block unanswered, and earlier replies are sent", async () => {
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

/** A handler with a block method that calls it for each line, and with one that answers bytes. */
function withBytes(handler: (line: string) => string, bytes: (lines: Uint8Array) => Uint8Array | undefined) {
  const block = (lines: string) => Array.from(lines.matchAll(/(.*)\n/g), ([, line]) => handler(line) + "\n").join("");
  return Object.assign(handler, { block, [ANSWER_BYTES]: bytes });
}

test("a handler answers short blocks as bytes first, and blocks that it declines as text", async () => {
  const asked: string[] = [];
  const handler = withBytes((line) => `text ${line}`, (lines) => {
    asked.push(new TextDecoder().decode(lines));
    if (lines[0] !== "b".charCodeAt(0)) return undefined;
    lines[0] = "B".charCodeAt(0);
    return lines;
  });
  await using t = startServer(inMemory(), handler);
  const client = await t.connect();
  const long = "b".repeat(4096);
  for (const line of ["bytes", "other\r", "b".repeat(4095), long]) {
    await client.write(`${line}\n`), await client.readLine();
  }
  assertEquals(asked, ["bytes\n", "other\r\n", `${"b".repeat(4095)}\n`]);
  assertEquals(await t.talk("bytes\n"), "Bytes\n");
  assertEquals(await t.talk("one\r\ntwo\n"), "text one\ntext two\n");
  assertEquals(await t.talk(`${long}\n`), `text ${long}\n`);
  assertEquals(await t.talk("b\nb\nb"), "B\nb\nB\n");
  assertEquals(t.stats.lines, 11);
});

test("a handler answers no block as bytes while memory is short", async () => {
  const asked: number[] = [];
  const bytes = (lines: Uint8Array) => (asked.push(lines.length), lines);
  const { listener, clock } = inMemory();
  const options = { listener, clock, maxBufferedBytes: 6000 };
  await using t = startServer(options, withBytes((line) => line, bytes));
  const [other, client] = [t.own(listener.connect()), t.own(listener.connect())];
  await client.write("one\n");
  assertEquals(await client.readLine(), "one");
  await other.write("x".repeat(1100));
  await clock.advance(0);
  await client.write("two\n");
  assertEquals(await client.readLine(), "two");
  assertEquals(asked, [4]);
});

test("shout says the same to any byte among letters, as bytes or as text", () => {
  for (let byte = 0; byte < 256; byte++) {
    const lines = new Uint8Array([97, byte, 122, 10]);
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(lines);
    const replies = bytesOf(lines);
    assertEquals(replies === undefined, byte >= 0x80 || byte === 13, `${byte}`);
    if (replies !== undefined) assertEquals(replies, new TextEncoder().encode(shout.block(text)));
  }
});

test("a handler that closes while it answers a block has its replies sent", async () => {
  const handler = Object.assign((line: string) => `text ${line}`, {
    block: (lines: string, conn: Conn) => (conn.close(), lines),
  });
  await using t = startServer(inMemory(), handler);
  assertEquals(await t.talk("one\ntwo\n"), "one\ntwo\n");
  assertEquals((await t.closed()).reason, "closed");
});

test("a handler that overwrites the last LF of a block and declines it causes no line and no endless loop", async () => {
  const bytes = (lines: Uint8Array) => void (lines[0] === 33 ? lines.fill(33) : lines[0] = 63);
  await using t = startServer(inMemory(), withBytes((line) => `text ${line}`, bytes));
  const client = await t.connect();
  await client.write("!\n");
  await client.write("line\n");
  assertEquals(await client.readLine(), "text ?ine");
});

test("a connection that ends while its handler is at work gives its buffer back", async () => {
  const atWork = (_: string, conn: Conn) => {
    // More than `maxQueuedBytes`, which ends the connection at once.
    for (let i = 0; i < 9; i++) conn.write("too much");
    return new Promise<string>(() => {});
  };
  for (const handler of [atWork, Object.assign(atWork.bind(null), { [ANSWER_BYTES]: () => undefined })]) {
    const { listener, clock } = inMemory();
    const buffers: ArrayBufferLike[] = [];
    const read = (inner: Transport) => (into: Uint8Array) => (buffers.push(into.buffer), inner.read(into));
    const options = { listener: tapped(listener, (inner) => ({ read: read(inner) })), clock };
    await using t = startServer({ ...options, maxQueuedBytes: 8 }, handler);
    for (let i = 1; i <= 2; i++) {
      await t.own(listener.connect()).write("hello\n");
      assertEquals((await t.closed(i)).reason, "write-queue");
    }
    assertEquals(buffers.length, 2);
    assertStrictEquals(buffers[0], buffers[1]);
  }
});

test("a line handler is not asked about the lines behind one at which its connection was aborted", async () => {
  const asked: string[] = [];
  await using t = startServer({ ...inMemory(), maxQueuedBytes: 8 }, (line, conn) => {
    asked.push(line);
    for (let i = 0; i < 9; i++) conn.write("too much");
  });
  await (await t.admitted()).write("one\ntwo\nthree\n");
  assertEquals([(await t.closed()).reason, asked], ["write-queue", ["one"]]);
});

test("a handler that throws for bytes, or returns none, has failed, and earlier replies are sent", async () => {
  for (
    const wrong of [() => "text", () => Promise.reject(FAILURE), () => null, () => {
      throw FAILURE;
    }]
  ) {
    const bytes = (lines: Uint8Array) => lines[0] === 33 ? wrong() as unknown as Uint8Array : lines;
    await using t = startServer(inMemory(), withBytes((line) => shout(line), bytes));
    const client = await t.connect();
    await client.write("one\n");
    assertEquals(await client.readLine(), "one");
    await client.write("!\n");
    await client.closeWrite();
    assertEquals(await client.readAll(), "");
    assertEquals((await t.closed()).reason, "handler-error");
  }
});

test("replies as bytes do not change until they have been sent, whatever else happens meanwhile", async () => {
  const scratch = new Uint8Array(4);
  const inTheSame = (lines: Uint8Array) => bytesOf(lines);
  const inScratch = (lines: Uint8Array) => (scratch.set(lines), scratch);
  for (const bytes of [inTheSame, inScratch]) {
    const { listener, clock } = inMemory();
    const writes: Uint8Array[] = [];
    // As a kernel keeps them while the peer does not read.
    const write = (bytes: Uint8Array) => new Promise<number>(() => writes.push(bytes));
    const options = { listener: tapped(listener, () => ({ write, progress: () => 0 })), clock, writeTimeout: 1000 };
    await using t = startServer(options, withBytes((line) => shout(line), bytes));
    for (const line of ["ONE\n", "TWO\n", "SIX\n"]) {
      await t.own(listener.connect()).write(line);
      await clock.advance(1000);
    }
    assertEquals(t.all("closed").map(({ reason }) => reason), Array(3).fill("write-timeout"));
    assertEquals(writes.map((bytes) => new TextDecoder().decode(bytes)), ["ONE\n", "TWO\n", "SIX\n"]);
  }
});

/** A handler that changes its connection at the line "change", as each of the three kinds of line handlers. */
function changing(change: (conn: Conn) => void): Record<string, LineHandler> {
  const each = (line: string, conn: Conn) => {
    if (line === "change") change(conn);
    return line;
  };
  const block = (lines: string, conn: Conn) => lines.split("\n").map((line) => each(line, conn)).join("\n");
  return {
    "a line handler": each,
    "a block handler": Object.assign(each.bind(null), { block }),
    "an async block handler": Object.assign(each.bind(null), {
      block: async (lines: string, conn: Conn) => (await turn(), block(lines, conn)),
    }),
  };
}

for (const [kind, handler] of Object.entries(changing((conn) => conn.setLimits({ maxLineBytes: 100 })))) {
  test(`${kind} that raises maxLineBytes gets the longer line that has come behind`, async () => {
    await using t = startServer({ ...inMemory(), maxLineBytes: 10 }, handler);
    const long = "x".repeat(20);
    assertEquals(await t.talk(`change\n${long}\nshort\n`), `change\n${long}\nshort\n`);
  });
}

for (
  const [kind, handler] of Object.entries(changing((conn) => conn.setFraming({ lineEnd: { delimiter: ";" } })))
) {
  test(`${kind} that changes the framing gets what has come behind in the new one, before more comes`, async () => {
    const { listener, clock } = inMemory();
    await using t = startServer({ listener, clock }, handler);
    const client = await t.connect();
    await client.write("change\na;b;");
    let text = "";
    while (!text.endsWith("b;")) text += new TextDecoder().decode((await client.read())!);
    assertEquals(text, "change\na;b;");
  });
}

for (const [kind, handler] of Object.entries(changing(() => {}))) {
  test(`${kind} gets nothing of a long line that is discarded, although its framing is changed meanwhile`, async () => {
    const { listener, clock } = inMemory();
    const options = { maxLineBytes: 10, framing: { onLongLine: "discard" }, lastWords: () => null } as const;
    await using t = startServer({ listener, clock, ...options }, handler);
    const client = await t.connect();
    await client.write("x".repeat(50));
    await clock.advance(0);
    for (const conn of t.server.connections) conn.setFraming({ onLongLine: "close" });
    await client.write("tail\nnext\n");
    assertEquals(await client.readLine(), "next");
  });
}

test("a line handler gets few lines while its peer does not read the replies", async () => {
  let asked = 0;
  await using t = startServer(inMemory(), () => (asked++, "x".repeat(10_000)));
  const client = await t.admitted();
  await client.write("\n".repeat(200));
  for (let turns = 50; turns > 0; turns--) await turn();
  assertLess(asked, 50);
});

test("a line is answered while others write to its client without a pause", async () => {
  await using t = startServer(inMemory({ bufferBytes: 4096 }));
  const client = await t.admitted();
  let [sent, got] = [0, 0];
  // The client reads all the time, and some 50 KB always wait for it.
  const reading = (async () => {
    let line: string | null = "";
    for (; line !== "TWO" && got < 500; got++) {
      while (sent < got + 25) t.server.broadcast("news".repeat(512) + "\n"), sent++;
      line = await client.readLine();
      await turn();
      if (line === "ONE") await client.write("two\n");
    }
  })();
  await client.write("one\n");
  await reading;
  assertLess(got, 500);
});

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
  for (const [wrong, got] of [...wrongs, [Promise.resolve(5), "5"], [new Uint8Array(1), "an object"]]) {
    await using t = startServer(inMemory(), (line) => line === "bad" ? wrong as unknown as string : line);
    assertEquals(await t.talk("ok\nbad\n"), "ok\n");
    const { error } = await t.until("handler-error");
    assertEquals((error as Error).message.endsWith(`expected a string or undefined, got ${got}`), true);
  }
});

test("a line handler whose block returns nothing has failed, and the error says what was expected", async () => {
  const block = (() => {}) as unknown as () => string;
  await using t = startServer(inMemory(), Object.assign((line: string) => line, { block }));
  assertEquals(await t.talk("one\n"), "");
  const { error } = await t.until("handler-error");
  assertEquals((error as Error).message.endsWith("expected a string, got undefined"), true);
});

test("a line handler whose block returns a promise has failed, and the promise's rejection is handled", async () => {
  const block = () => Promise.reject(FAILURE) as unknown as string;
  await using t = startServer(inMemory(), Object.assign((line: string) => line, { block }));
  assertEquals(await t.talk("one\n"), "");
  assertEquals((await t.closed()).reason, "handler-error");
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

test("a handler that never returns delays no other connection, and a shutdown only until its deadline", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock }, (line) => line === "wait" ? new Promise(() => {}) : shout(line));
  const stuck = await t.connect();
  await stuck.write("wait\n");
  assertEquals(await t.talk("go\n"), "GO\n");
  const stopped = t.server.shutdown({ drain: "finish", drainTimeout: 100 });
  await clock.advance(100);
  assertEquals((await stopped).closed, { "drain-timeout": 1 });
});

test("a conversation handler's return closes the connection gracefully", async () => {
  await using t = startConversations(inMemory(), (conn) => void conn.write("Bye\n"));
  assertEquals(await t.talk("are you there?\n"), "Bye\n");
  assertEquals((await t.closed()).reason, "closed");
});

test("a conversation handler that returns something else than a promise has returned", async () => {
  await using t = startConversations(inMemory(), (() => 5) as never);
  assertEquals(await t.talk("one\n"), "");
  assertEquals([(await t.closed()).reason, t.all("handler-error")], ["closed", []]);
});

test("a conversation that is closed gets none of the lines that have come already", async () => {
  const taken: string[] = [];
  await using t = startConversations({}, async (conn) => {
    for await (const line of conn.lines) {
      taken.push(line);
      await conn.write(`${line}\n`);
      if (line === "two") conn.close();
    }
  });
  assertEquals(await t.talk("one\ntwo\nthree\nfour\n"), "one\ntwo\n");
  assertEquals((await t.closed()).reason, "closed");
  assertEquals(taken, ["one", "two"]);
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
