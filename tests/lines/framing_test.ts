import { assertEquals, assertLessOrEqual } from "@std/assert";
import type { Conn, Framing } from "@x/shouty";
import { test } from "../kit/bounded.ts";
import { tapped } from "../kit/faults.ts";
import { toBytes } from "../kit/bytes.ts";
import { inMemory, startConversations, startServer } from "../kit/server.ts";

test('under "crlf" a "." between bare LFs does not end the data, nor does one that the end of input cuts off', async () => {
  for (
    const [sent, wanted] of [["a\n.\nb\r\n.\r\nQUIT\r\n", ["a\n.\nb", "."]], ["a\r\n.", ["a"]], ["a\r\n.\r", ["a"]]]
  ) {
    const data: string[] = [];
    const framing = { lineEnd: "crlf", unterminated: "drop" } as const;
    await using t = startConversations({ ...inMemory(), framing }, async (conn) => {
      for await (const line of conn.lines) {
        data.push(line);
        if (line === ".") break;
      }
    });
    await t.talk(sent as string);
    await t.closed();
    assertEquals(data, wanted);
  }
});

test("in a handler with block, lastLineEnd tells how the last line of the block ended", async () => {
  for (const lineEnd of ["any", "lf"] as const) {
    const seen: unknown[] = [];
    const block = (lines: string, conn: Conn) => {
      seen.push(conn.lastLineEnd);
      return lines;
    };
    const { listener, clock } = inMemory();
    const handler = Object.assign((line: string) => line, { block });
    await using t = startServer({ listener, clock, framing: { lineEnd } }, handler);
    const client = await t.connect();
    for (const part of ["a\r\n", "a\r\nb\n", "c\r"]) await client.write(part), await clock.advance(0);
    await client.closeWrite();
    await t.closed();
    assertEquals(seen, [lineEnd === "any" ? "crlf" : "lf", "lf", "none"]);
  }
});

test('under "any" and "lf" lastLineEnd tells a bare LF from CR LF', async () => {
  for (const [lineEnd, ends] of [["any", ["lf", "crlf", "none"]], ["lf", ["lf", "lf", "none"]]] as const) {
    const seen: unknown[] = [];
    await using t = startConversations({ ...inMemory(), framing: { lineEnd } }, async (conn) => {
      assertEquals(conn.lastLineEnd, undefined);
      for await (const _ of conn.lines) seen.push(conn.lastLineEnd);
    });
    await t.talk("one\ntwo\r\nthree");
    await t.closed();
    assertEquals<unknown>(seen, ends);
  }
});

const ENDINGS: readonly (readonly [Framing["lineEnd"], string])[] = [
  ["any", "\n"],
  ["lf", "\n"],
  ["crlf", "\r\n"],
  [{ delimiter: "\0" }, "\0"],
  [{ delimiter: "ß;" }, "ß;"],
  [{ delimiter: Uint8Array.of(0x1c, 0x0d) }, "\x1c\r"],
];

for (const [lineEnd, ending] of ENDINGS) {
  test(`what the server adds ends with ${JSON.stringify(ending)} where lines end with ${JSON.stringify(lineEnd)}`, async () => {
    const framing = { lineEnd, onLongLine: "discard" } as const;
    const lastWords = (reason: string) => `(${reason})`;
    const lines = ["hello", "too long", "you"].map((line) => line + ending).join("");
    const options = { maxLineBytes: 5, maxConnectionBytes: toBytes(lines).length + 3, lastWords, framing };
    const words = ["HELLO", "(line-too-long)", "YOU", "(byte-limit)"].map((word) => word + ending).join("");
    await using t = startServer({ ...inMemory(), ...options }, (line) => line.toUpperCase());
    assertEquals(await t.talk(`${lines}xxxx`), words);
    await using c = startConversations({ ...inMemory(), ...options }, async (conn) => {
      for await (const line of conn.lines) await conn.write(line.toUpperCase() + ending);
    });
    assertEquals(await c.talk(`${lines}xxxx`), words);
    assertEquals([(await t.closed()).reason, (await c.closed()).reason], ["byte-limit", "byte-limit"]);
  });
}

test("a line that is discarded is answered at its turn, after the replies to the lines before it, also in a batch", async () => {
  const framing = { onLongLine: "discard" } as const;
  const lastWords = () => "too long";
  await using t = startConversations({ ...inMemory(), maxLineBytes: 5, lastWords, framing }, async (conn) => {
    for await (const batch of conn.batches) for (const line of batch) await conn.write(`${line}\n`);
  });
  const wanted = "one\ntwo\ntoo long\nthree\ntoo long\n";
  assertEquals(await t.talk("one\ntwo\nmuch too long\nthree\nunfinished"), wanted);
});

