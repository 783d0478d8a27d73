/**
 * Talks to a memcached on the port in its argument with npm's package of that name, and checks every answer.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { assertEquals } from "@std/assert";
// deno-lint-ignore no-import-prefix -- only this file needs it
import Memcached from "npm:memcached@2.2.2";

const client = new Memcached(`127.0.0.1:${Deno.args[0]}`);
const bytes = Buffer.from(Uint8Array.from({ length: 100_000 }, (_, i) => i * i));

assertEquals(await call("set", "text", "ä ñ 日", 100), true);
assertEquals(await call("get", "text"), "ä ñ 日");
assertEquals(await call("set", "object", { list: [1, "two", null] }, 0), true);
assertEquals(await call("get", "object"), { list: [1, "two", null] });
assertEquals(await call("set", "bytes", bytes, 0), true);
assertEquals(bytes.equals(await call("get", "bytes") as Buffer), true);
assertEquals(await call("getMulti", ["text", "none"]), { text: "ä ñ 日" });
assertEquals(await call("add", "text", "x", 0).catch(() => "refused"), "refused");
assertEquals(await call("append", "text", "!"), true);
assertEquals(await call("get", "text"), "ä ñ 日!");
assertEquals(await call("replace", "text", "new", 0), true);
const { cas } = await call("gets", "text") as { cas: string };
assertEquals(await call("cas", "text", "newer", cas, 0), true);
assertEquals(await call("cas", "text", "newest", cas, 0), false);
assertEquals(await call("set", "count", 5, 0), true);
assertEquals([await call("incr", "count", 37), await call("decr", "count", 2)], [42, 40]);
assertEquals(await call("touch", "text", 100), true);
assertEquals(await call("del", "text"), true);
assertEquals(await call("get", "text"), undefined);
assertEquals(await call("flush"), [true]);
assertEquals(await call("get", "count"), undefined);
client.end();
console.log("done");

/** Calls a method, which calls back with an error or a result. */
function call(method: string, ...args: unknown[]): Promise<unknown> {
  return new Promise((resolve, reject) =>
    client[method](...args, (error: unknown, result: unknown) => error ? reject(error) : resolve(result))
  );
}
