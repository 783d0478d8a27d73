import { assertEquals } from "@std/assert";
import { serveStore } from "../../examples/kv_store.ts";
import { test } from "../kit/bounded.ts";
import { TestServer } from "../kit/server.ts";

const FULL = "SERVER_ERROR out of memory storing object\r\n";

test("kv_store shares the items among all clients", async () => {
  await using t = new TestServer(serveStore, {});
  const reader = await t.connect();
  await reader.write("get word\r\n");
  assertEquals(await reader.readLine(), "END\r");

  assertEquals(await t.talk("set word 42 0 9\r\nä ñ 日\r\n"), "STORED\r\n");
  await reader.write(
    "get word\r\nset word 0 0 0\r\n\r\nget word\r\ndelete word\r\ndelete word\r\nget word\r\nquit\r\nget word\r\n",
  );
  await reader.closeWrite();
  assertEquals(
    await reader.readAll(),
    "VALUE word 42 9\r\nä ñ 日\r\nEND\r\nSTORED\r\nVALUE word 0 0\r\n\r\nEND\r\nDELETED\r\nNOT_FOUND\r\nEND\r\n",
  );
});

test("kv_store counts every increment of many clients", async () => {
  await using t = new TestServer(serveStore, {});
  await t.talk("set hits 0 0 1\n0\n");
  const clients = Array.from(
    { length: 20 },
    () => t.talk("incr hits 2 noreply\n".repeat(49) + "incr hits 2\n"),
  );
  const last = await Promise.all(clients);
  assertEquals(last.includes("2000\r\n"), true);
  assertEquals(await t.talk("get hits\n"), "VALUE hits 0 4\r\n2000\r\nEND\r\n");
});

test("kv_store counts as memcached does, in 64 bits and only what is a number", async () => {
  await using t = new TestServer(serveStore, {});
  const most = "18446744073709551615";
  assertEquals(
    await t.talk(`set n 0 0 20\n${most}\nincr n 0\nincr n 3\n`),
    `STORED\r\n${most}\r\n2\r\n`,
  );
  assertEquals(await t.talk("incr nothing 1\n"), "NOT_FOUND\r\n");
  assertEquals(
    await t.talk("set word 0 0 3\none\nincr word 1\n"),
    "STORED\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
  );
});

for (
  const [what, line] of Object.entries({
    "an empty line": "",
    "an unknown command": "frobnicate key",
    "a name that every object has": "constructor key",
    "a command without its key": "get",
    "a command with too much": "delete key 0",
    "a key that is too long": `get ${"k".repeat(251)}`,
    "a key that is not ASCII": "get schlüssel",
    "a number that is none": "incr key one",
    "a number that is negative": "incr key -1",
  })
) {
  test(`kv_store answers ${what} with an error and goes on`, async () => {
    await using t = new TestServer(serveStore, {});
    assertEquals(await t.talk(`${line}\nget key\n`), "ERROR\r\nEND\r\n");
  });
}

for (
  const [what, text, error] of [
    ["a value with a line end inside", "set key 0 0 20\nx\nset pin 0 0 4\n0000\n", "CLIENT_ERROR bad data chunk"],
    ["a value that is longer than it says", "set key 0 0 1\n12\nset pin 0 0 4\n0000\n", "CLIENT_ERROR bad data chunk"],
    ["a set without a count", "set key 0 0\nx\nset pin 0 0 4\n0000\n", "ERROR"],
    ["a set with a bad key", "set kéy 0 0 1\nx\nset pin 0 0 4\n0000\n", "ERROR"],
    ["a set with flags of more than 32 bits", "set key 4294967296 0 1\nx\nset pin 0 0 4\n0000\n", "ERROR"],
    ["a set that wants to expire", "set key 0 60 1\nx\nset pin 0 0 4\n0000\n", "ERROR"],
  ]
) {
  test(`kv_store hangs up on ${what}, and stores nothing`, async () => {
    await using t = new TestServer(serveStore, {});
    assertEquals(await t.talk(text), `${error}\r\n`);
    assertEquals(await t.talk("get key\nget pin\n"), "END\r\nEND\r\n");
  });
}

test("kv_store stores nothing when the client leaves before the value", async () => {
  await using t = new TestServer(serveStore, {});
  assertEquals(await t.talk("set key 0 0 0\n"), "");
  assertEquals(await t.talk("get key\n"), "END\r\n");
});

test("kv_store refuses bytes that are not UTF-8, whatever their count", async () => {
  await using t = new TestServer(serveStore, {});
  // Three invalid bytes, which are decoded as one character of three bytes.
  const bytes = Uint8Array.from([..."set key 0 0 3\n\xF0\x9F\x98\n"], (char) => char.charCodeAt(0));
  assertEquals(await t.talk(bytes), "CLIENT_ERROR bad data chunk\r\n");
});

test("kv_store refuses what does not fit, and takes it when there is room again", async () => {
  await using t = new TestServer((options) => serveStore(options, 2 * (256 + 1 + 10)), {});
  const set = (key: string, size: number) => t.talk(`set ${key} 0 0 ${size}\n${"x".repeat(size)}\n`);
  assertEquals([await set("a", 10), await set("b", 10), await set("c", 1)], ["STORED\r\n", "STORED\r\n", FULL]);
  assertEquals([await set("a", 11), await set("a", 9), await set("b", 11)], [FULL, "STORED\r\n", "STORED\r\n"]);
  assertEquals(await t.talk("get a\n"), "VALUE a 0 9\r\nxxxxxxxxx\r\nEND\r\n");
  assertEquals(await t.talk("delete b\n"), "DELETED\r\n");
  assertEquals([await set("c", 11), await set("d", 1)], ["STORED\r\n", FULL]);
  await t.talk("set a 0 0 9\n999999999\n");
  assertEquals(await t.talk("incr a 1\nget a\n"), `${FULL}VALUE a 0 9\r\n999999999\r\nEND\r\n`);
});

test("kv_store sends no reply to a command with noreply", async () => {
  await using t = new TestServer(serveStore, {});
  const text = "set a 0 0 1 noreply\n1\nincr a 1 noreply\nget a\ndelete a noreply\ndelete a noreply\nget a\n";
  assertEquals(await t.talk(text), "VALUE a 0 1\r\n2\r\nEND\r\nEND\r\n");
});

test("kv_store names the limit that a client meets in its own protocol", async () => {
  await using t = new TestServer(serveStore, { maxLineBytes: 100 });
  const reply = await t.talk(`set key 0 0 101\n${"x".repeat(101)}\n`);
  assertEquals(reply, "SERVER_ERROR line-too-long 100\r\n");
});