test("block is called under LF alone, and no longer once the framing has changed", async () => {
  const blocks: string[] = [];
  const handler = Object.assign((line: string) => `line ${line}`, {
    block: (lines: string) => (blocks.push(lines), lines),
  });
  const others: Partial<Framing>[] = [
    ...[{ lineEnd: "crlf" } as const, { encoding: "latin1" } as const, { unterminated: "drop" } as const],
    ...[{ invalidText: "error" } as const, { onLongLine: "truncate" } as const, { lineEnd: { delimiter: "\n" } }],
  ];
  for (const framing of others) {
    await using t = startServer({ ...inMemory(), framing }, handler);
    assertEquals(await t.talk("one\r\n"), framing.lineEnd === "crlf" ? "line one\r\n" : await t.talk("one\r\n"));
  }
  assertEquals(blocks, []);
  await using t = startServer({ ...inMemory(), framing: { lineEnd: "lf" } }, handler);
  assertEquals(await t.talk("one\r\ntwo\n"), "one\r\ntwo\n");
  assertEquals(blocks.join(""), "one\r\ntwo\n");
});

for (const onLongLine of ["discard", "truncate"] as const) {
  test(`a line of 4 MiB takes no more memory than the limit while it is read to ${onLongLine} it`, async () => {
    const { listener, clock } = inMemory();
    let largest = 0;
    const watched = tapped(listener, (inner) => ({
      read: (into) => (largest = Math.max(largest, into.buffer.byteLength), inner.read(into)),
    }));
    const seen: string[] = [];
    const options = { clock, maxLineBytes: 1000, framing: { onLongLine }, lastWords: () => null };
    await using t = startServer({ ...options, listener: watched }, (line) => void seen.push(line));
    const client = t.own(listener.connect());
    const part = "x".repeat(32 * 1024);
    for (let i = 0; i < 128; i++) await client.write(part);
    await client.write("\nnext\n");
    await client.closeWrite();
    assertEquals([await client.readAll(), (await t.closed()).reason], ["", "end"]);
    assertEquals(seen, onLongLine === "truncate" ? ["x".repeat(1000), "next"] : ["next"]);
    assertLessOrEqual(largest, 64 * 1024);
  });
}

test("lastLineEnd of a line that is truncated is right, also if its CR and its LF come apart", async () => {
  const { listener, clock } = inMemory();
  const framing = { onLongLine: "truncate" } as const;
  const seen: unknown[] = [];
  await using t = startConversations({ listener, clock, maxLineBytes: 3, framing }, async (conn) => {
    for await (const line of conn.lines) seen.push(line, conn.lastLineEnd);
  });
  const client = await t.connect();
  for (const part of ["abcdef\r", "\nghijkl\n"]) await client.write(part), await clock.advance(0);
  assertEquals(seen, ["abc", "crlf", "ghi", "lf"]);
  await client.closeWrite();
  await t.closed();
});

test("a CR that was read as a byte belongs to no line end", async () => {
  const seen: unknown[] = [];
  await using t = startConversations(inMemory(), async (conn) => {
    seen.push(await conn.readLine(), conn.lastLineEnd);
    await conn.readExactly(2);
    seen.push(await conn.readLine(), conn.lastLineEnd);
  });
  await t.talk("one\r\nx\r\ntwo\n");
  await t.closed();
  assertEquals(seen, ["one", "crlf", "", "lf"]);
});

test("a line that is discarded hands out nothing of one that was truncated before", async () => {
  const seen: string[] = [];
  const options = { ...inMemory(), maxLineBytes: 3, lastWords: () => null };
  await using t = startConversations({ ...options, framing: { onLongLine: "truncate" } }, async (conn) => {
    for await (const line of conn.lines) {
      seen.push(line);
      conn.setFraming({ onLongLine: "discard" });
    }
  });
  await t.talk("abcdef\nghijkl\nend\n");
  await t.closed();
  assertEquals(seen, ["abc", "end"]);
});

test('under "lf" a CR at the end of a line counts in its length, also in a block', async () => {
  const handlers = [
    (line: string) => line,
    Object.assign((line: string) => line, { block: (lines: string) => lines }),
  ];
  for (const handler of handlers) {
    await using t = startServer({ ...inMemory(), maxLineBytes: 3, framing: { lineEnd: "lf" } }, handler);
    assertEquals(await t.talk("ab\r\n123\r\n"), "ab\r\nerror: line longer than 3 bytes\n");
    assertEquals((await t.closed()).reason, "line-too-long");
  }
});
