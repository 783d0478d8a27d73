import { assertEquals, assertRejects } from "@std/assert";
import { Buffer } from "node:buffer";
import type { Conn } from "@x/shouty";
import { turn } from "../../../internal/time/event_loop.ts";
import { test } from "../../kit/bounded.ts";
import { toBytes } from "../../kit/bytes.ts";
import { inMemory, startConversations, startServer } from "../../kit/server.ts";

test("a line handler at rest is not counted as one at work while lines wait for a rate, or replies for their peer", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 10 });
  await using t = startServer({ listener, clock, maxLinesPerSecond: 2 }, (line) => line);
  const client = await t.admitted();
  await client.write("1\n2\n3\n4\n");
  await clock.advance(0);
  assertEquals([t.stats.lines, t.stats.handlers], [2, 0]);
  await using f = startServer({ ...inMemory({ bufferBytes: 10 }) }, () => "x".repeat(100_000));
  await (await f.admitted()).write("1\n2\n");
  while (f.stats.lines === 0) await turn();
  assertEquals(f.stats.handlers, 0);
});

test("a connection that another one closes while its lines wait for a rate ends at once", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, maxLinesPerSecond: 1 }, (line) => line);
  const client = await t.admitted();
  await client.write("1\n2\n3\n");
  await clock.advance(0);
  for (const conn of t.server.connections) conn.close({ lastWord: "kicked" });
  assertEquals(await client.readAll(), "1\nkicked\n");
  await client.closeWrite();
  assertEquals((await t.closed()).reason, "closed");
});

for (const [kind, delimiter] of [["array", toBytes(";")], ["Buffer", Buffer.from(";")]] as const) {
  test(`a delimiter is copied: to change the ${kind} afterwards changes nothing`, async () => {
    const lines: string[] = [];
    await using t = startConversations({ ...inMemory(), framing: { lineEnd: { delimiter } } }, async (conn) => {
      delimiter[0] = 120;
      conn.setFraming({ encoding: "latin1" });
      for await (const line of conn.lines) lines.push(line);
    });
    await t.talk("one;two;");
    await t.closed();
    assertEquals(lines, ["one", "two"]);
  });
}

test("at a clock, a peer that takes nothing is cut off after writeTimeout, and the reason stays that of the clock", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 8 });
  const options = { idleTimeout: 1000, firstLineTimeout: Infinity, writeTimeout: 500, lastWords: () => "last" };
  await using t = startConversations({ listener, clock, ...options }, async (conn) => {
    await conn.readLine();
    await conn.write("much more than eight bytes");
    await conn.closed;
  });
  const client = await t.admitted();
  await clock.advance(1000);
  await clock.advance(500);
  assertEquals([(await t.closed()).reason, t.stats.active], ["idle", 0]);
  client.close();
});

test("a peer that resets while a handler has its say after a clock changes no reason", async () => {
  const { listener, clock } = inMemory();
  await using t = startConversations({ listener, clock, idleTimeout: 1000 }, async (conn) => {
    await conn.readLine();
    await conn.closed;
  });
  const client = await t.admitted();
  await clock.advance(1000);
  client.reset();
  await clock.advance(1000);
  assertEquals((await t.closed()).reason, "idle");
});

test("a handler that fails of its own while the connection ends is reported, and the reason stays", async () => {
  const { listener, clock } = inMemory();
  const failure = new Error("mine");
  await using t = startConversations({ listener, clock, idleTimeout: 1000 }, async (conn) => {
    await conn.readLine();
    throw failure;
  });
  const client = await t.admitted();
  await clock.advance(1000);
  assertEquals(await client.readAll(), "");
  await client.closeWrite();
  const { reason, error } = await t.closed();
  assertEquals([reason, error, t.all("handler-error").map((event) => event.error)], ["idle", failure, [failure]]);
});

test("a deadline holds over several reads, can be set anew and taken back, and passes without the handler's reading", async () => {
  const { listener, clock } = inMemory();
  const options = { listener, clock, idleTimeout: Infinity, firstLineTimeout: Infinity };
  let conn: Conn;
  await using t = startConversations(options, async (it) => {
    conn = it;
    conn.setDeadline(1000, "login");
    while (await conn.readLine() !== "take it back");
    conn.setDeadline(Infinity);
    await conn.readLine();
    conn.setDeadline(500, "first");
    conn.setDeadline(2000, "work");
    await new Promise((resolve) => conn.signal.addEventListener("abort", resolve));
  });
  const client = await t.admitted();
  for (let i = 0; i < 9; i++) await clock.advance(100), await client.write("x\n");
  await client.write("take it back\n");
  await clock.advance(100_000);
  await client.write("go\n");
  await clock.advance(1999);
  assertEquals([conn!.ending, conn!.signal.aborted], [undefined, false]);
  await clock.advance(1);
  assertEquals([conn!.ending, conn!.signal.reason], ["deadline", "deadline"]);
  await client.closeWrite();
  await clock.advance(2000);
  const { reason, detail } = await t.closed();
  assertEquals([reason, detail, t.stats.details], ["deadline", "work", { work: 1 }]);
});

