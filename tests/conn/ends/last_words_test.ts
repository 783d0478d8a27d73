import { assertEquals, assertLess, assertRejects, assertThrows } from "@std/assert";
import { type CloseReason, type Conn, ConnectionClosedError, type ConnHandler, type ServeOptions } from "@x/shouty";
import type { FakeClock, TestClient } from "@x/shouty/testing";
import { turn } from "../../../internal/time/event_loop.ts";
import { test } from "../../kit/bounded.ts";
import { inMemory, startConversations, startServer, type TestServer } from "../../kit/server.ts";

interface Scene {
  readonly options?: ServeOptions & { bufferBytes?: number };
  readonly handler?: ConnHandler;
  readonly act: (client: TestClient, t: TestServer, clock: FakeClock) => unknown;
  readonly asked: boolean;
}

const echo = async (conn: Conn) => {
  for await (const line of conn.lines) await conn.write(`${line}\n`);
};
const flood = (conn: Conn) => {
  conn.write("x".repeat(100)).catch(() => {});
  return new Promise<void>((resolve) => conn.signal.addEventListener("abort", () => resolve()));
};

/** The ends that other tests of the order of an end do not have; the limits and clocks are in `end_order_test.ts`. */
const SCENES: Readonly<Partial<Record<CloseReason, Scene>>> = {
  "end": { act: (client) => client.closeWrite(), asked: false },
  "reset": { act: (client) => client.reset(), asked: false },
  "closed": { handler: () => {}, act: () => {}, asked: false },
  "handler-error": { handler: () => Promise.reject(new Error("mine")), act: () => {}, asked: true },
  "write-timeout": {
    options: { bufferBytes: 8, writeTimeout: 100 },
    handler: flood,
    act: (_, __, clock) => clock.advance(100),
    asked: false,
  },
  "write-queue": {
    options: { bufferBytes: 8, maxQueuedBytes: 8 },
    handler: (conn) => (flood(conn), flood(conn)),
    act: () => {},
    asked: false,
  },
  "drain-timeout": {
    handler: (conn) => conn.readLine().then(() => {}),
    act: (_, t, clock) => (t.server.shutdown({ drainTimeout: 100 }), clock.advance(100)),
    asked: false,
  },
  "drained": { act: (_, t) => void t.server.shutdown({ drain: "finish" }), asked: true },
  "max-lines": { options: { maxLines: 2 }, act: (client) => client.write("1\n2\n"), asked: true },
  "max-age": { options: { maxAge: 100 }, act: (_, __, clock) => clock.advance(110), asked: true },
  "misdirected": {
    options: { answerMisdirected: true },
    act: (client) => client.write("GET / HTTP/1.1\r\n\r\n"),
    asked: false,
  },
};

for (const [reason, { options = {}, handler = echo, act, asked }] of Object.entries(SCENES)) {
  test(`lastWords is ${asked ? "asked once" : "not asked"} at ${reason}, and conn.signal aborts with it`, async () => {
    const { listener, clock } = inMemory(options);
    const words: string[] = [];
    let conn: Conn;
    const lastWords = (why: string) => (words.push(why), "the last words");
    const data = (it: Conn) => void (conn = it);
    await using t = startConversations(
      { idleTimeout: Infinity, ...options, listener, clock, lastWords, data },
      handler,
    );
    const client = await t.admitted();
    await act(client, t, clock);
    for (let turns = 200; conn!.ending === undefined && !conn!.signal.aborted && turns > 0; turns--) await turn();
    // The peer's own end has the server wait no longer.
    if (!["reset", "write-timeout", "write-queue", "drain-timeout"].includes(reason)) {
      assertEquals((await client.readAll()).endsWith("the last words\n"), asked);
      await client.closeWrite().catch(() => {});
    }
    assertEquals((await t.closed()).reason, reason);
    assertEquals([words, conn!.signal.reason, conn!.ending], [asked ? [reason] : [], reason, reason]);
  });
}

test("a peer whose last line has no end is told so, if that is an error", async () => {
  await using t = startConversations({ ...inMemory(), framing: { unterminated: "error" } }, echo);
  assertEquals(await t.talk("whole\ncut off"), "whole\nerror: last line without its end\n");
});

