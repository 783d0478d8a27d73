import { assertEquals } from "@std/assert";
import type { Conn, ServeOptions } from "@x/shouty";
import { test } from "../kit/bounded.ts";
import { play } from "../kit/one_client.ts";
import { inMemory, startConversations, startServer, type TestServer } from "../kit/server.ts";

const the = (t: TestServer): Conn<unknown> => [...t.server.connections][0];

test("maxLineBytes holds for lines that have come already, in both kinds of handlers", async () => {
  await play({}, async (conn) => {
    assertEquals(await conn.readLine(), "one");
    conn.setLimits({ maxLineBytes: 3 });
    assertEquals([await conn.readLine(), await conn.readLine()], ["two", null]);
    assertEquals(conn.ending, "line-too-long");
  }, async (client, _, t) => {
    await client.write("one\ntwo\nthree\nsix\n");
    await client.closeWrite();
    assertEquals([await client.readAll(), (await t.closed()).reason], [
      "error: line longer than 3 bytes\n",
      "line-too-long",
    ]);
  });
  for (const block of [undefined, (lines: string, conn: Conn) => (conn.setLimits({ maxLineBytes: 3 }), lines)]) {
    const handler = (line: string, conn: Conn) => (conn.setLimits({ maxLineBytes: 3 }), line);
    await using t = startServer(inMemory(), Object.assign(handler, block && { block }));
    const client = await t.connect();
    await client.write("first\n");
    assertEquals(await client.readLine(), "first");
    await client.write("two\nthree\nsix\n");
    await client.closeWrite();
    assertEquals(await client.readAll(), "two\nerror: line longer than 3 bytes\n");
  }
});

test("a new maxConnectionBytes or maxLines counts what came before it", async () => {
  await play({}, async (conn) => {
    assertEquals(await conn.readLine(), "one");
    conn.setLimits({ maxConnectionBytes: 9 });
    const lines = await Array.fromAsync(conn.lines);
    assertEquals([lines, conn.ending], [["two"], "byte-limit"]);
  }, async (client, clock, t) => {
    await client.write("one\n");
    await clock.advance(0);
    await client.write("two\nthree\n");
    await client.closeWrite();
    assertEquals((await t.closed()).reason, "byte-limit");
  });
  await play({}, async (conn) => {
    await conn.readLine();
    conn.setLimits({ maxLines: 1 });
    while (await conn.readLine() !== null);
    assertEquals(conn.ending, "max-lines");
  }, async (client, _, t) => {
    await client.write("one\n");
    await client.write("two\n");
    assertEquals(await client.readAll(), "");
    await client.closeWrite();
    assertEquals((await t.closed()).reason, "max-lines");
  });
});

/** Changes the limit on all bytes at the first line, and returns the lines and why they end. */
const CHANGES_LIMIT: Readonly<Record<string, (to: number, lines: string[]) => (options: ServeOptions) => TestServer>> =
  {
    "a conversation": (to, lines) => (options) =>
      startConversations(options, async (conn) => {
        for await (const line of conn.lines) {
          if (lines.push(line) === 1) conn.setLimits({ maxConnectionBytes: to });
        }
      }),
    "a conversation in bytes": (to, lines) => (options) =>
      startConversations(options, async (conn) => {
        for (let bytes; (bytes = await conn.readUntil("\n").catch(() => null)) !== null;) {
          if (lines.push(new TextDecoder().decode(bytes)) === 1) conn.setLimits({ maxConnectionBytes: to });
        }
      }),
    "a line handler": (to, lines) => (options) =>
      startServer(options, (line, conn) => {
        if (lines.push(line) === 1) conn.setLimits({ maxConnectionBytes: to });
      }),
    "a block handler": (to, lines) => (options) => {
      const handler = (line: string) => void lines.push(line);
      const block = (text: string, conn: Conn) => {
        if (lines.length === 0) conn.setLimits({ maxConnectionBytes: to });
        lines.push(...text.split("\n").slice(0, -1));
        return "";
      };
      return startServer(options, Object.assign(handler, { block }));
    },
  };

