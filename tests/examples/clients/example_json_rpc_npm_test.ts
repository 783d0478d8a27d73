/** The JSON-RPC server with a client of another make: jayson, over TCP. */

import { assertEquals } from "@std/assert";
import { serveJsonRpc } from "../../../examples/json_rpc.ts";
import { test } from "../../kit/bounded.ts";
import { load } from "../../kit/foreign/npm.ts";
import { TestServer } from "../../kit/server.ts";

/** The part of jayson's client that the tests use. It opens a connection for each request. */
interface RpcClient {
  request(method: string, params: unknown): unknown;
  request(method: string, params: unknown, id: undefined | null, done: Done): void;
  request(method: string, params: unknown, done: Done): void;
  request(batch: unknown[], done: Done): void;
}

type Done = (error: unknown, reply: unknown) => void;
type Jayson = { default: { client: { tcp(address: { host: string; port: number }): RpcClient } } };

const { module, missing } = await load<Jayson>("npm:jayson@5.0.0");

test(
  "json_rpc answers jayson's requests, notifications and batches",
  async () => {
    await using t = new TestServer(serveJsonRpc, {});
    const client = module.default.client.tcp({ host: "127.0.0.1", port: t.port });
    const ask = (method: string, params: unknown) => settled((done) => client.request(method, params, done));
    assertEquals((await ask("subtract", { minuend: 42, subtrahend: 23 })).result, 19);
    assertEquals((await ask("sum", [1, 2, 3])).result, 6);
    assertEquals((await ask("wait", [1])).result, null);
    assertEquals((await ask("sum", ["ñ 日"])).error, { code: -32602, message: "Invalid params: expected numbers" });
    assertEquals((await ask("nothing", [])).error, { code: -32601, message: "Method not found" });
    assertEquals(await settled((done) => client.request("sum", [1], null, done)), undefined);

    const batch = [
      client.request("sum", [1, 2]),
      client.request("nothing", []),
      client.request("sum", Array(1000).fill(1)),
    ];
    const replies = await settled((done) => client.request(batch, done)) as unknown as Record<string, unknown>[];
    assertEquals(replies.map(({ result, error }) => result ?? error), [
      3,
      { code: -32601, message: "Method not found" },
      1000,
    ]);
    await t.closed(7);
    assertEquals(t.stats.closed.end, 7);
  },
  60,
  missing,
);

test(
  "json_rpc answers a hundred of jayson's requests at once",
  async () => {
    await using t = new TestServer(serveJsonRpc, {});
    const client = module.default.client.tcp({ host: "127.0.0.1", port: t.port });
    const replies = await Promise.all(Array.from({ length: 100 }, (_, i) => {
      return settled((done) => client.request("sum", [i, i], done));
    }));
    assertEquals(replies.map(({ result }) => result), Array.from({ length: 100 }, (_, i) => 2 * i));
    await t.closed(100);
  },
  60,
  missing,
);

// deno-lint-ignore no-explicit-any -- a response of JSON-RPC
function settled(start: (done: Done) => void): Promise<any> {
  return new Promise((resolve, reject) => start((error, reply) => error ? reject(error) : resolve(reply)));
}
