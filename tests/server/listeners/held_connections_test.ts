import { assert, assertEquals } from "@std/assert";
import { formatAddr, type ServeOptions, type ServerEvent } from "@x/shouty";
import type { TestClient } from "@x/shouty/testing";
import { testOnce } from "../../kit/bounded.ts";
import { clientOf, listenerOf, memories } from "../../kit/listeners.ts";
import { startServer } from "../../kit/server.ts";

testOnce("maxConnectionsPerIp, acceptRatePerIp and deny count a client's connections at all listeners", async () => {
  const limits: [ServeOptions, string][] = [
    [{ maxConnectionsPerIp: 1 }, "max-connections-per-ip"],
    [{ acceptRatePerIp: 1 }, "accept-rate-per-ip"],
    [{ deny: ["10.0.0.2"] }, "denied"],
  ];
  for (const [limit, expected] of limits) {
    const { listener, clock } = memories(2);
    await using t = startServer({ listener, clock, ...limit });
    t.own(listener[0].connect(clientOf(1, 1)));
    await t.until("accepted");
    t.own(listener[1].connect(clientOf("deny" in limit ? 2 : 1, 2)));
    assertEquals((await t.until("rejected")).reason, expected);
    t.own(listener[1].connect(clientOf(3, 3)));
    await t.until("accepted", 2);
  }
});

testOnce("a shutdown closes a connection for which there is no room, whenever it was accepted", async () => {
  for (let steps = 0; steps < 30; steps++) {
    const { listener, clock } = memories(2);
    await using t = startServer({ listener, clock, maxConnections: 1, atCapacity: "wait" });
    const served = t.own(listener[0].connect());
    await t.until("accepted");
    const waiting = t.own(listener[1].connect());
    for (let step = 0; step < steps; step++) await null;
    const stopped = t.server.shutdown({ drainTimeout: Infinity });
    let closed = false;
    waiting.readAll().catch(() => {}).then(() => closed = true);
    await clock.advance(0);
    assertEquals([closed, t.stats.active], [true, 1], `after ${steps} steps`);
    await served.closeWrite();
    assertEquals((await stopped).closed, { end: 1 });
  }
});

testOnce("a shutdown closes a connection that waits for acceptRate, with its timer", async () => {
  const { listener, clock } = memories(2);
  await using t = startServer({ listener, clock, acceptRate: 1, idleTimeout: Infinity, drainTimeout: Infinity });
  const served = t.own(listener[0].connect());
  await t.until("accepted");
  const waiting = t.own(listener[1].connect());
  await clock.advance(0);
  await served.closeWrite();
  await t.closed();
  assertEquals([t.stats.accepted, clock.pending], [1, 1]);
  const stopped = t.server.shutdown();
  assertEquals(await waiting.readAll().catch(() => ""), "");
  await stopped;
  assertEquals([t.stats.accepted, clock.pending], [1, 0]);
});

testOnce("with atCapacity wait, no listener starves beside others with endless clients", async () => {
  const { listener, clock } = memories(3);
  await using t = startServer({ listener, clock, maxConnections: 1, atCapacity: "wait" });
  const each = 40;
  const clients = new Map<string, TestClient>();
  for (let port = 1; port <= each; port++) {
    for (const [i, one] of listener.entries()) {
      const addr = clientOf(i, port);
      clients.set(formatAddr(addr), t.own(one.connect(addr)));
    }
  }
  const served = [0, 0, 0];
  for (let count = 1; count <= 3 * each; count++) {
    const { conn } = await t.until("accepted", count);
    served[listenerOf(conn.remoteAddr)]++;
    assert(Math.max(...served) - Math.min(...served) <= 2, `${served}`);
    // Let every listener do what it can do beside this connection.
    await clock.advance(0);
    assertEquals([t.stats.accepted, t.stats.active, t.stats.rejected], [count, 1, 0]);
    await clients.get(formatAddr(conn.remoteAddr))!.closeWrite();
    await t.closed(count);
  }
});

