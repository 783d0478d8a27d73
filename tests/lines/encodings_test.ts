import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { test } from "../kit/bounded.ts";
import { toBytes } from "../kit/bytes.ts";
import { inMemory, startConversations, startServer } from "../kit/server.ts";

const latin1 = (text: string) => Uint8Array.from(text, (character) => character.charCodeAt(0));

test("latin1 holds for lines and for what is written; a character beyond it is refused, and nothing of it is sent", async () => {
  const all = String.fromCharCode(...Array.from({ length: 256 }, (_, i) => i)).replace("\n", "");
  await using t = startConversations({ ...inMemory(), framing: { encoding: "latin1" } }, async (conn) => {
    assertEquals(await conn.readLine(), all);
    for (const beyond of ["\u0100", "ok €", "😀", "\ud800"]) {
      await assertRejects(() => conn.write(beyond), TypeError, "latin1 ends at U+00FF");
      assertThrows(() => conn.close({ lastWord: beyond }), TypeError, "latin1 ends at U+00FF");
    }
    conn.write(all);
    conn.close({ lastWord: "bye \xff" });
  });
  const client = await t.connect();
  await client.write(latin1(`${all}\n`));
  const parts: number[] = [];
  for (let bytes = await client.read(); bytes !== null; bytes = await client.read()) parts.push(...bytes);
  assertEquals(Uint8Array.from(parts), latin1(`${all}bye \xff\n`));
});

test("under latin1 a delimiter that is text is latin1, too, and a character beyond it is refused", async () => {
  const framing = { encoding: "latin1", lineEnd: { delimiter: "é" } } as const;
  const got: unknown[] = [];
  await using t = startConversations({ ...inMemory(), framing }, async (conn) => {
    got.push(await conn.readLine(), await conn.readUntil("ü"));
    await assertRejects(() => conn.readUntil("€"), TypeError, "Cannot use delimiter U+20AC: latin1 ends at U+00FF");
    conn.close({ lastWord: "bye" });
  });
  const client = await t.connect();
  await client.write(latin1("oneétwoü"));
  assertEquals(await client.read(), latin1("byeé"));
  assertEquals(got, ["one", latin1("two")]);
  const beyond = { encoding: "latin1", lineEnd: { delimiter: "€" } } as const;
  assertThrows(
    () => startConversations({ ...inMemory(), framing: beyond }, () => {}),
    TypeError,
    "Cannot use framing.lineEnd.delimiter U+20AC: latin1 ends at U+00FF",
  );
});

test("a reply that latin1 does not have is the handler's error; what the server itself says is sent with question marks", async () => {
  const lastWords = () => "sorry €";
  const options = { ...inMemory(), lastWords, framing: { encoding: "latin1" } } as const;
  await using t = startServer(options, (line) => line === "bad" ? "€" : line);
  assertEquals(await t.talk("ok\nbad\nlost\n"), "ok\nsorry ?\n");
  assertEquals((await t.closed()).reason, "handler-error");
});

test("a line handler that changes the framing has its reply sent under the old one, and gets the next line under the new", async () => {
  await using t = startServer(inMemory(), async (line, conn) => {
    if (line === "change") conn.setFraming({ lineEnd: { delimiter: "\0" }, encoding: "latin1" });
    await Promise.resolve();
    return `<ß${line}>`;
  });
  const client = await t.connect();
  await client.write(latin1("change\none\ntwo\xdf\0"));
  await client.closeWrite();
  const parts: number[] = [];
  for (let bytes = await client.read(); bytes !== null; bytes = await client.read()) parts.push(...bytes);
  assertEquals(Uint8Array.from(parts), Uint8Array.from([...toBytes("<ßchange>\n"), ...latin1("<ßone\ntwo\xdf>\0")]));
});

test("invalid text ends the input before its line, and what came before is answered", async () => {
  const framing = { invalidText: "error" } as const;
  const bytes = Uint8Array.from([...toBytes("one\ntwo\n"), 0xff, ...toBytes("\nthree\n")]);
  await using t = startServer({ ...inMemory(), framing }, (line) => line);
  assertEquals(await t.talk(bytes), "one\ntwo\nerror: invalid text\n");
  let ending: string | undefined;
  await using c = startConversations({ ...inMemory(), framing }, async (conn) => {
    for await (const line of conn.lines) await conn.write(`${line}\n`);
    ending = conn.ending;
  });
  assertEquals(await c.talk(bytes), "one\ntwo\nerror: invalid text\n");
  assertEquals([ending, (await c.closed()).reason, (await t.closed()).reason], Array(3).fill("invalid-text"));
});

test("invalid text behind a batch can still be replaced, if the handler changes the framing before it reads on", async () => {
  const batches: string[][] = [];
  await using t = startConversations({ ...inMemory(), framing: { invalidText: "error" } }, async (conn) => {
    for await (const batch of conn.batches) {
      batches.push(batch);
      conn.setFraming({ invalidText: "replace" });
    }
  });
  await t.talk(Uint8Array.from([...toBytes("one\ntwo\n"), 0xff, ...toBytes("\n")]));
  assertEquals([batches, (await t.closed()).reason], [[["one", "two"], ["\uFFFD"]], "end"]);
});

test("under utf-8, what the server itself says is sent as it is", async () => {
  await using t = startServer({ ...inMemory(), maxLineBytes: 3, lastWords: () => "zu lang: 4 € 💡" });
  assertEquals(await t.talk("abcd\n"), "zu lang: 4 € 💡\n");
});
