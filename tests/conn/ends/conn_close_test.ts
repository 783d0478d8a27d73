import { assertEquals, assertLessOrEqual, assertRejects } from "@std/assert";
import { type Conn, type LineHandler, shout } from "@x/shouty";
import { test } from "../../kit/bounded.ts";
import { faulty } from "../../kit/faults.ts";
import { memoryAfter } from "../../kit/figures/memory.ts";
import { inMemory, startConversations, startServer } from "../../kit/server.ts";

test("conn.close in a line handler lets the line have its reply, and later lines get none, whatever they are", async () => {
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

test("conn.close in a line handler ends the connection though the client stays, also where a pace holds lines back", async () => {
  for (const pace of [{}, { maxLinesPerSecond: 2 }]) {
    await using t = startServer({ ...inMemory(), ...pace }, (line, conn) => {
      if (line === "quit") conn.close();
      return shout(line);
    });
    const client = await t.connect();
    await client.write("one\nquit\nmore\nmore\n");
    assertEquals([await client.readLine(), await client.readLine(), await client.readLine()], ["ONE", "QUIT", null]);
    await client.close();
    assertEquals((await t.closed()).reason, "closed");
  }
});

test("conn.close ends a loop over lines at once, even if a pace holds lines back", async () => {
  const ended = Promise.withResolvers<void>();
  let conn: Conn;
  await using t = startConversations({ ...inMemory(), maxLinesPerSecond: 0.001 }, async (one) => {
    conn = one;
    for await (const line of one.lines) await one.write(line + "\n");
    ended.resolve();
  });
  const client = await t.connect();
  await client.write("one\ntwo\n");
  assertEquals(await client.readLine(), "one");
  conn!.close();
  await ended.promise;
});

test("conn.close in a conversation sends what was written, and ends the loop at once", async () => {
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

test("conn.lines is done after conn.close, and leaves the last reads to the graceful close", async () => {
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

test("a conversation that returns early ends as closed, whatever the client still sends", async () => {
  for (const after of ["", "\n", "more\n", "a line that is much too long\n"]) {
    await using t = startConversations({ ...inMemory(), maxLineBytes: 12 }, async (conn) => {
      for await (const line of conn.lines) return await conn.write(`${line}\n`);
    });
    assertEquals(await t.talk(`one\n${after}`), "one\n");
    assertEquals((await t.closed()).reason, "closed");
  }
});

const HANDLERS = {
  serve: "(line) => line",
  serveConnections: "async (conn) => { for await (const line of conn.lines) conn.write(line + '\\n'); }",
};

for (const [wayIn, handler] of Object.entries(HANDLERS)) {
  test(`${wayIn} keeps no text of a connection that has become quiet`, async () => {
    const { heapUsed } = await memoryAfter(`
      import { ${wayIn} } from "${import.meta.resolve("../../../mod.ts")}";
      const addr = { transport: "tcp", hostname: "127.0.0.1", port: 1 };
      const input = new TextEncoder().encode("a line like any other\\n".repeat(9_800));
      const quiet = Promise.withResolvers();
      const clientCount = 300;
      let owed = clientCount * input.length;
      const connect = () => {
        let sent = 0;
        const read = (into) => {
          const part = input.subarray(sent, sent += into.length);
          into.set(part);
          return part.length > 0 ? Promise.resolve(part.length) : new Promise(() => {});
        };
        const write = async ({ length }) => {
          if ((owed -= length) === 0) quiet.resolve();
          return length;
        };
        return { addr, remoteAddr: addr, localAddr: addr, read, write, close() {} };
      };
      const clients = Array.from({ length: clientCount }, connect);
      const accept = async () => clients.pop() ?? new Promise(() => {});
      ${wayIn}({ listener: { addr, accept, close() {} } }, ${handler});
      await quiet.promise;
    `);
    // The last block of each connection is about 60 KB; those of three hundred are 18 MB.
    assertLessOrEqual(heapUsed, 14 * 2 ** 20);
  });
}

test("a conversation gets no part of an unfinished line of a peer that reset the connection", async () => {
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

test("a conversation that goes on after its connection's end does not use the transport", async () => {
  const { listener, clock } = inMemory();
  const misuse: string[] = [];
  const done = Promise.withResolvers<void>();
  const options = { listener: faulty(listener, { misuse }), clock, idleTimeout: 50 };
  await using t = startConversations(options, async (conn) => {
    for await (const _ of conn.lines);
    assertEquals(await conn.lines.next(), { value: undefined, done: true });
    await conn.closed;
    await assertRejects(() => conn.write("too late"));
    done.resolve();
  });
  listener.connect();
  await clock.advance(50);
  // The handler may still write for one more second.
  await clock.advance(1000);
  await done.promise;
  assertEquals([misuse, t.all("handler-error")], [[], []]);
});