test("at memory the connection that holds the most is told why, if no output waits for its peer", async () => {
  const { listener, clock } = inMemory();
  let conn: Conn;
  const order: unknown[] = [];
  const lastWords = (why: string) => (order.push(why), "no memory");
  const data = (it: Conn) => void (conn = it);
  await using t = startConversations({ listener, clock, maxBufferedBytes: 1000, lastWords, data }, async () => {
    conn.signal.addEventListener("abort", () => order.push(conn.ending));
    assertEquals(await conn.readLine(), null);
    order.push("handler");
  });
  const client = await t.admitted();
  await client.write("x".repeat(1024));
  assertEquals([await client.readAll(), (await t.closed()).reason], ["no memory\n", "memory"]);
  assertEquals(order, ["memory", "handler", "memory"]);
});

test("conn.close sends what was written and the last word, and the event and the counters have the detail", async () => {
  await using t = startConversations(inMemory(), async (conn) => {
    conn.write("before\n");
    conn.close({ lastWord: "bye", detail: "they said quit" });
    conn.close({ lastWord: "again", detail: "no" });
    assertEquals([await conn.readLine(), conn.ending], [null, "closed"]);
    await assertRejects(() => conn.write("after\n"), ConnectionClosedError);
    await assertRejects(() => conn.flushed(), ConnectionClosedError);
    await conn.closeWrite();
  });
  assertEquals(await t.talk("x\n"), "before\nbye\n");
  const { reason, detail } = await t.closed();
  assertEquals([reason, detail, t.stats.details], ["closed", "they said quit", { "they said quit": 1 }]);
});

test("conn.close refuses wrong options and goes on; a line handler's reply comes before the last word", async () => {
  await using t = startServer(inMemory(), (line, conn) => {
    for (const wrong of [null, 5, { lastWord: 5 }, { detail: {} }]) {
      assertThrows(() => conn.close(wrong as never), TypeError, "Cannot use");
    }
    if (line === "quit") conn.close({ lastWord: "bye", detail: "quit" });
    return line;
  });
  assertEquals(await t.talk("one\nquit\nlost\n"), "one\nquit\nbye\n");
  assertEquals([(await t.closed()).reason, (await t.closed()).detail], ["closed", "quit"]);
});

test("a line handler's close is the reason, also at a last line without its end, and at one that meets maxLines", async () => {
  for (const [input, options] of [["quit", {}], ["quit\n", { maxLines: 1 }], ["quit", { maxLines: 1 }]] as const) {
    await using t = startServer({ ...inMemory(), ...options }, (line, conn) => (conn.close({ detail: "quit" }), line));
    assertEquals(await t.talk(input), "quit\n");
    assertEquals([(await t.closed()).reason, (await t.closed()).detail], ["closed", "quit"]);
  }
});

test("the counters keep the first 100 details, and the rest as other", async () => {
  await using t = startServer(inMemory(), (line, conn) => conn.close({ detail: line }));
  for (let i = 0; i < 103; i++) await t.talk(`${i}\n`);
  for (const again of ["7", "102", "__proto__", "7"]) await t.talk(`${again}\n`);
  await t.closed(107);
  const { details } = t.stats;
  assertEquals([Object.keys(details).length, details["7"], details["99"], details.other], [101, 3, 1, 5]);
});

test("the counters keep no detail of more than 100 characters", async () => {
  await using t = startServer(inMemory(), (line, conn) => conn.close({ detail: line }));
  for (const length of [100, 101, 60_000]) await t.talk(`${"x".repeat(length)}\n`);
  await t.closed(3);
  assertEquals(t.stats.details, { ["x".repeat(100)]: 1, other: 2 });
});

test("closeWrite ends this side alone: the peer reads the end, what it still sends is read, and writes are refused", async () => {
  await using t = startConversations(inMemory(), async (conn) => {
    conn.write("all\n");
    const flushed = conn.flushed();
    await Promise.all([conn.closeWrite(), conn.closeWrite(), flushed]);
    for (const refused of [conn.write("x"), conn.flushed()]) await assertRejects(() => refused, ConnectionClosedError);
    assertEquals([await conn.readLine(), conn.signal.aborted], ["still here", false]);
  });
  const client = await t.connect();
  assertEquals(await client.readAll(), "all\n");
  await client.write("still here\n");
  await client.closeWrite();
  assertEquals((await t.closed()).reason, "closed");
});

