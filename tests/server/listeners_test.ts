import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { formatAddr, type Listener, serve, type ServeOptions, type ServerEvent } from "@x/shouty";
import { listenTls, listenUnix } from "@x/shouty/ops";
import { FakeClock, MemoryListener, TestClient } from "@x/shouty/testing";
import { test, testOnce } from "../kit/bounded.ts";
import { faulty, tapped } from "../kit/faults.ts";
import { assertFreed } from "../kit/sockets/freed_port.ts";
import { NO_IPV6 } from "../kit/sockets/ipv6.ts";
import { listenLoopback, startServer, type TestServer } from "../kit/server.ts";
import { AUTHORITY, IDENTITY } from "../kit/tls.ts";

/** Connects a client to a listener on the loopback. */
async function connectTo(t: TestServer, { addr }: Listener): Promise<TestClient> {
  return t.own(new TestClient(await Deno.connect({ port: (addr as Deno.NetAddr).port })));
}

async function shoutsTo(client: TestClient, line: string): Promise<void> {
  await client.write(`${line}\n`);
  assertEquals(await client.readLine(), line.toUpperCase());
}

/** Makes listeners in memory, and a clock that stands still. */
function memories(count: number): { listener: MemoryListener[]; clock: FakeClock } {
  return { listener: Array.from({ length: count }, () => new MemoryListener()), clock: new FakeClock() };
}

/** A client's address that tells to which listener it has connected. */
function clientOf(listener: number, port: number): Deno.NetAddr {
  return { transport: "tcp", hostname: `10.0.0.${listener}`, port };
}

function listenerOf(addr: Deno.Addr): number {
  return Number((addr as Deno.NetAddr).hostname.split(".")[3]);
}

test("a server with two listeners tells both addresses, and serves at both under one maxConnections", async () => {
  const listener = [listenLoopback(), listenLoopback()];
  const listened: Deno.Addr[] = [];
  await using t = startServer({ listener, maxConnections: 2, onListen: (addr) => listened.push(addr) });
  const addrs = listener.map(({ addr }) => addr);
  assertEquals([t.server.addrs, t.server.addr, listened], [addrs, addrs[0], addrs]);
  assertEquals(t.all("listening").map(({ addr }) => addr), addrs);
  const clients = [await connectTo(t, listener[1]), await connectTo(t, listener[0])];
  for (const client of clients) await shoutsTo(client, "hello");
  for (const one of listener) {
    const third = await connectTo(t, one);
    assertEquals(await third.readAll(), "error: more than 2 connections\n");
  }
  await clients[0].closeWrite();
  await t.closed();
  await shoutsTo(await connectTo(t, listener[0]), "again");
  assertEquals([t.stats.accepted, t.stats.rejected, t.stats.active], [3, 2, 2]);
  const local = t.all("accepted").map(({ conn }) => formatAddr(conn.localAddr));
  assertEquals(local, [1, 0, 0].map((i) => formatAddr(listener[i].addr)));
});

test("a drain lets the connections of all listeners go on, and has freed every port when it is over", async () => {
  const listener = [listenLoopback(), listenLoopback(), listenLoopback()];
  await using t = startServer({ listener });
  const clients = [await connectTo(t, listener[0]), await connectTo(t, listener[2])];
  for (const client of clients) await shoutsTo(client, "before");
  const stopped = t.server.shutdown({ drainTimeout: Infinity });
  for (const client of clients) {
    await shoutsTo(client, "during");
    await client.closeWrite();
  }
  assertEquals((await stopped).closed, { end: 2 });
  for (const { addr } of listener) await assertFreed((addr as Deno.NetAddr).port);
});

test("a listener that fails for good ends the server, with the other listeners and a drain for all", async () => {
  for (const failing of [0, 1]) {
    const listener = [listenLoopback(), listenLoopback()];
    await using t = startServer({ listener, drainTimeout: Infinity });
    const clients = [await connectTo(t, listener[0]), await connectTo(t, listener[1])];
    for (const client of clients) await shoutsTo(client, "before");
    listener[failing].close();
    await assertRejects(() => t.server.finished, Deno.errors.BadResource);
    assertEquals(t.server.state, "draining");
    for (const client of clients) {
      await shoutsTo(client, "during");
      await client.closeWrite();
    }
    assertEquals((await t.server.shutdown()).closed, { end: 2 });
    for (const { addr } of listener) await assertFreed((addr as Deno.NetAddr).port);
  }
});

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

testOnce("a listener that pauses after an error holds up no other", async () => {
  const { listener: [good, bad], clock } = memories(2);
  const failing = faulty(bad, { accepts: [new Error("EMFILE"), new Error("EMFILE")] });
  await using t = startServer({ listener: [failing, good], clock });
  const waiting = t.own(bad.connect());
  await waiting.write("hello\n");
  await t.until("accept-error");
  await shoutsTo(t.own(good.connect()), "hello");
  await clock.advance(5);
  await t.until("accept-error", 2);
  assertEquals(t.all("accept-error").map(({ retryMs }) => retryMs), [5, 10]);
  await shoutsTo(t.own(good.connect()), "hello");
  assertEquals(t.stats.accepted, 2);
  await clock.advance(10);
  assertEquals(await waiting.readLine(), "HELLO");
});

