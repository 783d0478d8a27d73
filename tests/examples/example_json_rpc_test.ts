import { assertEquals } from "@std/assert";
import { type Method, RpcError, serveJsonRpc } from "../../examples/json_rpc.ts";
import { test, testOnce } from "../kit/bounded.ts";
import { inMemory, TestServer } from "../kit/server.ts";

/** The examples of the specification's section 7, and what it leaves to the server. */
const CASES: Record<string, [request: string, reply: string]> = {
  "parameters by position": [
    `{"jsonrpc":"2.0","method":"subtract","params":[42,23],"id":1}`,
    `{"jsonrpc":"2.0","result":19,"id":1}`,
  ],
  "parameters by name": [
    `{"jsonrpc":"2.0","method":"subtract","params":{"subtrahend":23,"minuend":42},"id":"a"}`,
    `{"jsonrpc":"2.0","result":19,"id":"a"}`,
  ],
  "a notification": [`{"jsonrpc":"2.0","method":"sum","params":[1,2]}`, ""],
  "a notification of a method that does not exist": [`{"jsonrpc":"2.0","method":"foobar"}`, ""],
  "an id that is null": [
    `{"jsonrpc":"2.0","method":"sum","params":[],"id":null}`,
    `{"jsonrpc":"2.0","result":0,"id":null}`,
  ],
  "a method that does not exist": [
    `{"jsonrpc":"2.0","method":"foobar","id":"1"}`,
    `{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":"1"}`,
  ],
  "a method that every object has": [
    `{"jsonrpc":"2.0","method":"toString","id":"1"}`,
    `{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":"1"}`,
  ],
  "parameters that the method refuses": [
    `{"jsonrpc":"2.0","method":"sum","params":["x"],"id":1}`,
    `{"jsonrpc":"2.0","error":{"code":-32602,"message":"Invalid params: expected numbers"},"id":1}`,
  ],
  "a result that JSON cannot express": [
    `{"jsonrpc":"2.0","method":"sum","params":[1e308,1e308],"id":1}`,
    `{"jsonrpc":"2.0","error":{"code":-32603,"message":"Internal error"},"id":1}`,
  ],
  "invalid JSON": [
    `{"jsonrpc":"2.0","method":"foobar,"params":"bar","baz]`,
    `{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse error"},"id":null}`,
  ],
  "an invalid request": [
    `{"jsonrpc":"2.0","method":1,"params":"bar"}`,
    `{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request"},"id":null}`,
  ],
  "an id that a number cannot hold": [
    `{"jsonrpc":"2.0","method":"sum","params":[],"id":9007199254740993}`,
    `{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request"},"id":null}`,
  ],
  "an id that is too large": [
    `{"jsonrpc":"2.0","method":"sum","params":[],"id":1e400}`,
    `{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request"},"id":null}`,
  ],
  "an id with a fraction": [
    `{"jsonrpc":"2.0","method":"sum","params":[],"id":-1.5}`,
    `{"jsonrpc":"2.0","result":0,"id":-1.5}`,
  ],
  "an empty line": ["", `{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse error"},"id":null}`],
  "an empty batch": ["[]", `{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request"},"id":null}`],
  "a batch that is invalid": [
    "[1,null]",
    `[{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request"},"id":null},` +
    `{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request"},"id":null}]`,
  ],
  "a batch": [
    `[{"jsonrpc":"2.0","method":"sum","params":[1,2,4],"id":"1"},{"jsonrpc":"2.0","method":"sum","params":[7]},` +
    `{"foo":"boo"},{"jsonrpc":"2.0","method":"foobar","id":"5"}]`,
    `[{"jsonrpc":"2.0","result":7,"id":"1"},` +
    `{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request"},"id":null},` +
    `{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":"5"}]`,
  ],
  "a batch of notifications": [
    `[{"jsonrpc":"2.0","method":"sum","params":[1]},{"jsonrpc":"2.0","method":"foobar"}]`,
    "",
  ],
  "a batch that is too large": [
    `[${"1,".repeat(100)}1]`,
    `{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request: more than 100 in a batch"},"id":null}`,
  ],
};

