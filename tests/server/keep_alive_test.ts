/** What `keepAliveMs` does on Deno's sockets; on epoll, it is an option of the listener. */
import { assertEquals } from "@std/assert";
import { test } from "../kit/bounded.ts";
import { startServer } from "../kit/server.ts";
import { CANNOT_ASK, isSet } from "../kit/socket_options.ts";

test(
  "the kernel finds out whether a silent peer is still there, unless keepAliveMs is off",
  async () => {
    for (const keepAliveMs of [undefined, 1000, Infinity]) {
      await using t = startServer({ keepAliveMs });
      const client = await t.admitted();
      const { port } = client.addr as Deno.NetAddr;
      assertEquals(isSet("SO_KEEPALIVE", t.port, port), keepAliveMs !== Infinity);
    }
  },
  60,
  CANNOT_ASK,
);
