import { assertEquals, assertMatch } from "@std/assert";
import { test, testOnce } from "../../kit/bounded.ts";
import { ask, encode, start } from "../../kit/redis.ts";
import { inMemory } from "../../kit/server.ts";

const OK = "+OK\r\n";
const NIL = "$-1\r\n";
const SYNTAX_ERROR = "-ERR syntax error\r\n";
const NOT_INTEGER = "-ERR value is not an integer or out of range\r\n";

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

test("redis looks for keys in bounded time, whatever the pattern", async () => {
  await using t = start();
  await t.talk(encode("SET", "a".repeat(1000), "1"));
  const pattern = "a*".repeat(100);
  assertEquals(await t.talk(encode("KEYS", pattern + "b")), "*0\r\n");
  assertMatch(await t.talk(encode("KEYS", pattern)), /^\*1\r\n/);
});

test("redis refuses a reply that is too long, and a pattern", async () => {
  await using t = start();
  const value = "x".repeat(12_000_000);
  await t.talk(encode("SET", "a", value));
  const [long, pattern] = ["-ERR reply too long\r\n", "-ERR pattern too long\r\n"];
  assertEquals(await t.talk(encode("MGET", "a", "a", "a") + encode("KEYS", "a".repeat(1001))), long + pattern);
  assertEquals(t.all("handler-error"), []);
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
