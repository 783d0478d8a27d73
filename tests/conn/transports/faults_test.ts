import { assertEquals, assertNotStrictEquals, assertStrictEquals } from "@std/assert";
import { type CloseReason, shout } from "@x/shouty";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { test } from "../../kit/bounded.ts";
import { faulty, type Method, tapped } from "../../kit/faults.ts";
import { converse, LINES, play, talk } from "../../kit/faulty_server.ts";
import { check, fc } from "../../kit/property.ts";
import { inMemory, startConversations, startServer, TestServer, WAYS_IN } from "../../kit/server.ts";

const { BrokenPipe, ConnectionReset, NotConnected, TimedOut } = Deno.errors;

/** What a transport may throw, and the close reason that follows. */
const ERRORS: [error: Error, reason: CloseReason][] = [
  [new ConnectionReset("injected"), "reset"],
  [new BrokenPipe("injected"), "reset"],
  [new NotConnected("injected"), "reset"],
  [new TimedOut("injected"), "reset"],
  [new Error("injected"), "transport-error"],
];

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
