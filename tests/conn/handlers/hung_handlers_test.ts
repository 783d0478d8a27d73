import { assertEquals } from "@std/assert";
import type { Conn } from "@x/shouty";
import type { TestClient } from "@x/shouty/testing";
import { turn } from "../../../internal/time/event_loop.ts";
import { testOnce } from "../../kit/bounded.ts";
import { inMemory, startConversations, startServer } from "../../kit/server.ts";
import { untilAborted } from "../../kit/working_handlers.ts";

testOnce(
  "a shutdown waits until handlers whose connections have ended have settled, their finally included",
  async () => {
    for (const wayIn of ["line", "conversation"]) {
      const { listener, clock } = inMemory();
      const cleanUp = Promise.withResolvers<void>();
      const order: string[] = [];
      const work = async (conn: Conn) => {
        try {
          await untilAborted(conn);
        } finally {
          await cleanUp.promise;
          order.push("cleaned up");
        }
      };
      const options = { listener, clock, idleTimeout: Infinity };
      await using t = wayIn === "line"
        ? startServer(options, (_, conn) => work(conn).then(() => ""))
        : startConversations(options, async (conn) => (await conn.lines.next(), await work(conn)));
      const client = await t.admitted();
      await client.write("work\n");
      await clock.advance(1000);
      assertEquals(t.stats.handlers, 1);
      client.reset();
      await t.closed();
      assertEquals([t.stats.active, t.stats.handlers], [0, 1]);
      const stopped = t.server.shutdown().then((report) => (order.push("stopped"), report));
      await clock.advance(1000);
      assertEquals(order, []);
      cleanUp.resolve();
      assertEquals((await stopped).handlersLeft, 0);
      assertEquals([order, t.stats.handlers], [["cleaned up", "stopped"], 0]);
    }
  },
);

testOnce("a handler that ends at the deadline of a shutdown is not given up, its finally included", async () => {
  const { listener, clock } = inMemory();
  let isClean = false;
  await using t = startConversations({ listener, clock, idleTimeout: Infinity }, async (conn) => {
    await untilAborted(conn);
    for (let steps = 0; steps < 20; steps++) await undefined;
    isClean = true;
  });
  await t.admitted();
  const stopped = t.server.shutdown({ drainTimeout: 1000 });
  await clock.advance(1000);
  const { closed, handlersLeft } = await stopped;
  assertEquals([closed, handlersLeft, isClean], [{ "drain-timeout": 1 }, 0, true]);
});

testOnce("a shutdown gives up handlers that hang at its deadline, and says how many", async () => {
  const { listener, clock } = inMemory();
  await using t = startConversations({ listener, clock }, () => new Promise(() => {}));
  const clients: TestClient[] = [];
  for (let i = 0; i < 3; i++) clients.push(await t.admitted());
  clients[0].reset();
  await clock.advance(1000);
  assertEquals([t.stats.active, t.stats.handlers], [2, 3]);
  const stopped = t.server.shutdown({ drain: "finish", drainTimeout: 5000 });
  await clock.advance(4999);
  assertEquals(t.server.state, "draining");
  await clock.advance(1);
  const { closed, handlersLeft } = await stopped;
  assertEquals([closed, handlersLeft], [{ "drain-timeout": 2 }, 3]);
});

testOnce("a handler that was given up and fails after the shutdown is no event", async () => {
  const { listener, clock } = inMemory();
  const work = Promise.withResolvers<void>();
  await using t = startConversations({ listener, clock }, () => work.promise);
  await t.admitted();
  const stopped = t.server.shutdown({ drainTimeout: 1000 });
  await clock.advance(1000);
  assertEquals((await stopped).handlersLeft, 1);
  work.reject(new Error("too late"));
  await turn();
  assertEquals([t.events.at(-1)?.type, t.all("handler-error")], ["stopped", []]);
});

testOnce("stats and shutdown do not count a line handler that is not running", async () => {
  await using t = startServer(inMemory());
  const client = await t.admitted();
  await client.write("hello\n");
  await client.readLine();
  assertEquals(t.stats.handlers, 0);
});
