import { assertEquals, assertLess, assertMatch } from "@std/assert";
import type { ServeOptions, Server } from "@x/shouty";
import type { TestClient } from "@x/shouty/testing";
import { serveRedis } from "../../examples/redis.ts";
import { test, testOnce } from "../kit/bounded.ts";
import { inMemory, TestServer } from "../kit/server.ts";

const OK = "+OK\r\n";
const NIL = "$-1\r\n";
const SYNTAX_ERROR = "-ERR syntax error\r\n";
const NOT_INTEGER = "-ERR value is not an integer or out of range\r\n";
const PROTOCOL_ERROR = "-ERR Protocol error\r\n";
const TOO_FEW = "-ERR too few arguments\r\n";

/** Commands that are sent in order, each with its reply. */
const TALKS: Record<string, [command: string, reply: string][]> = {
  "stores and deletes": [
    ["GET a", NIL],
    ["SET a one", OK],
    ["get a", "$3\r\none\r\n"],
    ["EXISTS a b a", ":2\r\n"],
    ["DEL a b", ":1\r\n"],
    ["GET a", NIL],
    ["GET", TOO_FEW],
    ["SET a", TOO_FEW],
  ],
  "stores under conditions": [
    ["SET a 1 XX", NIL],
    ["SET a 1 nx", OK],
    ["SET a 2 NX EX 9", NIL],
    ["SET a 3 EX 9 XX", OK],
    ["TTL a", ":9\r\n"],
    ["SET a 4", OK],
    ["TTL a", ":-1\r\n"],
    ["TTL b", ":-2\r\n"],
    ["SET a 5 EX", SYNTAX_ERROR],
    ["SET a 5 PX 0", SYNTAX_ERROR],
    ["SET a 5 SOON", SYNTAX_ERROR],
    ["SET a 5 NX XX", SYNTAX_ERROR],
    ["SET a 5 XX EX 9 NX", SYNTAX_ERROR],
    ["GET a", "$1\r\n4\r\n"],
  ],
  "counts in 64 bits, and only what is an integer": [
    ["INCR n", ":1\r\n"],
    ["INCRBY n 41", ":42\r\n"],
    ["DECR n", ":41\r\n"],
    ["INCRBY n -42", ":-1\r\n"],
    ["DECRBY n 4", ":-5\r\n"],
    ["DECRBY n -4", ":-1\r\n"],
    ["DECRBY n 0", ":-1\r\n"],
    ["DECRBY n --4", NOT_INTEGER],
    ["SET n 9223372036854775806 EX 100", OK],
    ["INCR n", ":9223372036854775807\r\n"],
    ["INCR n", "-ERR increment or decrement would overflow\r\n"],
    ["TTL n", ":100\r\n"],
    ["INCRBY n 1.5", NOT_INTEGER],
    ["SET n 01", OK],
    ["INCR n", NOT_INTEGER],
    ["SET n 9223372036854775808", OK],
    ["DECR n", NOT_INTEGER],
    ["INCRBY m 9223372036854775808", NOT_INTEGER],
    ["DECRBY m 9223372036854775808", NOT_INTEGER],
    ["INCRBY m -9223372036854775808", ":-9223372036854775808\r\n"],
  ],
  "takes many keys at once": [
    ["MSET a 1 b 2", OK],
    ["MGET a c b", `*3\r\n$1\r\n1\r\n${NIL}$1\r\n2\r\n`],
    ["MSET a 3 b", SYNTAX_ERROR],
    ["GET a", "$1\r\n1\r\n"],
    ["DBSIZE", ":2\r\n"],
    ["FLUSHALL", OK],
    ["DBSIZE", ":0\r\n"],
  ],
  "finds keys by a pattern": [
    ["MSET user:1 x user:22 x users x a.c x", OK],
    ["KEYS user:*", "*2\r\n$6\r\nuser:1\r\n$7\r\nuser:22\r\n"],
    ["KEYS user:?", "*1\r\n$6\r\nuser:1\r\n"],
    ["KEYS *s*r*2", "*1\r\n$7\r\nuser:22\r\n"],
    ["KEYS a.?", "*1\r\n$3\r\na.c\r\n"],
    ["KEYS .", "*0\r\n"],
    ["KEYS u*", "*3\r\n$6\r\nuser:1\r\n$7\r\nuser:22\r\n$5\r\nusers\r\n"],
  ],
  "answers what clients ask for when they connect": [
    ["PING", "+PONG\r\n"],
    ["PING hello", "$5\r\nhello\r\n"],
    ["ECHO hello", "$5\r\nhello\r\n"],
    ["HELLO 3", "-NOPROTO unsupported protocol version\r\n"],
    ["CLIENT SETINFO LIB-NAME test", OK],
    ["CLIENT ID", ":1\r\n"],
    ["COMMAND DOCS", "*0\r\n"],
    ["COMMAND COUNT", ":0\r\n"],
    ["CONFIG GET save", "*0\r\n"],
    ["SELECT 0", OK],
    ["SELECT 1", "-ERR DB index is out of range\r\n"],
    ["INFO", "$65\r\n# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\nloading:0\r\n\r\n"],
    ["toString", "-ERR unknown command\r\n"],
  ],
};

