import { assertEquals } from "@std/assert";
import {
  type Conn,
  connect,
  type ConnectOptions,
  connectPool,
  serve,
  serveConnections,
  type ServeOptions,
  type Server,
} from "@x/shouty";
import { MemoryListener, TestClient } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";

/** Fails the type checker unless a value has exactly this type. */
function typed<Expected>() {
  return <Actual>(value: Actual, ..._: [Expected, Actual] extends [Actual, Expected] ? [] : [never]): Actual => value;
}

/** A helper for connections with any data. */
const reply = (conn: Conn<unknown>, line: string) => conn.write(`${conn.id} ${line}\n`);

test("the data that is made from a connection has its type in each kind of server", async () => {
  const [lines, talks] = [new MemoryListener(), new MemoryListener()];
  await using _lines = serve({ listener: lines, data: (conn) => ({ n: conn.id }) }, (line, conn) => {
    return line + typed<number>()(conn.data.n);
  });
  await using _talks = serveConnections({ listener: talks, data: (conn) => ({ n: conn.id }) }, async (conn) => {
    for await (const line of conn.lines) await reply(conn, line + typed<number>()(conn.data.n));
  });
  for (const [listener, expected] of [[lines, "a1"], [talks, "1 a1"]] as const) {
    using client = listener.connect();
    await client.write("a\n");
    assertEquals(await client.readLine(), expected);
  }
});

test("the data that is made from a connection has its type in each kind of client", async () => {
  const listener = new MemoryListener();
  const dial = () => listener.dial();
  const conn = await connect({ dial, data: (conn) => ({ local: conn.localAddr, n: 1 }) });
  using one = new TestClient(await listener.accept());
  assertEquals([typed<number>()(conn.data.n), conn.data.local], [1, conn.localAddr]);
  const made = Promise.withResolvers<number>();
  await using _pool = connectPool({ dial, data: (conn) => ({ n: conn.id }) }, (conn) => {
    made.resolve(typed<number>()(conn.data.n));
  });
  using two = new TestClient(await listener.accept());
  assertEquals(await made.promise, 1);
  for (const peer of [one, two]) peer.close();
  conn.close();
  await conn.closed;
});

/** The data of connections whose type says more than the first value of it. */
interface Session {
  loggedIn: boolean;
  user?: string;
}

test(
  "a function that makes data may name any type for its connection, and options without data get some",
  async () => {
    const kinds: ServeOptions<Session>[] = [
      { data: () => ({ loggedIn: false }) },
      { data: (conn: Conn<Session>) => ({ loggedIn: conn.id > 1 }) },
      { data: (conn: Conn<unknown>) => ({ loggedIn: conn.id > 1 }) },
      { data: (conn: Conn) => ({ loggedIn: conn.id > 1 }) },
    ];
    const ofClients: ConnectOptions<Session>[] = kinds.map(({ data }) => ({ port: 1, data }));
    const start = (options: ServeOptions, data: ServeOptions<Session>["data"]): Server<Session> =>
      serveConnections<Session>({ ...options, data }, async (conn) => {
        for await (const line of conn.lines) {
          conn.data.user = line;
          await reply(conn, `${conn.data.user} ${conn.data.loggedIn}`);
        }
      });
    for (const { data } of ofClients) {
      const listener = new MemoryListener();
      await using server: Server<unknown> = start({ listener }, data);
      using client = listener.connect();
      await client.write("ada\n");
      assertEquals([await client.readLine(), server.stats().accepted], ["1 ada false", 1]);
    }
  },
);

test("data has the type that its function returns, also where the server's type is written down", async () => {
  const listener = new MemoryListener();
  await using server: Server<Session> = serveConnections(
    { listener, data: () => ({ loggedIn: false }) },
    async (conn) => {
      for await (const line of conn.lines) {
        // The function's `false` is a boolean, although the type of the server would let it stay `false`.
        conn.data.loggedIn = line === "open";
        await reply(conn, `${typed<boolean>()(conn.data.loggedIn)}`);
      }
    },
  );
  using client = listener.connect();
  await client.write("open\n");
  assertEquals([await client.readLine(), server.stats().accepted], ["1 true", 1]);
});

test("data that uses its connection has a type for a handler with a name, if the type is written down", async () => {
  const listener = new MemoryListener();
  const handler = (conn: Conn<{ first: boolean }>) => reply(conn, `${conn.data.first}`);
  await using _server = serveConnections<{ first: boolean }>(
    { listener, data: (conn) => ({ first: conn.id === 1 }) },
    handler,
  );
  // @ts-expect-error the guide says so, as long as this is one
  const start = () => serveConnections({ data: (conn) => ({ first: conn.id === 1 }) }, handler);
  using client = listener.connect();
  assertEquals([await client.readLine(), typeof start], ["1 true", "function"]);
});

test("the type of a server does not stand in for the option data", async () => {
  // @ts-expect-error nothing makes the data
  await using _server: Server<Session> = serveConnections({ listener: new MemoryListener() }, () => {});
});