testOnce(
  "a storm at two listeners, one connection at a time, serves all of them, and tells each end before the next start",
  async () => {
    const { listener, clock } = memories(2);
    await using t = startServer({ listener, clock, maxConnections: 1, atCapacity: "wait" });
    for (let port = 1; port <= 100; port++) {
      for (const [i, one] of listener.entries()) await t.own(one.connect(clientOf(i, port))).closeWrite();
    }
    await t.closed(200);
    const types = t.events.map(({ type }) => type).filter((type) => type === "accepted" || type === "closed");
    assertEquals(types, Array.from({ length: 400 }, (_, i) => i % 2 === 0 ? "accepted" : "closed"));
  },
);

testOnce("a held connection is served at its turn, and its listener accepts no other meanwhile", async () => {
  const { listener, clock } = memories(2);
  await using t = startServer({ listener, clock, maxConnections: 1, atCapacity: "wait" });
  // From then on, the server waits for connections of both: each of its listeners has to wait for its turn now and then.
  await clock.advance(0);
  const [first, second, third] = [0, 1, 1].map((i, port) => t.own(listener[i].connect(clientOf(i, port + 1))));
  for (const client of [second, third]) await client.write("hello\n");
  await t.until("accepted");
  await clock.advance(0);
  // The second was accepted together with the first, and the third is left in the backlog.
  assertEquals([t.stats.accepted, t.stats.active, t.stats.rejected], [1, 1, 0]);
  for (const [i, client] of [first, second, third].entries()) {
    if (i > 0) assertEquals(await client.readLine(), "HELLO");
    assertEquals(t.stats.accepted, i + 1);
    await client.closeWrite();
    await t.closed(i + 1);
  }
});

testOnce("with acceptRate, connections of all listeners share one rate", async () => {
  const { listener, clock } = memories(2);
  await using t = startServer({ listener, clock, acceptRate: 2, idleTimeout: Infinity });
  await clock.advance(0);
  for (let port = 1; port <= 4; port++) for (const i of [0, 1]) t.own(listener[i].connect(clientOf(i, port)));
  await clock.advance(0);
  for (let accepted = 2; accepted < 8; accepted++) {
    assertEquals(t.stats.accepted, accepted);
    await clock.advance(499);
    assertEquals(t.stats.accepted, accepted);
    await clock.advance(1);
  }
  assertEquals(t.stats.accepted, 8);
  const order = t.all("accepted").map(({ conn }) => listenerOf(conn.remoteAddr));
  assertEquals([0, 1].map((i) => order.slice(0, 4).filter((from) => from === i).length), [2, 2], `${order}`);
});

testOnce("a shutdown closes the connections that are held, and leaves no timer", async () => {
  for (const limit of [{ maxConnections: 1, atCapacity: "wait" }, { acceptRate: 1 }] as const) {
    const { listener, clock } = memories(3);
    await using t = startServer({ listener, clock, ...limit });
    const clients = listener.map((one, i) => t.own(one.connect(clientOf(i, 1))));
    await clock.advance(0);
    assertEquals(t.stats.accepted, 1);
    const stopped = t.server.shutdown({ drain: "finish" });
    for (const client of clients) assertEquals(await client.read().catch(() => null), null);
    await clock.advance(3000);
    assertEquals([(await stopped).closed, clock.pending], [{ drained: 1 }, 0]);
  }
});

testOnce("a hook that calls setLimits() while connections are held leaves no timer", async () => {
  const { listener, clock } = memories(5);
  const onEvent = ({ type }: ServerEvent) => type === "accepted" && t.server.setLimits({ maxLineBytes: 100 });
  await using t = startServer({ listener, clock, acceptRate: 2, onEvent });
  listener.forEach((one, i) => t.own(one.connect(clientOf(i, 1))));
  await clock.advance(500);
  assertEquals(t.stats.accepted, 3);
  await t.server.shutdown({ drainTimeout: 1, drain: "finish" });
  assertEquals(clock.pending, 0);
});
