import { assertEquals, assertLess } from "@std/assert";
import { type Conn, type ConnHandler, type LineHandler, shout, type Transport } from "@x/shouty";
import { turn } from "../../../internal/time/event_loop.ts";
import { test } from "../../kit/bounded.ts";
import { tapped } from "../../kit/faults.ts";
import { inMemory, startConversations, startServer } from "../../kit/server.ts";

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

test("a line handler is not asked about the lines behind one at which its connection was aborted", async () => {
  const asked: string[] = [];
  await using t = startServer({ ...inMemory(), maxQueuedBytes: 8 }, (line, conn) => {
    asked.push(line);
    for (let i = 0; i < 9; i++) conn.write("too much");
  });
  await (await t.admitted()).write("one\ntwo\nthree\n");
  assertEquals([(await t.closed()).reason, asked], ["write-queue", ["one"]]);
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
