/** `keepAliveMs` on Deno's sockets; on epoll, the listener has an option of the same name. */
import { assertEquals } from "@std/assert";
import type { ServeOptions } from "@x/shouty";
import { FakeClock } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";
import { startConversations, startServer, type TestServer } from "../kit/server.ts";
import { CANNOT_ASK, isSet } from "../kit/sockets/socket_options.ts";

async function isAskedAbout(t: TestServer): Promise<boolean> {
  const { port } = (await t.admitted()).addr as Deno.NetAddr;
  return isSet("SO_KEEPALIVE", t.port, port);
}

test(
  "the kernel checks a silent peer, unless keepAliveMs is off or idleTimeout is shorter",
  async () => {
    const cases: [ServeOptions, boolean][] = [
      [{ idleTimeout: Infinity }, true],
      [{ idleTimeout: 2000, keepAliveMs: 1000 }, true],
      [{ idleTimeout: 2000 }, false],
      [{ idleTimeout: Infinity, keepAliveMs: Infinity }, false],
    ];
    for (const [options, expected] of cases) {
      await using t = startServer({ clock: new FakeClock(), ...options });
      assertEquals(await isAskedAbout(t), expected, JSON.stringify(options));
    }
  },
  60,
  CANNOT_ASK,
);

test(
  "the kernel checks a silent peer from when its idleTimeout no longer does, unless keepAliveMs is off",
  async () => {
    for (const keepAliveMs of [undefined, Infinity]) {
      const limited = Promise.withResolvers<void>();
      await using t = startConversations({ clock: new FakeClock(), keepAliveMs }, async (conn) => {
        await conn.readLine();
        conn.setLimits({ idleTimeout: Infinity });
        limited.resolve();
        await conn.readLine();
      });
      const client = await t.admitted();
      const { port } = client.addr as Deno.NetAddr;
      assertEquals(isSet("SO_KEEPALIVE", t.port, port), false);
      await client.write("subscribe\n");
      await limited.promise;
      assertEquals(isSet("SO_KEEPALIVE", t.port, port), keepAliveMs === undefined);
    }
  },
  60,
  CANNOT_ASK,
);

test(
  "the kernel checks the peer of a handler at work, whatever idleTimeout is",
  async () => {
    const clock = new FakeClock();
    await using t = startConversations({ clock, idleTimeout: 2000 }, () => new Promise(() => {}));
    const { port } = (await t.admitted()).addr as Deno.NetAddr;
    assertEquals(isSet("SO_KEEPALIVE", t.port, port), false);
    await clock.advance(1000);
    assertEquals(isSet("SO_KEEPALIVE", t.port, port), true);
  },
  60,
  CANNOT_ASK,
);
