import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { formatAddr, serve, type ServeOptions } from "@x/shouty";
import { listenTls, listenUnix } from "@x/shouty/ops";
import { FakeClock, MemoryListener, TestClient } from "@x/shouty/testing";
import { test, testOnce } from "../../kit/bounded.ts";
import { tapped } from "../../kit/faults.ts";
import { assertFreed } from "../../kit/sockets/freed_port.ts";
import { NO_IPV6 } from "../../kit/sockets/ipv6.ts";
import { connectTo, memories, shoutsTo } from "../../kit/listeners.ts";
import { listenLoopback, startServer } from "../../kit/server.ts";
import { AUTHORITY, IDENTITY } from "../../kit/tls.ts";

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

testOnce("serve() names a host name that is none, such as one with a port", () => {
  assertThrows(
    () => serve({ hostname: "localhost:80" }),
    URIError,
    "Cannot listen on [localhost:80]:8080: invalid host",
  );
});
