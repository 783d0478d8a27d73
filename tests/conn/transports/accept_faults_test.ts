import { assertEquals } from "@std/assert";
import { serve, type ServerEvent, shout } from "@x/shouty";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { test } from "../../kit/bounded.ts";
import { faulty } from "../../kit/faults.ts";
import { converse, LINES, play, talk } from "../../kit/faulty_server.ts";
import { startServer, WAYS_IN } from "../../kit/server.ts";

const { ConnectionReset, NotConnected } = Deno.errors;

test("a transport that has no address is closed, and others are accepted", async () => {
  const memory = new MemoryListener();
  const get = () => {
    throw new NotConnected("injected");
  };
  const accept = async () => {
    const transport = await memory.accept();
    return t.stats.gone === 0 ? Object.defineProperty(transport, "remoteAddr", { get }) : transport;
  };
  const listener = { addr: memory.addr, accept, close: () => memory.close() };
  await using t = startServer({ listener, clock: new FakeClock() });
  assertEquals(await memory.connect().readAll(), "");
  assertEquals(await talk(memory, "hello\n"), "HELLO\n");
  assertEquals(t.server.state, "listening");
});

test("a transport that has no address after its end is removed from the counters like any other", async () => {
  const memory = new MemoryListener();
  const accept = async () => {
    const transport = await memory.accept();
    let addr: Deno.Addr | undefined = transport.remoteAddr;
    const close = transport.close.bind(transport);
    const bare = { get: () => addr };
    return Object.assign(Object.defineProperty(transport, "remoteAddr", bare), {
      close: () => (addr = undefined, close()),
    });
  };
  const listener = { addr: memory.addr, accept, close: () => memory.close() };
  await using t = startServer({ listener, clock: new FakeClock(), maxConnectionsPerIp: 1 });
  for (const line of ["one\n", "two\n"]) assertEquals(await talk(memory, line), line.toUpperCase());
  assertEquals((await t.closed(2)).reason, "end");
});

test("accepting goes on after errors of one connection, without a pause", async () => {
  const accepts = [new NotConnected(), new ConnectionReset(), new Deno.errors.ConnectionAborted()];
  await play(WAYS_IN["a block handler"], { accepts }, async (t, connect) => {
    assertEquals(await converse(connect()), LINES.map(shout));
    assertEquals<unknown>(t.all("gone"), accepts.map((error) => ({ type: "gone", error })));
    assertEquals([t.stats.gone, t.all("accept-error")], [3, []]);
  });
});

test("accepting goes on after errors of the machine, with pauses that double", async () => {
  const clock = new FakeClock();
  const memory = new MemoryListener();
  const accepts = Array.from({ length: 10 }, () => Object.assign(new Error("Too many open files"), { code: "EMFILE" }));
  await using t = startServer({ listener: faulty(memory, { accepts }), clock });
  const client = memory.connect();
  await client.write("hello\n");
  await clock.advance(5 + 10 + 20 + 40 + 80 + 160 + 320 + 640 + 1000 + 999);
  assertEquals(t.stats.accepted, 0);
  await clock.advance(1);
  assertEquals(await client.readLine(), "HELLO");
  assertEquals(t.all("accept-error").map(({ retryMs }) => retryMs), [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
});

test("a connection that is accepted ends the doubling of the pauses", async () => {
  const clock = new FakeClock();
  const memory = new MemoryListener();
  const emfile = () => Object.assign(new Error("Too many open files"), { code: "EMFILE" });
  const accepts = [emfile(), emfile(), undefined, emfile()];
  const listener = faulty(memory, {});
  const accept = async () => {
    const error = accepts.shift();
    if (error !== undefined) throw error;
    return await listener.accept();
  };
  await using t = startServer({ listener: { ...listener, accept }, clock });
  memory.connect();
  await clock.advance(15);
  await t.until("accept-error", 3);
  assertEquals(t.all("accept-error").map(({ retryMs }) => retryMs), [5, 10, 5]);
});

test("a listener that is closed from outside makes no unhandled rejection, even if finished is not awaited", async () => {
  const listener = new MemoryListener();
  const stopped = Promise.withResolvers<void>();
  const server = serve({ listener, onEvent: ({ type }) => type === "stopped" && stopped.resolve() });
  listener.close();
  await stopped.promise;
  assertEquals(server.state, "closed");
});

test("a listener that is closed from outside ends the server, and finished says why", async () => {
  const listener = new MemoryListener();
  const events: ServerEvent[] = [];
  const clock = new FakeClock();
  await using t = startServer({ listener, clock, drain: "finish", onEvent: (event) => void events.push(event) });
  const client = await t.admitted();
  const failed = t.server.finished.catch((error) => error);
  listener.close();
  assertEquals(await client.readAll(), "");
  client.close();
  assertEquals(await failed instanceof Deno.errors.BadResource, true);
  await t.server.shutdown();
  assertEquals(t.server.state, "closed");
});
