import { assertEquals, assertStrictEquals } from "@std/assert";
import { serve, type Server, type ServerEvent, shout } from "@x/shouty";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { test, testOnce } from "../../kit/bounded.ts";
import { faulty } from "../../kit/faults.ts";
import { assertFreed } from "../../kit/sockets/freed_port.ts";
import { inMemory, startServer, type TestServer } from "../../kit/server.ts";

testOnce("shutdown() can be called again from a hook that it calls", async () => {
  const clock = new FakeClock();
  const events: string[] = [];
  const server: Server = serve({
    listener: new MemoryListener(),
    clock,
    onEvent: (event) => {
      events.push(event.type);
      if (event.type === "draining") server.shutdown({ drain: "finish" });
    },
  });
  await server.shutdown();
  assertEquals([server.state, events], ["closed", ["listening", "draining", "stopped"]]);
});

testOnce("a connection that is accepted while a shutdown begins is closed by its end", async () => {
  for (let hops = 0; hops < 12; hops++) {
    const { listener, clock } = inMemory();
    await using t = startServer({ listener, clock });
    const client = await t.connect();
    for (let i = 0; i < hops; i++) await Promise.resolve();
    const stopped = t.server.shutdown({ drainTimeout: 100 });
    await clock.advance(100);
    await stopped;
    assertEquals(t.stats.active, 0);
    assertEquals(await client.read().catch(() => null), null);
  }
});

testOnce("shutdown() ends an acceptor's wait early, even a wait that begins in a hook", async () => {
  for (const type of ["accept-error", "nothing"]) {
    const clock = new FakeClock();
    const listener = faulty(new MemoryListener(), { accepts: [new Error("EMFILE")] });
    const onEvent = (event: ServerEvent) => void (event.type === type && t.server.shutdown());
    await using t = startServer({ listener, clock, onEvent });
    await t.until("accept-error");
    await t.server.shutdown();
    assertEquals([t.server.state, clock.now(), clock.pending], ["closed", 0, 0]);
  }
});

test("shutdown() has freed the port when it resolves", async () => {
  for (let round = 0; round < 5; round++) {
    await using t = startServer();
    const client = round < 3 ? await t.admitted() : undefined;
    const stopped = t.server.shutdown();
    assertEquals(t.server.state, "draining");
    client?.close();
    await stopped;
    assertEquals(t.server.state, "closed");
    await assertFreed(t.port);
  }
});

testOnce("shutdown() can be called again, and each call returns the same report", async () => {
  await using t = startServer(inMemory());
  const [first, second] = [t.server.shutdown(), t.server.shutdown({ drain: "finish" })];
  assertStrictEquals(await first, await second);
  assertStrictEquals(await t.server.shutdown(), await first);
  await t.server.finished;
  assertEquals(await first, { closed: {}, handlersLeft: 0, durationMs: 0 });
});

testOnce("a later shutdown() can only bring the end of the first one forward", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock });
  await t.admitted();
  t.server.shutdown({ drainTimeout: 300 });
  t.server.shutdown({ drainTimeout: 5000 });
  t.server.shutdown({ drainTimeout: Infinity });
  await clock.advance(299);
  assertEquals(t.stats.active, 1);
  t.server.shutdown({ drainTimeout: 500 });
  await clock.advance(1);
  assertEquals(await t.server.shutdown(), { closed: { "drain-timeout": 1 }, handlersLeft: 0, durationMs: 300 });
});

testOnce("a later shutdown() brings the deadline forward", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, drainTimeout: Infinity });
  await t.admitted();
  t.server.shutdown();
  await clock.advance(1000);
  t.server.shutdown({ drainTimeout: 200 });
  await clock.advance(200);
  assertEquals(await t.server.shutdown(), { closed: { "drain-timeout": 1 }, handlersLeft: 0, durationMs: 1200 });
});

testOnce("a deadline that is brought forward leaves no timer that keeps the process alive", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock });
  await t.admitted();
  t.server.shutdown({ drainTimeout: 5000 });
  const stopped = t.server.shutdown({ drainTimeout: 100 });
  await clock.advance(100);
  assertEquals([await stopped, clock.pending], [
    { closed: { "drain-timeout": 1 }, handlersLeft: 0, durationMs: 100 },
    0,
  ]);
});

testOnce("a shutdown emits waiting every 500 ms, with the number of open connections", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, drainTimeout: 1700, idleTimeout: Infinity });
  const [first] = [await t.admitted(), await t.admitted(), await t.admitted()];
  const stopped = t.server.shutdown();
  await clock.advance(600);
  await first.closeWrite();
  await clock.advance(1100);
  await stopped;
  const told = t.events.slice(4).map((event) => "active" in event ? [event.type, event.active] : [event.type]);
  assertEquals(told, [
    ["draining", 3],
    ["waiting", 3],
    ["closed"],
    ["waiting", 2],
    ["waiting", 2],
    ["closed"],
    ["closed"],
    ["stopped"],
  ]);
  await clock.advance(5000);
  assertEquals([t.events.length, clock.pending], [12, 0]);
});

testOnce("aborting the signal is a shutdown, with the server's own options", async () => {
  const controller = new AbortController();
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, signal: controller.signal, drain: "finish" });
  const client = await t.admitted();
  controller.abort();
  assertEquals(t.server.state, "draining");
  assertEquals(await client.readLine(), null);
  await client.closeWrite();
  await t.server.finished;
  assertEquals((await t.until("stopped")).report.closed, { drained: 1 });
});

testOnce("a server whose signal is aborted already accepts no connection", async () => {
  await using t = startServer({ ...inMemory(), signal: AbortSignal.abort() });
  await t.server.finished;
  assertEquals(t.events.map(({ type }) => type), ["listening", "draining", "stopped"]);
});

testOnce("a closed server has removed its listener from the signal", async () => {
  const controller = new AbortController();
  const { signal } = controller;
  const held = new Set<EventListener>();
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (type: string, call: EventListener) => (held.add(call), add(type, call));
  signal.removeEventListener = (type: string, call: EventListener) => (held.delete(call), remove(type, call));
  {
    await using t = startServer({ ...inMemory(), signal });
    assertEquals(held.size, 1);
    await t.server.shutdown();
    assertEquals(held.size, 0);
  }
  controller.abort();
});

testOnce("await using shuts the server down", async () => {
  let server: Server;
  {
    await using inner = serve({ listener: new MemoryListener() });
    server = inner;
  }
  assertEquals(server.state, "closed");
  await server.finished;
});

testOnce("a handler may call shutdown() and still answer", async () => {
  for (const drain of ["finish", "linger"] as const) {
    await using t: TestServer = startServer(inMemory(), (line) => {
      if (line === "stop") t.server.shutdown({ drain });
      return shout(line);
    });
    assertEquals(await t.talk("one\nstop\ntwo\n"), "ONE\nSTOP\nTWO\n");
    await t.server.finished;
  }
});
