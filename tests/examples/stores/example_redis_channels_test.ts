import { assertEquals, assertLess, assertMatch } from "@std/assert";
import { test, testOnce } from "../../kit/bounded.ts";
import { ask, encode, start } from "../../kit/redis.ts";
import { inMemory } from "../../kit/server.ts";

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
