import { assertEquals } from "@std/assert";
import { connectPool, serveConnections, type ServerEvent } from "@x/shouty";
import { MemoryListener } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";

/** How a value is shown, on one line. */
const inspect = (value: unknown) => Deno.inspect(value, { breakLength: Infinity, depth: 2 });

test("console.log and JSON show what a connection, an event, a server and a pool are, and none of their parts", async () => {
  const listener = new MemoryListener();
  const events: ServerEvent[] = [];
  const shown = Promise.withResolvers<string[]>();
  const options = { listener, data: () => ({ name: "Ada" }), onEvent: (event: ServerEvent) => events.push(event) };
  await using server = serveConnections(options, (conn) => shown.resolve([inspect(conn), JSON.stringify(conn)]));
  using client = listener.connect({ transport: "unix", path: "/a" });
  const id = 'id: 1, remoteAddr: { transport: "unix", path: "/a" }';
  const addr = '{ transport: "tcp", hostname: "127.0.0.1", port: 8080 }';
  const json = `"id":1,"remoteAddr":{"transport":"unix","path":"/a"},"localAddr":${JSON.stringify(listener.addr)}`;
  assertEquals(await shown.promise, [
    `Conn { ${id}, localAddr: ${addr}, ending: undefined, data: { name: "Ada" } }`,
    `{${json},"data":{"name":"Ada"}}`,
  ]);
  const { conn } = events.find((event) => event.type === "accepted")!;
  assertEquals([inspect(conn), JSON.stringify(conn)], [`Connection { ${id}, localAddr: ${addr} }`, `{${json}}`]);
  assertEquals(inspect(server), `Server { state: "listening", addrs: [ ${addr} ], active: 1, paused: false }`);
  const pool = connectPool({ dial: () => listener.dial() }, () => {});
  assertEquals(inspect(pool), 'ConnPool { state: "listening", active: 0, paused: false }');
  await pool.shutdown();
  client.close();
});

test("a connection is shown although its transport has lost its address", async () => {
  const memory = new MemoryListener();
  const get = () => {
    throw new Error("It is closed");
  };
  const listener = {
    addr: memory.addr,
    accept: async () => Object.defineProperty(await memory.accept(), "localAddr", { get }),
    close: () => memory.close(),
  };
  const shown = Promise.withResolvers<string>();
  await using _server = serveConnections({ listener }, (conn) => shown.resolve(inspect(conn)));
  using _client = memory.connect({ transport: "unix", path: "/a" });
  assertEquals((await shown.promise).includes("localAddr: undefined"), true);
});