for (const [what, [request, reply]] of Object.entries(CASES)) {
  test(`json_rpc answers ${what}, and the next line`, async () => {
    await using t = new TestServer(serveJsonRpc, {});
    const ping = `{"jsonrpc":"2.0","method":"sum","params":[],"id":"next"}`;
    const pong = `{"jsonrpc":"2.0","result":0,"id":"next"}`;
    assertEquals(await t.talk(`${request}\r\n${ping}`), reply === "" ? `${pong}\n` : `${reply}\n${pong}\n`);
  });
}

test("json_rpc runs a batch at once, and the lines one after the other", async () => {
  const order: string[] = [];
  const gate = Promise.withResolvers<string>();
  const methods: Record<string, Method> = {
    first: () => {
      order.push("first");
      return gate.promise;
    },
    second: () => gate.resolve("both have begun"),
    third: () => order.push("third"),
  };
  await using t = new TestServer((options) => serveJsonRpc(options, methods), {});
  const ask = (method: string, id: number) => `{"jsonrpc":"2.0","method":"${method}","id":${id}}`;
  assertEquals(
    await t.talk(`[${ask("first", 1)},${ask("second", 2)}]\n${ask("third", 3)}\n`),
    `[{"jsonrpc":"2.0","result":"both have begun","id":1},{"jsonrpc":"2.0","result":null,"id":2}]\n` +
      `{"jsonrpc":"2.0","result":2,"id":3}\n`,
  );
});

test("json_rpc reports what a method throws, and hides what it did not mean to report", async () => {
  const methods: Record<string, Method> = {
    refuse: () => Promise.reject(new RpcError(7, "Not today")),
    fail: () => {
      throw new Error("password: 12345");
    },
    circular: () => {
      const value: Record<string, unknown> = {};
      return value.self = value;
    },
  };
  await using t = new TestServer((options) => serveJsonRpc(options, methods), {});
  const batch = ["refuse", "fail", "circular"].map((method, id) => `{"jsonrpc":"2.0","method":"${method}","id":${id}}`);
  assertEquals(JSON.parse(await t.talk(`[${batch}]\n`)), [
    { jsonrpc: "2.0", error: { code: 7, message: "Not today" }, id: 0 },
    { jsonrpc: "2.0", error: { code: -32603, message: "Internal error" }, id: 1 },
    { jsonrpc: "2.0", error: { code: -32603, message: "Internal error" }, id: 2 },
  ]);
});

test("json_rpc refuses a line that is too long, and answers the next", async () => {
  await using t = new TestServer(serveJsonRpc, { maxLineBytes: 100 });
  assertEquals(
    await t.talk(`"${"x".repeat(100)}"\n{"jsonrpc":"2.0","method":"sum","params":[2],"id":1}\n`),
    `{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request: longer than 100 bytes"},"id":null}\n` +
      `{"jsonrpc":"2.0","result":2,"id":1}\n`,
  );
});

test("json_rpc closes the connection of a client that sends no UTF-8, with a parse error", async () => {
  await using t = new TestServer(serveJsonRpc, {});
  assertEquals(
    await t.talk(Uint8Array.of(0x22, 0xff, 0x22, 0x0a)),
    `{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse error: not UTF-8"},"id":null}\n`,
  );
});

testOnce("json_rpc ends a connection whose method never answers, and says so", async () => {
  const memory = inMemory();
  const methods = { never: () => new Promise(() => {}) };
  await using t = new TestServer((options) => serveJsonRpc(options, methods), memory);
  const client = await t.connect();
  await client.write(`{"jsonrpc":"2.0","method":"never","id":1}\n`);
  // The handler has another second for words of its own.
  await memory.clock.advance(31_000);
  assertEquals(
    await client.readAll(),
    `{"jsonrpc":"2.0","error":{"code":-32000,"message":"Server error: handler-timeout"},"id":null}\n`,
  );
  client[Symbol.dispose]();
  assertEquals((await t.closed()).reason, "handler-timeout");
});