test("a framing or a limit that changes while a read waits holds for what has come once more comes", async () => {
  const lines: (string | null)[] = [];
  let conn: Conn;
  const { listener, clock } = inMemory();
  await using t = startConversations({ listener, clock }, async (it) => {
    conn = it;
    for (let line = await conn.readLine(); line !== null; line = await conn.readLine()) lines.push(line);
  });
  const client = await t.admitted();
  await client.write("a;b");
  await clock.advance(0);
  conn!.setFraming({ lineEnd: { delimiter: ";" } });
  await client.write("c;");
  await clock.advance(0);
  assertEquals(lines, ["a", "bc"]);
  await client.write("defg");
  await clock.advance(0);
  conn!.setLimits({ maxLineBytes: 3 });
  await client.write("h");
  await clock.advance(0);
  assertEquals([lines, conn!.ending], [["a", "bc"], "line-too-long"]);
  await client.closeWrite();
});

// rsyslog and syslog-ng do not read, and under TLS see no FIN: what they sent for 2 s more was discarded.
for (const answers of [false, true]) {
  test(`a peer that goes on sending after the end cannot ${answers ? "2 s later" : "at once, if it was sent nothing"}`, async () => {
    const { listener, clock } = inMemory();
    await using t = startConversations({ listener, clock, idleTimeout: Infinity }, async (conn) => {
      for await (const line of conn.lines) if (answers) await conn.write(`${line}\n`);
    });
    const client = await t.admitted();
    await client.write("one\n");
    while (t.stats.lines === 0) await turn();
    const stopped = t.server.shutdown({ drain: "finish" });
    assertEquals(await client.readAll(), answers ? "one\n" : "");
    if (answers) await client.write("two\n");
    if (answers) await clock.advance(2000);
    assertEquals((await stopped).durationMs, answers ? 2000 : 0);
    await assertRejects(() => client.write("three\n"), Deno.errors.BrokenPipe);
  });
}

test("conn.ending keeps the reason of an end that came while the connection was asked to finish", async () => {
  const { listener, clock } = inMemory();
  await using t = startConversations({ listener, clock }, async (conn) => {
    for await (const _ of conn.lines);
  });
  const client = await t.admitted();
  await clock.advance(0);
  const [conn] = t.server.connections as Iterable<Conn>;
  t.server.shutdown({ drain: "finish" });
  conn.close({ lastWord: "bye" });
  assertEquals([conn.ending, await client.readAll()], ["closed", "bye\n"]);
  client.close();
  await clock.advance(100);
  assertEquals([conn.ending, (await t.closed()).reason], ["closed", "closed"]);
});

const READS: Record<string, (conn: Conn, signal: AbortSignal) => Promise<unknown>> = {
  "readExactly": (conn) => conn.readExactly(4),
  "readUntil": (conn) => conn.readUntil("|"),
  "a read with a signal": (conn, signal) => conn.readLine({ signal }),
  "a read beside another": (conn) => (conn.readLine(), conn.readExactly(1)),
  "a read behind one that was given up": (conn) => {
    const aborter = new AbortController();
    conn.readLine({ signal: aborter.signal }).catch(() => {});
    aborter.abort();
    return conn.readExactly(4);
  },
  "a read of a wrong number of bytes": (conn) => conn.readExactly(-1),
};

for (const [name, read] of Object.entries(READS)) {
  test(`${name}: if it rejects before the handler awaits it, or is never awaited, the process goes on`, async () => {
    const { listener, clock } = inMemory();
    const [aborter, rejected] = [new AbortController(), Promise.withResolvers<void>()];
    let errors = 0;
    await using t = startConversations({ listener, clock }, async (conn) => {
      const reading = read(conn, aborter.signal);
      await rejected.promise;
      if (conn.id % 2 === 0) await reading.catch(() => errors++);
    });
    for (let i = 0; i < 2; i++) {
      const client = await t.admitted();
      await client.write("abc");
      await client.closeWrite();
    }
    aborter.abort();
    // Now the process would end.
    await clock.advance(0);
    rejected.resolve();
    await t.closed(2);
    assertEquals(errors, 1);
  });
}
