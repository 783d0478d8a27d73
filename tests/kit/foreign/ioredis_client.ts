/**
 * Talks to a Redis on the port in its argument with npm's ioredis, and checks every answer.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { assertEquals, assertGreater } from "@std/assert";
// deno-lint-ignore no-import-prefix -- only this file needs it
import { Redis } from "npm:ioredis@5.8.2";

const [client, subscriber] = [connect(), connect()];
const bytes = Buffer.from(Uint8Array.from({ length: 1024 * 1024 }, (_, i) => (i * i) >> 3));

assertEquals(await client.set("text", "ä ñ 日", "EX", 1000), "OK");
assertEquals(await client.get("text"), "ä ñ 日");
assertGreater(await client.ttl("text"), 0);
assertEquals(await client.set("text", "new", "NX"), null);
assertEquals(await client.set("bytes", bytes), "OK");
assertEquals(bytes.equals((await client.getBuffer("bytes"))!), true);
assertEquals(await client.mset("a", "1", "b", "2"), "OK");
assertEquals(await client.mget("a", "none", "b"), ["1", null, "2"]);
const counts = await client.pipeline(Array(100).fill(["incr", "n"])).exec();
assertEquals(counts, Array.from({ length: 100 }, (_, i) => [null, i + 1]));
assertEquals(await client.keys("?"), ["a", "b", "n"]);
assertEquals(await client.del("a", "b", "none"), 2);

const messages: unknown[] = [];
const { promise: heard, resolve } = Promise.withResolvers<void>();
subscriber.on("message", (...message) => messages.push(message) === 3 && resolve());
assertEquals(await subscriber.subscribe("news", "talk"), 2);
assertEquals([await client.publish("news", "one"), await client.publish("news", "two\r\n")], [1, 1]);
assertEquals(await subscriber.unsubscribe("news"), 1);
assertEquals([await client.publish("news", "x"), await client.publish("talk", "three")], [0, 1]);
await heard;
assertEquals(messages, [["news", "one"], ["news", "two\r\n"], ["talk", "three"]]);
assertEquals([await subscriber.unsubscribe(), await subscriber.ping()], [0, "PONG"]);
assertEquals([await client.quit(), await subscriber.quit()], ["OK", "OK"]);
console.log("done");

function connect(): Redis {
  return new Redis({ host: "127.0.0.1", port: Number(Deno.args[0]) });
}