test("flushed resolves when the kernel has taken everything so far, and not before", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 16 });
  const order: string[] = [];
  await using t = startConversations({ listener, clock }, async (conn) => {
    await conn.flushed();
    order.push("nothing");
    conn.write("0123456789012345678901234567890123456789");
    await conn.flushed();
    order.push("taken");
  });
  const client = await t.connect();
  await clock.advance(0);
  assertEquals(order, ["nothing"]);
  assertEquals((await client.readAll()).length, 40);
  assertEquals(order, ["nothing", "taken"]);
});

test("flushed resolves although another part of the handler goes on writing", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 16 });
  let left = 100;
  await using t = startConversations({ listener, clock }, async (conn) => {
    const write = async () => {
      while (left-- > 0) await conn.write("more".repeat(20_000));
    };
    const writing = write();
    await conn.flushed();
    assertLess(50, left);
    left = 0;
    await writing;
  });
  await (await t.connect()).readAll();
  assertEquals(t.all("handler-error"), []);
});

test("a listener of conn.signal that closes the connection loses none of what waits for a slow peer", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 16 });
  await using t = startConversations({ listener, clock }, async (conn) => {
    conn.signal.addEventListener("abort", () => conn.close({ lastWord: "bye" }));
    conn.setDeadline(500);
    conn.write("x".repeat(100) + "\n");
    await conn.readLine();
  });
  const client = await t.admitted();
  await clock.advance(500);
  // Longer than a handler has for its last word.
  await clock.advance(2000);
  assertEquals([(await client.readLine())?.length, await client.readLine()], [100, "bye"]);
});

test("what a handler returns after the last line is not sent", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 16 });
  const reply = Promise.withResolvers<string>();
  const lastWords = (reason: string) => `error: ${reason}, good bye`;
  await using t = startServer({ listener, clock, handlerTimeout: 1000, lastWords }, () => reply.promise);
  const client = await t.admitted();
  await client.write("line\n");
  await clock.advance(1000);
  // The time for a last word is up, and the last line waits for its peer.
  await clock.advance(1000);
  reply.resolve("late reply");
  await clock.advance(0);
  assertEquals(await client.readAll(), "error: handler-timeout, good bye\n");
});

test("await using in a conversation closes it and waits for the end; in a line handler it closes and goes on", async () => {
  await using t = startConversations(inMemory(), async (conn) => {
    {
      await using own = conn;
      await own.write("hello\n");
    }
    assertEquals((await conn.closed).reason, "closed");
  });
  assertEquals(await t.talk(""), "hello\n");
  await t.closed();
  await using l = startServer(inMemory(), async (line, conn) => {
    await using _ = conn;
    return await Promise.resolve(line);
  });
  assertEquals([await l.talk("one\ntwo\n"), (await l.closed()).reason], ["one\n", "closed"]);
});

test("lastWords gets the limit that ended the connection: halfCloseTimeout too, and as it was before the handler changed it", async () => {
  const never = () => new Promise<void>(() => {});
  const change = async (conn: Conn) => {
    for await (const _ of conn.lines);
    conn.setLimits({ idleTimeout: 60_000 });
  };
  const cases: [ConnHandler, string][] = [[never, "handler-timeout 500"], [change, "idle 1000"]];
  for (const [handler, expected] of cases) {
    const { listener, clock } = inMemory();
    const lastWords = (reason: string, limit: number) => `${reason} ${limit}`;
    const options = { listener, clock, lastWords, idleTimeout: 1000, firstLineTimeout: 9000, halfCloseTimeout: 500 };
    await using t = startConversations(options, handler);
    const client = await t.admitted();
    await client.write("a\n");
    await clock.advance(0);
    if (handler === never) await client.closeWrite();
    await clock.advance(3000);
    assertEquals(await client.readAll(), `${expected}\n`);
  }
});
