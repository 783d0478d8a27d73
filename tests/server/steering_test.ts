import { assertEquals, assertThrows } from "@std/assert";
import { type Clock, serve, type Server, type ServerLimits } from "@x/shouty";
import { MemoryListener } from "@x/shouty/testing";
import { socketsTurn } from "../../internal/time/event_loop.ts";
import { test, testOnce } from "../kit/bounded.ts";
import { assertFreed } from "../kit/sockets/freed_port.ts";
import { inMemory, startConversations, startServer } from "../kit/server.ts";

test("pause() leaves new connections waiting, the open ones go on, and resume() lets them in", async () => {
  await using t = startServer();
  const before = await t.admitted();
  t.server.pause();
  t.server.pause();
  assertEquals([t.server.paused, t.server.state], [true, "listening"]);
  const waiting = await Promise.all([t.connect(), t.connect(), t.connect()]);
  for (const client of waiting) await client.write("waiting\n");
  await before.write("still served\n");
  assertEquals(await before.readLine(), "STILL SERVED");
  assertEquals(t.stats.accepted, 1);
  t.server.resume();
  for (const client of waiting) assertEquals(await client.readLine(), "WAITING");
  assertEquals(t.server.paused, false);
  assertEquals([t.all("paused").length, t.all("resumed").length], [1, 1]);
});

test("a connection that is accepted when a pause begins is queued until the pause ends", async () => {
  await using t = startServer();
  t.server.pause();
  using waiting = await t.connect();
  while (t.server.stats().queued === 0) await socketsTurn();
  assertEquals(t.server.stats().active, 0);
  t.server.resume();
  await waiting.write("served\n");
  assertEquals(await waiting.readLine(), "SERVED");
  assertEquals([t.server.stats().queued, t.server.stats().active], [0, 1]);
});

test("shutdown() ends a paused server, and frees the port", async () => {
  await using t = startServer();
  t.server.pause();
  using waiting = await t.connect();
  await t.server.shutdown();
  assertEquals(await waiting.readAll().catch(() => ""), "");
  await assertFreed(t.port);
  t.server.resume();
  t.server.pause();
  assertEquals(t.server.paused, false, "A server that is closed stays as it is");
  assertEquals(t.all("resumed").length, 0);
});

testOnce("a shutdown with a delay ends a pause: the server accepts until the delay is over", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock });
  t.server.pause();
  const waiting = await t.connect();
  const stopped = t.server.shutdown({ delay: 5000 });
  await waiting.write("served\n");
  assertEquals(await waiting.readLine(), "SERVED");
  assertEquals([t.server.paused, t.all("resumed").length], [false, 1]);
  await waiting.closeWrite();
  await clock.advance(5000);
  assertEquals((await stopped).handlersLeft, 0);
});

/** A clock that counts the timers that keep the process alive. */
class CountingClock implements Clock {
  readonly #timers = new Set<symbol>();

  get keepingAlive(): number {
    return this.#timers.size;
  }

  now(): number {
    return 0;
  }

  setTimer(_callback: () => void, _delay: number, keepAlive: boolean): () => void {
    const id = Symbol();
    if (keepAlive) this.#timers.add(id);
    return () => void this.#timers.delete(id);
  }
}

testOnce("a paused server keeps its process alive, whether or not a connection waits in it", async () => {
  for (const early of [true, false]) {
    const [clock, listener] = [new CountingClock(), new MemoryListener()];
    // Either the server is paused before it accepts once more, or its outstanding accept takes a connection.
    const pause = (): void => void (early && server.pause());
    const server: Server = serve({
      clock,
      listener,
      idleTimeout: Infinity,
      onEvent: ({ type }) => type === "accepted" && pause(),
    });
    if (!early) server.pause();
    const client = listener.connect();
    for (let turns = 3; turns > 0; turns--) await socketsTurn();
    assertEquals(clock.keepingAlive, 1, `Paused early: ${early}`);
    client.close();
    server.unref();
    assertEquals(clock.keepingAlive, 0, "unref() holds for the pause, too");
    await server.shutdown();
  }
});

testOnce("unref() lets the process end while admit decides", async () => {
  const [clock, listener] = [new CountingClock(), new MemoryListener()];
  const asked = Promise.withResolvers<void>();
  const admit = () => (asked.resolve(), new Promise<void>(() => {}));
  await using server = serve({ clock, listener, admit });
  const client = listener.connect();
  await asked.promise;
  assertEquals(clock.keepingAlive, 1);
  server.unref();
  assertEquals(clock.keepingAlive, 0);
  client.close();
});

testOnce("setLimits() changes the rules of admission at once, for connections that are open already too", async () => {
  await using t = startServer({ ...inMemory(), idleTimeout: Infinity });
  const clients = [await t.admitted(), await t.admitted()];
  t.server.setLimits({ maxConnectionsPerIp: 2 });
  assertEquals((await t.until("limits-changed")).limits, { maxConnectionsPerIp: 2 });
  assertEquals(await (await t.connect()).readAll(), "error: more than 2 connections from one address\n");
  clients[0].close();
  await t.closed();
  await t.admitted();
  t.server.setLimits({ maxConnectionsPerIp: Infinity, maxConnections: 2 });
  assertEquals(await (await t.connect()).readAll(), "error: more than 2 connections\n");
  t.server.setLimits({ maxConnections: 10, deny: ["127.0.0.0/8"] });
  assertEquals(await (await t.connect()).readAll(), "error: address not allowed\n");
  t.server.setLimits({ deny: null, acceptRatePerIp: 1 });
  await t.admitted();
  assertEquals(await (await t.connect()).readAll(), "");
  assertEquals(t.all("rejected").at(-1)!.reason, "accept-rate-per-ip");
});

