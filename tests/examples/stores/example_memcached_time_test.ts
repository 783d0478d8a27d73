import { assertEquals, assertMatch } from "@std/assert";
import type { TestClient } from "@x/shouty/testing";
import { testOnce } from "../../kit/bounded.ts";
import { start } from "../../kit/memcached.ts";
import { inMemory } from "../../kit/server.ts";

testOnce("memcached forgets items when their time is up, and all of them when asked to", async () => {
  const { listener, clock } = inMemory();
  await using t = start({ listener, clock });
  const client = await t.connect();
  await ask(client, "set short 0 10 1\r\n1\r\nset long 0 100 1\r\n1\r\nset now 0 -1 1\r\n1\r\n", 3);
  const date = Math.floor(Date.now() / 1000) + 10_000;
  await ask(client, `set late 0 ${date} 1\r\n1\r\nset early 0 ${date - 20_000} 1\r\n1\r\n`, 2);
  assertEquals(await keys(client), ["short", "long", "late"]);
  await clock.advance(9_999);
  assertEquals(await keys(client), ["short", "long", "late"]);
  await clock.advance(1);
  assertEquals(await keys(client), ["long", "late"]);
  assertEquals(await ask(client, "touch long 30\r\ntouch short 30\r\n", 2), ["TOUCHED\r", "NOT_FOUND\r"]);
  assertMatch((await ask(client, "gats 0 late\r\n", 3))[0], /^VALUE late 0 1 \d+\r$/);
  await clock.advance(30_000);
  assertEquals(await keys(client), ["late"]);

  assertEquals(await ask(client, "flush_all 5\r\nset short 0 0 1\r\n1\r\n", 2), ["OK\r", "STORED\r"]);
  await clock.advance(4_999);
  assertEquals(await keys(client), ["short", "late"]);
  await clock.advance(1);
  assertEquals(await keys(client), []);
  assertEquals(await ask(client, "set long 0 0 1\r\n1\r\nflush_all\r\n", 2), ["STORED\r", "OK\r"]);
  assertEquals(await keys(client), []);

  const counted = await ask(client, "set count 0 5 1\r\n1\r\nincr count 1\r\nappend count 0 9 1\r\n0\r\n", 3);
  assertEquals(counted, ["STORED\r", "2\r", "STORED\r"]);
  await clock.advance(5000);
  assertEquals(await ask(client, "incr count 1\r\n", 1), ["NOT_FOUND\r"]);
});

testOnce("memcached forgets what was to be flushed at a time, whatever is to be flushed later", async () => {
  const { listener, clock } = inMemory();
  await using t = start({ listener, clock });
  const client = await t.connect();
  await ask(client, "set long 0 0 1\r\n1\r\nflush_all\r\nflush_all 100\r\n", 3);
  assertEquals(await keys(client), []);
  await ask(client, "set long 0 0 1\r\n1\r\nflush_all 5\r\n", 2);
  await clock.advance(5000);
  await ask(client, "flush_all 100\r\n", 1);
  assertEquals(await keys(client), []);
  await ask(client, `set long 0 0 1\r\n1\r\nflush_all ${Math.floor(Date.now() / 1000) + 100}\r\n`, 2);
  assertEquals(await keys(client), ["long"]);
  await clock.advance(100_000);
  assertEquals(await keys(client), []);
});

testOnce("memcached says nothing to a client that has been silent for too long", async () => {
  const { listener, clock } = inMemory();
  await using t = start({ listener, clock });
  const client = await t.connect();
  await ask(client, "version\r\n", 1);
  await clock.advance(600_000);
  assertEquals(await client.readAll(), "");
  assertEquals((await t.closed()).reason, "idle");
});

async function ask(client: TestClient, text: string, lines: number): Promise<string[]> {
  await client.write(text);
  return await Array.fromAsync({ length: lines }, async () => (await client.readLine())!);
}

/** Which of the keys of the test of times are there. */
async function keys(client: TestClient): Promise<string[]> {
  await client.write("get short long now late early\r\n");
  const found = [];
  for (let line; (line = await client.readLine()) !== "END\r";) {
    const key = /^VALUE (\w+) /.exec(line!)?.[1];
    if (key !== undefined) found.push(key);
  }
  return found;
}