testOnce("a shutdown waits for the slowest listener, also for one that has failed", async () => {
  for (const [slowly, failing] of [["close", 0], ["close", 1], ["accept", 1], ["close", 2], ["accept", 2]] as const) {
    const { listener: [first, second], clock } = memories(2);
    const released = Promise.withResolvers<void>();
    const late = async (error: unknown) => {
      if (slowly === "accept") await released.promise;
      throw error;
    };
    const slow = {
      addr: first.addr,
      accept: () => failing === 0 ? first.accept() : first.accept().catch(late),
      close: () => (first.close(), slowly === "close" ? released.promise : undefined),
    };
    await using t = startServer({ listener: [slow, second], clock });
    if (failing === 0) {
      // The outstanding call gets a client, and the next one fails.
      first.accept = () => Promise.reject(new Deno.errors.BadResource("It has failed"));
      await t.own(first.connect()).closeWrite();
    } else if (failing === 1) second.close();
    if (failing < 2) await assertRejects(() => t.server.finished, Deno.errors.BadResource);
    const stopped = t.server.shutdown();
    await clock.advance(10_000);
    assertEquals(t.server.state, "draining");
    released.resolve();
    await stopped;
    assertEquals(t.server.state, "closed");
  }
});

testOnce("a listener that never closes holds a shutdown up until a second after the deadline", async () => {
  const never = new Promise<never>(() => {});
  for (const stuck of ["close", "accept"] as const) {
    const { listener: [first, second], clock } = memories(2);
    const hangs = {
      addr: first.addr,
      accept: () => first.accept().catch((error) => stuck === "accept" ? never : Promise.reject(error)),
      close: () => (first.close(), stuck === "close" ? never : undefined),
    };
    const server = serve({ listener: [hangs, second], clock, drainTimeout: 5000 });
    const stopped = server.shutdown();
    await clock.advance(5999);
    assertEquals(server.state, "draining");
    await clock.advance(1);
    assertEquals(await stopped, { closed: {}, handlersLeft: 0, listenersLeft: 1, durationMs: 6000 });
    await server.finished;
    assertEquals([server.state, clock.pending], ["closed", 0]);
  }
});

testOnce(
  "a call that asks connections to finish after the deadline holds no shutdown up that a listener does",
  async () => {
    const { listener: [first], clock } = memories(1);
    const hangs = {
      addr: first.addr,
      accept: () => first.accept(),
      close: () => (first.close(), new Promise<never>(() => {})),
    };
    const server = serve({ listener: hangs, clock, drainTimeout: 5000 });
    const stopped = server.shutdown();
    await clock.advance(5900);
    server.shutdown({ drain: "finish" });
    await clock.advance(100);
    assertEquals(server.state, "closed");
    assertEquals([(await stopped).durationMs, clock.pending], [6000, 0]);
  },
);

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

testOnce("a listener from which another server accepts is refused, until that server has closed", async () => {
  const { listener: [first, second], clock } = memories(2);
  await using t = startServer({ listener: first, clock });
  const message = "Cannot use listener: another server accepts from it already";
  for (const listener of [first, [second, first]]) assertThrows(() => serve({ listener, clock }), TypeError, message);
  const client = t.own(first.connect());
  await shoutsTo(client, "hello");
  await using other = startServer({ listener: second, clock });
  await shoutsTo(other.own(second.connect()), "hello");
  client.close();
  await t.server.shutdown();
  const late = serve({ listener: first, clock });
  await assertRejects(() => late.finished, Deno.errors.BadResource);
  await late.shutdown();
});

testOnce("ref() and unref() reach every listener", async () => {
  const calls: string[] = [];
  const named = (name: string) =>
    Object.assign(new MemoryListener(), { ref: () => calls.push(`${name}+`), unref: () => calls.push(`${name}-`) });
  await using t = startServer({ listener: [named("a"), named("b")], clock: new FakeClock() });
  t.server.unref();
  t.server.ref();
  assertEquals(calls, ["a-", "b-", "a+", "b+"]);
});

testOnce("unref() and ref() reach the connections, also one that is accepted later", async () => {
  const { listener: [memory], clock } = memories(1);
  const calls: string[] = [];
  const listener = tapped(memory, () => ({ ref: () => calls.push("+"), unref: () => calls.push("-") }));
  await using t = startServer({ listener, clock });
  t.own(memory.connect());
  await t.until("accepted");
  t.server.unref();
  assertEquals(calls, ["-"]);
  t.own(memory.connect());
  await t.until("accepted", 2);
  assertEquals(calls, ["-", "-"]);
  t.server.ref();
  assertEquals(calls, ["-", "-", "+", "+"]);
});

