import { assertEquals, assertMatch } from "@std/assert";
import type { TestClient } from "@x/shouty/testing";
import { serveMemcached } from "../../../examples/memcached.ts";
import { test, testOnce } from "../../kit/bounded.ts";
import { start } from "../../kit/memcached.ts";
import { inMemory, TestServer } from "../../kit/server.ts";

const BAD_LINE = "CLIENT_ERROR bad command line format\r\n";
const BAD_CHUNK = "CLIENT_ERROR bad data chunk\r\n";
const TOO_LARGE = "SERVER_ERROR object too large for cache\r\n";
const LARGEST = 1024 * 1024 - 2;

test("memcached shares the items among all clients", async () => {
  await using t = start();
  const reader = await t.connect();
  await reader.write("get word\r\n");
  assertEquals(await reader.readLine(), "END\r");

  assertEquals(await t.talk("set word 42 0 12\r\nä ñ 日 ß\r\n"), "STORED\r\n");
  await reader.write(
    "get word\r\nset word 0 0 0\r\n\r\nget word\r\ndelete word\r\ndelete word 0\r\nget word\r\nquit\r\nget word\r\n",
  );
  await reader.closeWrite();
  assertEquals(
    await reader.readAll(),
    "VALUE word 42 12\r\nä ñ 日 ß\r\nEND\r\nSTORED\r\nVALUE word 0 0\r\n\r\nEND\r\nDELETED\r\nNOT_FOUND\r\nEND\r\n",
  );
});

test("memcached keeps every byte of a value, also those that end a line", async () => {
  await using t = start();
  const value = Uint8Array.from({ length: 1000 }, (_, i) => i % 3 === 0 ? 13 : i % 3 === 1 ? 10 : i);
  const client = await t.connect();
  await client.write(join("set bytes 0 0 1000\r\n", value, "\r\n"));
  assertEquals(await client.readLine(), "STORED\r");
  await client.write("get bytes\r\n");
  const reply = join("VALUE bytes 0 1000\r\n", value, "\r\nEND\r\n");
  assertEquals(await readExactly(client, reply.length), reply);
});

test("memcached takes a key of any bytes but spaces and control characters", async () => {
  await using t = start();
  const talk = `set schlüssel/鍵 0 0 1\r\n1\r\nget ${"k".repeat(250)} schlüssel/鍵\r\n`;
  assertEquals(await t.talk(talk), "STORED\r\nVALUE schlüssel/鍵 0 1\r\n1\r\nEND\r\n");
  const bytes = (text: string) => Uint8Array.from(text, (character) => character.charCodeAt(0));
  assertEquals(await t.talk(bytes("set \xff 0 0 1\r\n1\r\nset \xfe 0 0 1\r\n2\r\n")), "STORED\r\nSTORED\r\n");
  assertMatch(await t.talk(bytes("get \xff\r\n")), /^VALUE . 0 1\r\n1\r\nEND\r\n$/);
  // The last byte is white space in Latin-1.
  const voila = "set voilà 0 0 1\r\n3\r\nget voilà\r\n";
  assertEquals(await t.talk(voila), "STORED\r\nVALUE voilà 0 1\r\n3\r\nEND\r\n");
});

test("memcached stores under conditions, and joins values", async () => {
  await using t = start();
  assertEquals(
    await t.talk(
      "replace a 0 0 1\r\n1\r\nappend a 0 0 1\r\n1\r\nprepend a 0 0 1\r\n1\r\ncas a 0 0 1 1\r\n1\r\nget a\r\n" +
        "add a 7 0 2\r\nbc\r\nadd a 0 0 1\r\n1\r\nappend a 1 0 1\r\nd\r\nprepend a 1 0 1\r\na\r\nget a\r\n",
    ),
    "NOT_STORED\r\nNOT_STORED\r\nNOT_STORED\r\nNOT_FOUND\r\nEND\r\n" +
      "STORED\r\nNOT_STORED\r\nSTORED\r\nSTORED\r\nVALUE a 7 4\r\nabcd\r\nEND\r\n",
  );
  const [, unique] = /^VALUE a 7 4 (\d+)\r\n/.exec(await t.talk("gets a\r\n"))!;
  assertEquals(
    await t.talk(`cas a 0 0 1 ${unique}\r\nx\r\ncas a 0 0 1 ${unique}\r\ny\r\nreplace a 1 0 1\r\nz\r\nget a\r\n`),
    "STORED\r\nEXISTS\r\nSTORED\r\nVALUE a 1 1\r\nz\r\nEND\r\n",
  );
});

