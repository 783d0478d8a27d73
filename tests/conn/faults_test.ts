import { assertEquals, assertNotStrictEquals, assertStrictEquals } from "@std/assert";
import { type CloseReason, serve, type ServerEvent, shout } from "@x/shouty";
import { FakeClock, MemoryListener, type TestClient } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";
import { type Faults, faulty, type Method, tapped } from "../kit/faults.ts";
import { check, fc } from "../kit/property.ts";
import { inMemory, type Start, startConversations, startServer, TestServer, WAYS_IN } from "../kit/server.ts";

const { BrokenPipe, ConnectionReset, NotConnected, TimedOut } = Deno.errors;

/** What a transport may throw, and the close reason that follows. */
const ERRORS: [error: Error, reason: CloseReason][] = [
  [new ConnectionReset("injected"), "reset"],
  [new BrokenPipe("injected"), "reset"],
  [new NotConnected("injected"), "reset"],
  [new TimedOut("injected"), "reset"],
  [new Error("injected"), "transport-error"],
];

const LINES = ["one", "two", "three", "four"];

/** Runs a scenario on a faulty listener in memory, and checks that the server kept the contract of `Transport`. */
async function play(
  start: Start,
  faults: Faults,
  scenario: (t: TestServer, connect: () => TestClient) => Promise<void>,
) {
  const memory = new MemoryListener();
  const misuse: string[] = [];
  {
    await using t = new TestServer(start, { listener: faulty(memory, { ...faults, misuse }), clock: new FakeClock() });
    await scenario(t, () => memory.connect());
  }
  assertEquals(misuse, []);
}

/** Sends something, ends the client's side, and returns everything that comes back. */
async function talk(memory: MemoryListener, input: string): Promise<string> {
  using client = memory.connect();
  await client.write(input);
  await client.closeWrite();
  return await client.readAll().catch(() => "");
}

/** Sends one line after another, and reads the replies, until the connection ends. */
async function converse(client: TestClient): Promise<(string | null)[]> {
  const replies: (string | null)[] = [];
  try {
    for (const line of LINES) {
      await client.write(`${line}\n`);
      replies.push(await client.readLine());
    }
    await client.closeWrite();
    replies.push(await client.readLine());
  } catch {
    // The connection has met the fault.
  }
  client[Symbol.dispose]();
  return replies.filter((reply) => reply !== null);
}

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

for (const [wayIn, start] of Object.entries(WAYS_IN)) {
  test(`a read or write that fails, at whatever call, ends its own connection alone (${wayIn})`, async () => {
    for (const [error, reason] of ERRORS) {
      for (const method of ["read", "write"] as const) {
        for (let failing = 1; failing <= LINES.length; failing++) {
          let connections = 0;
          // Only the first connection has the fault.
          const fail = (called: Method, call: number) => {
            if (called === "read" && call === 1) connections++;
            return connections === 1 && called === method && call === failing ? error : undefined;
          };
          await play(start, { fail }, async (t, connect) => {
            const replies = await converse(connect());
            assertEquals(replies, LINES.slice(0, failing - 1).map(shout));
            const event = await t.closed();
            assertEquals([event.reason, event.error], [reason, error]);
            assertEquals(await converse(connect()), LINES.map(shout));
          });
        }
      }
    }
  });

  test(`a write that throws before there is a promise ends its own connection alone (${wayIn})`, async () => {
    const memory = new MemoryListener();
    const write = () => {
      throw new NotConnected("injected");
    };
    const listener = tapped(memory, () => t.all("accepted").length === 0 ? { write } : {});
    await using t = new TestServer(start, { listener, clock: new FakeClock() });
    assertEquals(await talk(memory, "one\n"), "");
    assertEquals((await t.closed()).reason, "reset");
    assertEquals(await talk(memory, "two\n"), "TWO\n");
  });

  test(`reads and writes that fall short change nothing (${wayIn})`, async () => {
    for (const most of [1, 2, 3, 7]) {
      await play(start, { readBytes: () => most, writeBytes: () => most }, async (t, connect) => {
        assertEquals(await converse(connect()), LINES.map(shout));
        assertEquals((await t.closed()).reason, "end");
      });
    }
  });

  test(`a graceful close goes on with the outstanding read (${wayIn})`, () =>
    play(start, {}, async (t, connect) => {
      const client = connect();
      await client.write("one\n");
      assertEquals(await client.readLine(), "ONE");
      const stopped = t.server.shutdown({ drain: "finish" });
      assertEquals(await client.readLine(), null);
      await client.write("sent before it was known\n");
      await client.write("and more\n");
      client.close();
      assertEquals((await stopped).closed, { drained: 1 });
    }));

  test(`whatever goes wrong, and whenever, a connection ends once and what it was sent is right (${wayIn})`, async () => {
    const anyFault = fc.record({
      method: fc.constantFrom<Method>("read", "write", "closeWrite"),
      call: fc.integer({ min: 1, max: 12 }),
      error: fc.constantFrom(...ERRORS.map(([error]) => error)),
      most: fc.integer({ min: 1, max: 10 }),
      resetAfter: fc.nat(6),
    });
    await check([anyFault], async ({ method, call, error, most, resetAfter }) => {
      const fail = (called: Method, number: number) => called === method && number === call ? error : undefined;
      await play(start, { fail, readBytes: () => most, writeBytes: () => most }, async (t, connect) => {
        const client = connect();
        await t.until("accepted");
        const replies: string[] = [];
        try {
          for (const line of LINES.slice(0, resetAfter)) {
            await client.write(`${line}\n`);
            replies.push((await client.readLine())!);
          }
          client.reset();
        } catch {
          client[Symbol.dispose]();
        }
        await t.closed();
        assertEquals(LINES.map(shout).join().startsWith(replies.slice(0, -1).join()), true);
      });
    }, 150);
  });
}

