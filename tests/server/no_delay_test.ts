import { assertEquals } from "@std/assert";
import type { Transport } from "@x/shouty";
import { test, testOnce } from "../kit/bounded.ts";
import { CANNOT_ASK, isSet } from "../kit/sockets/socket_options.ts";
import { startServer } from "../kit/server.ts";
import { talk } from "../kit/replies.ts";

testOnce("Nagle's algorithm is switched off once, before it could delay a second reply", async () => {
  const inner = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const calls: unknown[] = [];
  const accept = async (): Promise<Transport> => {
    const conn = await inner.accept();
    return Object.assign(conn, {
      setNoDelay: (...args: unknown[]) => calls.push(...args),
    });
  };
  await using t = startServer({ listener: { addr: inner.addr, accept, close: () => inner.close() } });
  using client = await t.connect();
  const seen = [];
  for (const line of ["one", "two", "three"]) {
    await client.write(`${line}\n`);
    seen.push([await client.readLine(), ...calls]);
  }
  assertEquals(seen, [["ONE"], ["TWO", true], ["THREE", true]]);
});

test(
  "the kernel has Nagle's algorithm off for a connection after two replies",
  async () => {
    await using t = startServer();
    const client = await t.connect();
    const clientPort = (client.addr as Deno.NetAddr).port;
    for (let i = 0; i < 2; i++) await talk(client);
    assertEquals(isSet("TCP_NODELAY", t.port, clientPort), true);
  },
  60,
  CANNOT_ASK,
);