testOnce("a server whose listener has failed drains at once, without the delay of other shutdowns", async () => {
  const { listener: [listener], clock } = memories(1);
  await using t = startServer({ listener, clock, drainDelay: 60_000 });
  listener.close();
  await assertRejects(() => t.server.finished, Deno.errors.BadResource);
  await t.until("stopped");
  assertEquals(t.all("lame-duck"), []);
});

testOnce("a list of listeners is checked before anything is accepted", () => {
  const [a, b] = [new MemoryListener(), new MemoryListener()];
  const wrong: [unknown, string][] = [
    [[], "Cannot use listener: expected at least one listener, got an empty list"],
    [[a, undefined], "Cannot use listener[1]: expected a listener, got undefined"],
    [[8080], "Cannot use listener[0]: expected a listener, got 8080"],
    [[a, [b]], "Cannot use listener[1]: expected a listener, got an array"],
    [[a, b, a], "Cannot use listener[2]: it is the same as listener[0]"],
    [new Array(1), "Cannot use listener[0]: expected a listener, got undefined"],
    ["0.0.0.0", `Cannot use listener: expected a listener, got "0.0.0.0"`],
    [null, "Cannot use listener: expected a listener, got null"],
    [{ accept: () => a.accept() }, "Cannot use listener: expected a listener, got an object without the method close"],
  ];
  for (const [listener, message] of wrong) {
    assertEquals(assertThrows(() => serve({ listener } as ServeOptions), TypeError).message, message);
  }
});

testOnce("listeners stay open, and the caller's, if serve() throws", async () => {
  const listener = [new MemoryListener(), new MemoryListener()];
  for (const wrong of [{ maxConnections: 0 }, { maxLineBytes: 0 }, { drainTimeout: 0 }]) {
    assertThrows(() => serve({ listener, ...wrong }), RangeError);
  }
  await using t = startServer({ listener, clock: new FakeClock() });
  for (const one of listener) await shoutsTo(t.own(one.connect()), "hello");
});

testOnce("a list of listeners may be changed by its owner later", async () => {
  const { listener, clock } = memories(2);
  await using t = startServer({ listener, clock });
  const [, second] = listener.splice(0);
  await shoutsTo(t.own(second.connect()), "hello");
  assertEquals(t.server.addrs.length, 2);
});

const NO_UNIX = Deno.build.os === "windows" ? " (skipped: Windows has no Unix sockets in Deno)" : "";

testOnce(
  "one server speaks plain TCP, TLS and on a Unix socket",
  async () => {
    const path = `${await Deno.makeTempDir()}/shouty.sock`;
    const listener = [
      listenLoopback(),
      await listenTls({ listener: listenLoopback(), ...IDENTITY }),
      await listenUnix({ path }),
    ];
    await using t = startServer({ listener, maxConnections: 3 });
    const [, tls] = t.server.addrs as Deno.NetAddr[];
    const secure = await Deno.connectTls({ port: tls.port, caCerts: [AUTHORITY.cert] });
    const unix = await Deno.connect({ transport: "unix", path });
    const clients = [await connectTo(t, listener[0]), t.own(new TestClient(secure)), t.own(new TestClient(unix))];
    for (const client of clients) await shoutsTo(client, "hello");
    assertEquals(await (await connectTo(t, listener[0])).readAll(), "error: more than 3 connections\n");
    const stopped = t.server.shutdown({ drain: "finish" });
    for (const client of clients) assertEquals(await client.read(), null);
    assertEquals((await stopped).closed, { drained: 3 });
    await assertRejects(() => Deno.lstat(path), Deno.errors.NotFound);
  },
  60,
  NO_UNIX,
);

testOnce(
  "one server speaks IPv4 and IPv6, under one limit and one shutdown",
  async () => {
    const four = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const six = Deno.listen({ hostname: "::1", port: 0 });
    await using t = startServer({ listener: [four, six], maxConnections: 2 });
    const clients = [];
    for (const { hostname, port } of t.server.addrs as Deno.NetAddr[]) {
      clients.push(t.own(new TestClient(await Deno.connect({ hostname, port }))));
    }
    for (const client of clients) await shoutsTo(client, "hello");
    const remotes = t.all("accepted").map(({ conn }) => (conn.remoteAddr as Deno.NetAddr).hostname);
    assertEquals(remotes.toSorted(), ["127.0.0.1", "::1"]);
    const third = t.own(new TestClient(await Deno.connect({ hostname: "::1", port: six.addr.port })));
    assertEquals(await third.readAll(), "error: more than 2 connections\n");
    const stopped = t.server.shutdown({ drain: "finish" });
    for (const client of clients) assertEquals(await client.read(), null);
    assertEquals((await stopped).closed, { drained: 2 });
  },
  60,
  NO_IPV6,
);