for (const [name, start] of Object.entries(CHANGES_LIMIT)) {
  test(`maxConnectionBytes holds for bytes that have come when it is changed, in ${name}`, async () => {
    for (
      const [from, to, cuts, expected] of [
        [6, 1000, ["auth\nl1\nl2\nl3\n"], ["auth", "l1", "l2", "l3", "end"]],
        [6, 1000, ["auth\n", "l1\nl2\nl3\n"], ["auth", "l1", "l2", "l3", "end"]],
        [1000, 9, ["auth\nl1\nl2\nl3\n"], ["auth", "l1", "byte-limit"]],
        [1000, 9, ["auth\n", "l1\nl2\n", "l3\n"], ["auth", "l1", "byte-limit"]],
        [1000, 2, ["auth\nl1\n"], ["auth", "byte-limit"]],
      ] as const
    ) {
      // A block has been cut before its handler can change anything.
      if (name === "a block handler" && to < from && cuts[0].length > 5) continue;
      const lines: string[] = [];
      const { listener, clock } = inMemory();
      await using t = start(to, lines)({ listener, clock, maxConnectionBytes: from });
      const client = await t.admitted();
      for (const part of cuts) await client.write(part), await clock.advance(0);
      await client.closeWrite();
      assertEquals([...lines, (await t.closed()).reason], [...expected]);
    }
  });
}

test("bytes beyond maxConnectionBytes wait for a handler that raises it, with those that come meanwhile", async () => {
  const lines: string[] = [];
  const { listener, clock } = inMemory();
  await using t = startConversations({ listener, clock, maxConnectionBytes: 8 }, async (conn) => {
    lines.push(...[await conn.readLine() ?? ""]);
    await new Promise<void>((resolve) => clock.setTimer(resolve, 1000));
    conn.setLimits({ maxConnectionBytes: 1000 });
    for await (const line of conn.lines) lines.push(line);
  });
  const client = await t.admitted();
  await client.write("auth\nl1\nl2\n");
  await clock.advance(300);
  await client.write("l3\nl4\n");
  await client.closeWrite();
  await clock.advance(700);
  assertEquals([...lines, (await t.closed()).reason], ["auth", "l1", "l2", "l3", "l4", "end"]);
});

test("a read that waits looks again at what has come when the framing or a limit is changed", async () => {
  for (
    const [change, expected] of [
      [(conn: Conn<unknown>) => conn.setFraming({ lineEnd: { delimiter: ";" } }), ["abc", undefined]],
      [(conn: Conn<unknown>) => conn.setLimits({ maxLineBytes: 3 }), [null, "line-too-long"]],
      [(conn: Conn<unknown>) => conn.setLimits({ maxConnectionBytes: 3 }), [null, "byte-limit"]],
      [(conn: Conn<unknown>) => conn.setLimits({ idleTimeout: 9000 }), ["abc;def", undefined]],
    ] as const
  ) {
    const got: unknown[] = [];
    await play(
      {},
      async (conn) => void got.push(await conn.readLine(), conn.ending),
      async (client, clock, t) => {
        await client.write("abc;def");
        await clock.advance(0);
        change(the(t));
        await clock.advance(0);
        if (expected[0] === "abc;def") await client.write("\n"), await clock.advance(0);
        assertEquals(got, [...expected]);
      },
    );
  }
});

test("a read that waits for the pace of bytes looks again, too", async () => {
  const got: unknown[] = [];
  await play(
    { maxBytesPerSecond: 10, lineTimeout: Infinity, idleTimeout: Infinity },
    async (conn) => void got.push(await conn.readLine(), conn.ending),
    async (client, clock, t) => {
      await client.write("abcdefghijklmnopqrs|");
      for (let i = 0; i < 30 && the(t).stats().waitsFor !== "turn"; i++) await clock.advance(100);
      the(t).setFraming({ lineEnd: { delimiter: "s" } });
      await clock.advance(0);
      for (let i = 0; i < 30 && got.length === 0; i++) await clock.advance(100);
      assertEquals(got, ["abcdefghijklmnopqr", undefined]);
    },
  );
});