for (const [what, talk] of Object.entries(TALKS)) {
  test(`redis ${what}, in arrays and in lines`, async () => {
    const replies = talk.map(([, reply]) => reply).join("");
    const commands = talk.map(([command]) => command.split(" "));
    for (const text of [commands.map((words) => encode(...words)), talk.map(([command]) => `${command}\r\n`)]) {
      await using t = start();
      assertEquals(await t.talk(text.join("")), replies);
    }
  });
}

test("redis answers QUIT, and then nothing more", async () => {
  await using t = start();
  assertEquals(await t.talk(encode("SET", "a", "1") + encode("QUIT") + encode("SET", "a", "2")), OK + OK);
  assertEquals(await t.talk("\r\n\nGET a\n*0\r\nGET a\n"), "$1\r\n1\r\n".repeat(2));
});

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

testOnce("redis runs no more commands while a client does not read the replies", async () => {
  await using t = start(inMemory());
  const value = "x".repeat(50_000);
  await t.talk(encode("SET", "a", value));
  const client = await t.connect();
  // So few that the server gets them together.
  await client.write("GET a\n".repeat(30) + "SET b 1\n");
  assertEquals(await client.readLine(), "$50000\r");
  assertEquals(await t.talk("GET b\n"), NIL);
  await client.closeWrite();
  assertEquals((await client.readAll()).length, (`$50000\r\n${value}\r\n`.repeat(30) + OK).length - 8);
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

test("redis looks for keys in bounded time, whatever the pattern", async () => {
  await using t = start();
  await t.talk(encode("SET", "a".repeat(1000), "1"));
  const pattern = "a*".repeat(100);
  assertEquals(await t.talk(encode("KEYS", pattern + "b")), "*0\r\n");
  assertMatch(await t.talk(encode("KEYS", pattern)), /^\*1\r\n/);
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

test("redis refuses a reply that is too long, and a pattern", async () => {
  await using t = start();
  const value = "x".repeat(12_000_000);
  await t.talk(encode("SET", "a", value));
  const [long, pattern] = ["-ERR reply too long\r\n", "-ERR pattern too long\r\n"];
  assertEquals(await t.talk(encode("MGET", "a", "a", "a") + encode("KEYS", "a".repeat(1001))), long + pattern);
  assertEquals(t.all("handler-error"), []);
});

test("redis sends what is published to the clients that listen to the channel", async () => {
  await using t = start();
  const [ada, bob] = [await t.connect(), await t.connect()];
  assertEquals(
    await ask(ada, encode("SUBSCRIBE", "news", "talk"), 12),
    "3,9,subscribe,4,news,1,3,9,subscribe,4,talk,2",
  );
  assertEquals(await ask(bob, encode("SUBSCRIBE", "news"), 6), "3,9,subscribe,4,news,1");
  assertEquals(await t.talk(encode("PUBLISH", "news", "a\r\nb") + encode("PUBLISH", "gossip", "x")), ":2\r\n:0\r\n");
  for (const client of [ada, bob]) assertEquals(await ask(client, "", 8), "3,7,message,4,news,4,a,b");
  assertEquals(await ask(ada, encode("PING"), 5), "2,4,pong,0,");
  assertEquals(await ask(ada, encode("UNSUBSCRIBE", "news"), 6), "3,11,unsubscribe,4,news,1");
  assertEquals(await t.talk(encode("PUBLISH", "news", "x") + encode("PUBLISH", "talk", "y")), ":1\r\n:1\r\n");
  assertEquals(await ask(ada, "", 7), "3,7,message,4,talk,1,y");
  assertEquals(await ask(ada, encode("UNSUBSCRIBE"), 6), "3,11,unsubscribe,4,talk,0");
  assertEquals(await ask(ada, encode("UNSUBSCRIBE") + encode("PING"), 6), "3,11,unsubscribe,-1,0,PONG");
  bob.close();
  await t.until("closed", 3);
  assertEquals(await t.talk(encode("PUBLISH", "news", "x")), ":0\r\n");
});

test("redis sends what a client publishes to itself behind the replies to its earlier commands", async () => {
  await using t = start();
  const client = await t.connect();
  const commands = encode("SUBSCRIBE", "news") + encode("ECHO", "one") + encode("PUBLISH", "news", "two") +
    encode("DBSIZE");
  assertEquals(await ask(client, commands, 17), "3,9,subscribe,4,news,1,3,one,3,7,message,4,news,3,two,1,0");
});

testOnce("redis lets a subscriber be silent, but nobody else", async () => {
  const { listener, clock } = inMemory();
  await using t = start({ listener, clock });
  const [subscriber, other] = [await t.connect(), await t.connect()];
  await ask(subscriber, encode("SUBSCRIBE", "news"), 6);
  await ask(other, encode("UNSUBSCRIBE"), 5);
  await clock.advance(600_000);
  assertEquals(await other.readAll(), "");
  assertEquals((await t.closed()).reason, "idle");
  await clock.advance(86_400_000);
  assertEquals(await t.talk(encode("PUBLISH", "news", "x")), ":1\r\n");
  assertEquals(await ask(subscriber, "", 7), "3,7,message,4,news,1,x");
  // Nor one that was a subscriber.
  await ask(subscriber, encode("UNSUBSCRIBE"), 6);
  await clock.advance(600_000);
  assertEquals(t.stats.closed.idle, 2);
});

testOnce("redis keeps no shutdown waiting for a subscriber", async () => {
  await using t = start(inMemory());
  const client = await t.connect();
  await ask(client, encode("SUBSCRIBE", "news"), 6);
  const stopping = t.server.shutdown({ drainTimeout: Infinity });
  assertEquals(await client.readAll(), "");
  client.close();
  assertEquals((await stopping).closed, { drained: 1 });
});

testOnce("redis breaks off a command that has not come whole when it is shut down", async () => {
  for (const begun of ["*3\r\n$3\r\nSET\r\n", "*3\r\n$3\r\n"]) {
    await using t = start(inMemory());
    const client = await t.connect();
    await ask(client, encode("PING") + begun, 1);
    const stopping = t.server.shutdown({ drainTimeout: Infinity });
    assertEquals(await client.readAll(), "");
    client.close();
    assertEquals((await stopping).closed, { drained: 1 });
  }
});

testOnce("redis aborts a subscriber that does not read, and no other", async () => {
  await using t = start({ ...inMemory(), maxQueuedBytes: 100_000 });
  const [slow, publisher] = [await t.connect(), await t.connect()];
  await ask(slow, encode("SUBSCRIBE", "news"), 6);
  const message = encode("PUBLISH", "news", "x".repeat(10_000));
  for (let count = 0; t.all("closed").length === 0; count++) {
    assertLess(count, 1000);
    assertMatch(await ask(publisher, message, 1), /^[01]$/);
  }
  assertEquals((await t.closed()).reason, "write-queue");
  assertEquals(await ask(publisher, message, 1), "0");
});

testOnce("redis forgets keys when their time is up", async () => {
  const { listener, clock } = inMemory();
  await using t = start({ listener, clock });
  const client = await t.connect();
  await ask(
    client,
    encode("SET", "a", "1", "PX", "1500") + encode("SETEX", "b", "10", "1") + encode("SET", "c", "1"),
    3,
  );
  assertEquals(await ask(client, encode("EXPIRE", "c", "5") + encode("EXPIRE", "d", "5"), 2), "1,0");
  for (const never of ["soon", "9223372036854775807", "9999999999999999"]) {
    assertEquals(await ask(client, encode("EXPIRE", "c", never), 1), NOT_INTEGER.slice(1, -2));
  }
  await clock.advance(1499);
  assertEquals(await ask(client, encode("EXISTS", "a", "b", "c"), 1), "3");
  await clock.advance(1);
  assertEquals(await ask(client, encode("EXISTS", "a", "b", "c") + encode("TTL", "c") + encode("DBSIZE"), 3), "2,4,2");
  await clock.advance(5000);
  assertEquals(await ask(client, encode("KEYS", "*"), 3), "1,1,b");
  assertEquals(await ask(client, encode("EXPIRE", "b", "-1") + encode("GET", "b"), 2), "1,-1");
});

test("redis names the limit that a client meets in its own protocol", async () => {
  await using t = start({ maxLineBytes: 100 });
  assertEquals(await t.talk(`ECHO ${"x".repeat(100)}\r\n`), "-ERR line-too-long 100\r\n");
});

function start(options: ServeOptions = {}): TestServer {
  return new TestServer((options): Server => serveRedis(options), options);
}

/** A command as an array of bulk strings. */
function encode(...words: string[]): string {
  return `*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join("")}`;
}

/** Sends text; returns the lines that come back, without the character that says what they are. */
async function ask(client: TestClient, text: string, lines: number): Promise<string> {
  await client.write(text);
  const replies = await Array.fromAsync({ length: lines }, () => client.readLine());
  return replies.map((line) => line!.replace(/^[*$:+-]/, "").replace(/\r$/, "")).join();
}

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