test("ending this side of a connection that is closed does not reach the transport", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 1 });
  const misuse: string[] = [];
  const ended = Promise.withResolvers<void>();
  await using t = startConversations({ listener: faulty(listener, { misuse }), clock }, async (conn) => {
    conn.write("too much\n");
    const during = conn.closeWrite();
    await conn.closed;
    await Promise.all([during, conn.closeWrite()]);
    ended.resolve();
  });
  const client = listener.connect();
  await t.until("accepted");
  client.reset();
  await ended.promise;
  assertEquals([(await t.closed()).reason, misuse], ["reset", []]);
});

test("a graceful close whose closeWrite fails ends at once", async () => {
  const fail = (method: Method) => method === "closeWrite" ? new NotConnected("injected") : undefined;
  const listener = new MemoryListener();
  await using t = startServer({ listener: faulty(listener, { fail }) }, (line, conn) => (conn.close(), shout(line)));
  const client = listener.connect();
  await client.write("bye\n");
  assertEquals([await client.readAll(), (await t.closed()).reason], ["BYE\n", "closed"]);
});

test("a transport whose setNoDelay throws is served all the same", async () => {
  const memory = new MemoryListener();
  const fail = () => {
    throw new Error("It has been reset");
  };
  const accept = async () => Object.assign(await memory.accept(), { setNoDelay: fail });
  const listener = { addr: memory.addr, accept, close: () => memory.close() };
  await using _t = startServer({ listener });
  assertEquals(await converse(memory.connect()), LINES.map(shout));
});

test("a connection gets the buffer of an ended connection only if no read into it is outstanding", async () => {
  const memory = new MemoryListener();
  const buffers: ArrayBufferLike[] = [];
  let stuck = false;
  const accept = async () => {
    const transport = await memory.accept();
    const inner = transport.read.bind(transport);
    // A read that is still outstanding after its connection's end may write into its buffer at any time.
    const read = stuck ? () => new Promise<null>(() => {}) : inner;
    return Object.assign(transport, { read: (into: Uint8Array) => (buffers.push(into.buffer), read(into)) });
  };
  const clock = new FakeClock();
  const listener = { addr: memory.addr, accept, close: () => memory.close() };
  await using t = startServer({ listener, clock, idleTimeout: 1000 });
  assertEquals(await converse(memory.connect()), LINES.map(shout));
  const ended = buffers.at(-1);
  stuck = true;
  memory.connect();
  await t.until("accepted", 2);
  await clock.advance(1000);
  assertEquals((await t.closed(2)).reason, "idle");
  const timedOut = buffers.at(-1);
  stuck = false;
  assertEquals(await converse(memory.connect()), LINES.map(shout));
  assertStrictEquals(timedOut, ended);
  assertNotStrictEquals(buffers.at(-1), timedOut);
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
