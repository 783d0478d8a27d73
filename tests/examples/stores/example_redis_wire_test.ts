import { assertEquals } from "@std/assert";
import type { TestClient } from "@x/shouty/testing";
import { test } from "../../kit/bounded.ts";
import { encode, start } from "../../kit/redis.ts";

const OK = "+OK\r\n";

const NOT_INTEGER = "-ERR value is not an integer or out of range\r\n";
const PROTOCOL_ERROR = "-ERR Protocol error\r\n";

test("redis keeps every byte of a value, also those that end a line, whatever its length", async () => {
  await using t = start();
  const client = await t.connect();
  for (const size of [0, 1, 2, 3, 100, 4095, 4096, 4097, 300_000]) {
    for (const pattern of ["\r", "\n", "\r\n", "\n\r", "a\r\n\x00\xff\xc3", "$1\r\n"]) {
      const value = latin1(pattern.repeat(size).slice(0, size));
      await client.write(join(latin1(`*3\r\n$3\r\nSET\r\n$1\r\na\r\n$${size}\r\n`), value, latin1("\r\n")));
      await client.write(encode("GET", "a") + encode("ECHO", "done"));
      const reply = join(latin1(`${OK}$${size}\r\n`), value, latin1("\r\n$4\r\ndone\r\n"));
      assertEquals(await readExactly(client, reply.length), reply);
    }
  }
});

test("redis does not take the first line of a value for a number", async () => {
  await using t = start();
  const value = "5\r\napples";
  const talk = encode("SET", "a", value) + encode("INCR", "a") + encode("GET", "a");
  assertEquals(await t.talk(talk), `${OK}${NOT_INTEGER}$9\r\n${value}\r\n`);
});

test("redis answers a pipeline in order, however it is cut", async () => {
  await using t = start();
  const commands = Array.from(
    { length: 50 },
    (_, i) => encode("SET", `k${i}`, "v\r\n".repeat(i)) + encode("GET", `k${i}`),
  );
  const replies = Array.from({ length: 50 }, (_, i) => `${OK}$${3 * i}\r\n${"v\r\n".repeat(i)}\r\n`).join("");
  const text = commands.join("");
  assertEquals(await t.talk(text), replies);
  const client = await t.connect();
  for (let at = 0; at < text.length; at += 7) await client.write(text.slice(at, at + 7));
  await client.closeWrite();
  assertEquals(await client.readAll(), replies);
});

for (
  const [what, text] of Object.entries({
    "a count that is none": "*x\r\n",
    "a count that is missing": "*\r\n",
    "a count in another notation": `*0x1\r\n$4\r\nPING\r\n`,
    "an argument that is none": "*1\r\nPING\r\n",
    "an argument without its length": "*1\r\n$\r\n\r\n",
    "a negative length": "*1\r\n$-1\r\n",
    "an argument that is longer than it says": "*1\r\n$3\r\nPING\r\n",
    "an argument that is shorter than it says": "*1\r\n$5\r\nPING\r\n*1\r\n$4\r\nPING\r\n",
    "a long argument that is longer than it says": `*1\r\n$5000\r\n${"x".repeat(5001)}\r\n`,
    "an argument that is too large": "*2\r\n$3\r\nGET\r\n$16777216\r\n",
    "too many arguments": `*100000\r\n${"$0\r\n\r\n".repeat(70_000)}`,
  })
) {
  test(`redis hangs up on ${what}`, async () => {
    await using t = start();
    assertEquals(await t.talk(encode("PING") + text), `+PONG\r\n${PROTOCOL_ERROR}`);
  });
}

test("redis runs no command that the end of input cuts off", async () => {
  await using t = start();
  assertEquals(await t.talk("SET a 1\r\nSET a 2"), OK);
  const begun = "*3\r\n$3\r\nSET\r\n$1\r\na\r\n";
  const cuts = [
    "$",
    "$1\r\n",
    "$1\r\n2",
    "$9\r\n2\r\n",
    `$5000\r\n${"x".repeat(4000)}`,
    `$5000\r\n${"x".repeat(5000)}`,
  ];
  for (const cut of cuts) assertEquals(await t.talk(begun + cut), "", cut);
  assertEquals(await t.talk("GET a\r\n"), "$1\r\n1\r\n");
  assertEquals(t.all("handler-error"), []);
});

test("redis keeps the last byte of a word, though it may be white space elsewhere", async () => {
  await using t = start();
  const client = await t.connect();
  await client.write(latin1("SET k voil\xc3\xa0\r\nGET k\r\n"));
  const reply = latin1(`${OK}$6\r\nvoil\xc3\xa0\r\n`);
  assertEquals(await readExactly(client, reply.length), reply);
});

test("redis keeps every byte of a key, whatever its length", async () => {
  for (const times of [1, 100]) {
    await using t = start();
    const key = String.fromCharCode(...Array(256).keys()).repeat(times);
    const client = await t.connect();
    await client.write(latin1(encode("SET", key, "1") + encode("GET", key) + encode("KEYS", "*")));
    const replies = latin1(`${OK}$1\r\n1\r\n*1\r\n$${key.length}\r\n${key}\r\n`);
    assertEquals(await readExactly(client, replies.length), replies);
  }
});

function latin1(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

function join(...parts: Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

async function readExactly(client: TestClient, count: number): Promise<Uint8Array> {
  const parts = [];
  for (let left = count; left > 0; left -= parts.at(-1)!.length) {
    parts.push(await client.read() ?? new Uint8Array(left));
  }
  return join(...parts);
}