test("memcached counts every increment of many clients", async () => {
  await using t = start();
  await t.talk("set hits 5 0 1\r\n0\r\n");
  const clients = Array.from(
    { length: 20 },
    () => t.talk("incr hits 2 noreply\n".repeat(49) + "incr hits 2\n"),
  );
  const last = await Promise.all(clients);
  assertEquals(last.includes("2000\r\n"), true);
  assertEquals(await t.talk("get hits\n"), "VALUE hits 5 4\r\n2000\r\nEND\r\n");
});

test("memcached counts in 64 bits, not below 0, and only what is a number", async () => {
  await using t = start();
  const most = "18446744073709551615";
  assertEquals(
    await t.talk(`set n 0 0 20\r\n${most}\r\nincr n 0\r\nincr n 3\r\ndecr n 1\r\ndecr n 5\r\n`),
    `STORED\r\n${most}\r\n2\r\n1\r\n0\r\n`,
  );
  assertEquals(await t.talk("incr nothing 1\r\ndecr nothing 1\r\n"), "NOT_FOUND\r\nNOT_FOUND\r\n");
  assertEquals(await t.talk("incr n one\r\n"), "CLIENT_ERROR invalid numeric delta argument\r\n");
  assertEquals(
    await t.talk("set word 0 0 3\r\none\r\nincr word 1\r\n"),
    "STORED\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
  );
  assertEquals(
    await t.talk("set more 0 0 20\r\n18446744073709551616\r\nincr more 1\r\nincr n 18446744073709551616\r\n"),
    "STORED\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n" +
      "CLIENT_ERROR invalid numeric delta argument\r\n",
  );
});

for (
  const [what, line, error = "ERROR\r\n"] of [
    ["an empty line", ""],
    ["an unknown command", "frobnicate key"],
    ["a name that every object has", "constructor key"],
    ["a command without its key", "get"],
    ["a command with too much", "touch key 0 0"],
    ["a delete with a time", "delete key 5", BAD_LINE],
    ["a key that is too long", `get ${"k".repeat(251)}`, BAD_LINE],
    ["a key with a control character", "delete k\x01y", BAD_LINE],
    ["a time that is none", "gat soon key", BAD_LINE],
    ["a value under a key that is too long", `set ${"k".repeat(251)} 0 0 14\r\nget pin\r\n  pin`, BAD_LINE],
    ["a value with flags of more than 32 bits", "set key 4294967296 0 5\r\nquit\n", BAD_LINE],
    ["a value that is too large", `set key 0 0 ${LARGEST + 1}\r\n${"get pin\r\n".repeat(116508)}123`, TOO_LARGE],
  ]
) {
  test(`memcached answers ${what} with an error and goes on`, async () => {
    await using t = start();
    assertEquals(await t.talk(`${line}\r\nget key\r\n`), `${error}END\r\n`);
  });
}

for (
  const [what, text, error] of [
    ["a value that is shorter than it says", "set key 0 0 20\r\nx\r\nset pin 0 0 4\r\n0000\r\n", BAD_CHUNK],
    ["a value that is longer than it says", "set key 0 0 1\r\n12\r\nset pin 0 0 4\r\n0000\r\n", BAD_CHUNK],
    ["a value that does not end with CRLF", "set key 0 0 1\r\n12\nset pin 0 0 4\r\n0000\r\n", BAD_CHUNK],
    ["a value that ends with LF alone", "set key 0 0 1\r\n1\nset pin 0 0 4\r\n0000\r\n", BAD_CHUNK],
    ["a set without a count", "set key 0 0\r\nx\r\nset pin 0 0 4\r\n0000\r\n", BAD_LINE],
    ["a set with a count that is none", "set key 0 0 -1\r\nx\r\nset pin 0 0 4\r\n0000\r\n", BAD_LINE],
    ["a cas without its number", "cas key 0 0 1\r\nx\r\nset pin 0 0 4\r\n0000\r\n", BAD_LINE],
  ]
) {
  test(`memcached hangs up on ${what}, and stores nothing`, async () => {
    await using t = start();
    assertEquals(await t.talk(text), error);
    assertEquals((await t.closed()).reason, "closed");
    assertEquals(await t.talk("get key\r\nget pin\r\n"), "END\r\nEND\r\n");
  });
}