testOnce("the event limits-changed has the limits that were set, and nothing that changed nothing", async () => {
  await using t = startServer(inMemory());
  const { idleTimeout } = t.server.limits;
  const file = { idletimeout: 5, drain: "finish", idleTimeout: undefined, maxConnections: 7, deny: null };
  t.server.setLimits(file as ServerLimits);
  assertEquals((await t.until("limits-changed")).limits, { maxConnections: 7, deny: null });
  assertEquals([t.server.limits.idleTimeout, "drain" in t.server.limits], [idleTimeout, false]);
});

testOnce(
  "setLimits() counts a connection once, at whatever step between the decision of admit and its serving",
  async () => {
    for (let steps = 0; steps < 20; steps++) {
      const { listener, clock } = inMemory();
      const decide = Promise.withResolvers<void>();
      await using t = startServer({ listener, clock, idleTimeout: Infinity, admit: () => decide.promise });
      const first = await t.connect();
      await clock.advance(0);
      decide.resolve();
      for (let step = 0; step < steps; step++) await undefined;
      t.server.setLimits({ maxConnectionsPerIp: 1 });
      await t.until("accepted");
      const second = await t.connect();
      assertEquals(await second.readAll(), "error: more than 1 connection from one address\n", `After ${steps} steps`);
      first.close();
    }
  },
);

testOnce("setLimits() makes room for a connection that waits", async () => {
  await using t = startServer({ ...inMemory(), maxConnections: 1, atCapacity: "wait", idleTimeout: Infinity });
  await t.admitted();
  const waiting = await t.connect();
  await waiting.write("in\n");
  t.server.setLimits({ maxConnections: 2 });
  assertEquals(await waiting.readLine(), "IN");
});

testOnce("setLimits() changes the limits of the next connections, and not those of an open one", async () => {
  await using t = startServer({ ...inMemory() });
  const open = await t.admitted();
  t.server.setLimits({ maxLineBytes: 3 });
  await open.write("four\n");
  assertEquals(await open.readLine(), "FOUR");
  assertEquals(await t.talk("four\n"), "error: line longer than 3 bytes\n");
  assertEquals(t.server.limits.maxLineBytes, 3);
});

testOnce("setLimits() refuses a wrong limit by name, and changes nothing then", async () => {
  await using t = startServer({ ...inMemory(), maxConnections: 5 });
  const { limits } = t.server;
  const refuse = (changes: object, message: string) => {
    assertThrows(() => t.server.setLimits(changes), Error, message);
    assertEquals(t.server.limits, limits);
  };
  refuse({ maxConnections: 0 }, "Cannot use maxConnections 0: expected a whole number of at least 1, or Infinity");
  refuse({ maxConnections: 9, idleTimeout: 0 }, "Cannot use idleTimeout 0: expected");
  refuse({ maxLineBytes: 10, allow: ["nowhere"] }, `Cannot use allow "nowhere": expected`);
  assertThrows(() => t.server.setLimits(5 as never), TypeError, "Cannot use limits: expected an object, got 5");
});

testOnce("server.limits has every limit, with its default", async () => {
  await using t = startServer({ ...inMemory() });
  const { limits } = t.server;
  assertEquals([limits.maxConnections, limits.maxPenaltyMs, limits.allow], [10_000, 0, null]);
  assertEquals([limits.idleTimeout, limits.lineTimeout, limits.maxLineBytes], [10_000, 10_000, 65_536]);
  assertEquals(Object.values(limits).filter((limit) => limit === undefined), []);
});

testOnce("conn.stats() tells what a connection has done, and what it waits for", async () => {
  const { listener, clock } = inMemory();
  const release = Promise.withResolvers<void>();
  await using t = startConversations({ listener, clock, idleTimeout: Infinity }, async (conn) => {
    for await (const line of conn.lines) {
      if (line === "work") await release.promise;
      if (line === "body") await conn.readExactly(3);
      if (line === "deadline") conn.setDeadline(60_000, "login");
      await conn.write(`${line}\n`);
    }
  });
  const client = await t.admitted();
  const [conn] = t.server.connections;
  const is = () => `${conn.stats().phase} ${conn.stats().waitsFor}`;
  assertEquals(is(), "open first-byte");
  await clock.advance(1000);
  const { ageMs, idleMs, lines, bytesIn, bytesOut } = conn.stats();
  assertEquals([ageMs, idleMs, lines, bytesIn, bytesOut], [1000, 1000, 0, 0, 0]);
  await client.write("one\n");
  assertEquals(await client.readLine(), "one");
  await clock.advance(500);
  assertEquals([is(), conn.stats().idleMs, conn.stats().lines], ["open peer", 500, 1]);
  await client.write("bo");
  await clock.advance(1);
  assertEquals(is(), "open line");
  await client.write("dy\n1");
  await clock.advance(1);
  assertEquals(is(), "open body");
  await client.write("23work\n");
  assertEquals(await client.readLine(), "body");
  await clock.advance(1);
  assertEquals([is(), conn.stats().idleMs], ["open handler", 0]);
  release.resolve();
  assertEquals(await client.readLine(), "work");
  await client.write("deadline\n");
  assertEquals(await client.readLine(), "deadline");
  const { detail, bytesIn: inAll, bytesOut: outAll, lines: counted } = conn.stats();
  assertEquals([detail, inAll, outAll, counted], ["login", 4 + 5 + 3 + 5 + 9, 4 + 5 + 5 + 9, 4]);
  client.close();
  await t.closed();
  assertEquals(is(), "closed close");
});