test("memcached stores the largest value, and forgets what a larger one should have replaced", async () => {
  await using t = start();
  const set = (size: number) => t.talk(`set key 0 0 ${size}\r\n${"x".repeat(size)}\r\n`);
  assertEquals(await set(LARGEST), "STORED\r\n");
  assertEquals(await t.talk("append key 0 0 1\r\nx\r\n"), TOO_LARGE);
  assertEquals((await t.talk("get key\r\n")).length, `VALUE key 0 ${LARGEST}\r\n\r\nEND\r\n`.length + LARGEST);
  assertEquals(await set(LARGEST + 1), TOO_LARGE);
  assertEquals(await t.talk("get key\r\n"), "END\r\n");
});

test("memcached stores nothing, and runs nothing, that the end of input cuts off", async () => {
  await using t = start();
  assertEquals(await t.talk("set key 0 0 5\r\nval"), "");
  assertEquals((await t.closed()).reason, "end");
  assertEquals(await t.talk("set key 0 0 1\r\n1\r\ndelete key"), "STORED\r\n");
  assertEquals(await t.talk("get key\r\n"), "VALUE key 0 1\r\n1\r\nEND\r\n");
});

test("memcached drops the items that were not used for longest", async () => {
  await using t = new TestServer((options) => serveMemcached(options, 3 * (512 + 1 + 10)), {});
  const set = (key: string, size: number) => t.talk(`set ${key} 0 0 ${size}\r\n${"x".repeat(size)}\r\n`);
  for (const key of "abc") assertEquals(await set(key, 8), "STORED\r\n");
  assertEquals(await t.talk("get a\r\n"), "VALUE a 0 8\r\nxxxxxxxx\r\nEND\r\n");
  assertEquals(await set("d", 8), "STORED\r\n");
  assertEquals(await t.talk("get a b c d\r\n"), ["a", "c", "d"].map(shown).join("") + "END\r\n");
  assertEquals(await set("e", 9), "STORED\r\n");
  assertEquals(await t.talk("get a c d\r\n"), shown("d") + "END\r\n");
  assertEquals(await set("f", 2000), TOO_LARGE);
  assertEquals(await t.talk("get d\r\n"), shown("d") + "END\r\n");
  // A value in place of another takes no more room than that.
  for (let i = 0; i < 4; i++) assertEquals(await set("d", 8), "STORED\r\n");
  assertMatch(await t.talk("stats\r\n"), /\nSTAT evictions 3\r\nSTAT bytes 1047\r\nSTAT curr_items 2\r\n.*END\r\n$/s);

  function shown(key: string): string {
    return `VALUE ${key} 0 8\r\nxxxxxxxx\r\n`;
  }
});

test("memcached sends no reply to a command with noreply", async () => {
  await using t = start();
  const text = "set a 0 0 1 noreply\r\n1\r\nincr a 1 noreply\r\nget a\r\ndelete a noreply\r\nverbosity 0 noreply\r\n" +
    "touch a 0 noreply\r\ndelete a noreply\r\nget a noreply\r\nset noreply 0 0 1\r\n1\r\nget noreply\r\n";
  assertEquals(await t.talk(text), "VALUE a 0 1\r\n2\r\nEND\r\nEND\r\nSTORED\r\nVALUE noreply 0 1\r\n1\r\nEND\r\n");
});

test("memcached names the limit that a client meets in its own protocol", async () => {
  await using t = start({ maxLineBytes: 100 });
  assertEquals(await t.talk(`get ${"x".repeat(101)}\r\n`), "SERVER_ERROR line-too-long 100\r\n");
});

testOnce("memcached finishes a value that is on its way when it is shut down", async () => {
  await using t = start({ ...inMemory(), drain: "finish" });
  const client = await t.connect();
  await client.write("set key 0 0 10\r\n12345");
  await t.until("accepted");
  const stopping = t.server.shutdown({ drainTimeout: Infinity });
  await client.write("67890\r\n");
  assertEquals(await client.readAll(), "STORED\r\n");
  client.close();
  assertEquals((await stopping).closed, { drained: 1 });
});

function join(...parts: (string | Uint8Array)[]): Uint8Array {
  return Uint8Array.from(
    parts.flatMap((part) => [...typeof part === "string" ? new TextEncoder().encode(part) : part]),
  );
}

async function readExactly(client: TestClient, count: number): Promise<Uint8Array> {
  const bytes = [];
  while (bytes.length < count) bytes.push(...await client.read() ?? []);
  return Uint8Array.from(bytes);
}
