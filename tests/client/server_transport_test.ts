import { assertEquals, assertRejects } from "@std/assert";
import { type Conn, connect, ConnectionClosedError, connectPool, type PoolEvent, type Transport } from "@x/shouty";
import { FakeClock } from "@x/shouty/testing";
import { ServerTransport } from "../../internal/client/server_transport.ts";
import { test, testOnce } from "../kit/bounded.ts";
import { AUTHORITY, startTls } from "../kit/tls.ts";

const GONE = new Deno.errors.BrokenPipe("Broken pipe");

/** A connection to a server that takes nothing, and the parts of what it has sent before. */
class Closing implements Transport {
  readonly localAddr = { transport: "tcp", hostname: "127.0.0.1", port: 1 } as const;
  readonly remoteAddr = this.localAddr;
  readonly #parts: string[];
  readonly #end: null | Error;
  closed = 0;

  constructor(parts: string[], end: null | Error = null) {
    this.#parts = parts;
    this.#end = end;
  }

  read(into: Uint8Array): Promise<number | null> {
    const part = this.#parts.shift();
    if (part !== undefined) return Promise.resolve(new TextEncoder().encodeInto(part, into).written);
    return this.#end === null ? Promise.resolve(null) : Promise.reject(this.#end);
  }

  write(): Promise<number> {
    return Promise.reject(GONE);
  }

  closeWrite(): Promise<void> {
    return Promise.resolve();
  }

  close(): void {
    this.closed++;
  }
}

async function readAll(conn: Conn): Promise<string[]> {
  const lines = [];
  for await (const line of conn.lines) lines.push(line);
  return lines;
}

testOnce("the last words of a server that closes while much is being written are read", async () => {
  for (let i = 0; i < 20; i++) {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const conn = await connect({ port: listener.addr.port });
    const server = await listener.accept();
    const lines = readAll(conn);
    const refused = assertRejects(
      async () => {
        for (;;) await conn.write(new Uint8Array(16 * 1024));
      },
      ConnectionClosedError,
      "reset",
    );
    await server.read(new Uint8Array(1));
    await server.write(new TextEncoder().encode("enough\n"));
    // Much has come that was not read, so this sends a reset.
    server.close();
    await refused;
    assertEquals([await lines, (await conn.closed).reason], [["enough"], "reset"]);
  }
});

/** Writes until that fails, as a client does that reads the answer when it has written everything. */
async function writeUntilRefused(conn: Conn): Promise<void> {
  await assertRejects(
    async () => {
      for (;;) await conn.write(`${"x".repeat(16 * 1024)}\n`);
    },
    ConnectionClosedError,
    "reset",
  );
}

testOnce("a caller whose write has failed reads the last words of a server that has closed", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const conn = await connect({ port: listener.addr.port });
  const server = await listener.accept();
  const refused = writeUntilRefused(conn);
  await server.read(new Uint8Array(1));
  await server.write(new TextEncoder().encode("552 too big\n421 bye\n"));
  server.close();
  await refused;
  assertEquals([await conn.readLine(), conn.ending], ["552 too big", undefined]);
  await assertRejects(() => conn.write("more\n"), ConnectionClosedError, "reset");
  await assertRejects(() => conn.flushed(), ConnectionClosedError, "reset");
  assertEquals([await conn.readLine(), await conn.readLine(), conn.ending], ["421 bye", null, "reset"]);
  assertEquals((await conn.closed).reason, "reset");
});

test("a caller whose write has failed under TLS reads the last words of a server that has closed", async () => {
  await using t = await startTls({}, {}, {
    conversation: async (conn) => {
      await conn.readLine();
      conn.close({ lastWord: "552 too big" });
    },
  });
  const conn = await connect({ port: t.port, tls: { serverName: "localhost", caCerts: AUTHORITY.cert } });
  await writeUntilRefused(conn);
  assertEquals([await readAll(conn), conn.ending, (await conn.closed).reason], [["552 too big"], "reset", "reset"]);
});

testOnce("what the server had sent before it ended its side can be read after a write has failed", async () => {
  const clock = new FakeClock();
  const conn = await connect({ dial: () => new Closing(["one\ntwo\n"]), clock });
  // Meanwhile the input is read ahead to its end.
  await clock.advance(300);
  conn.write("lost\n");
  await assertRejects(() => conn.flushed(), ConnectionClosedError, "reset");
  assertEquals([await conn.readLine(), conn.signal.aborted], ["one", false]);
  assertEquals([await conn.readLine(), (await conn.closed).reason, await conn.readLine()], ["two", "reset", null]);
});

testOnce("a handler of a pool whose write has failed may read on, and what it throws for that is a reset", async () => {
  const clock = new FakeClock();
  const events: PoolEvent[] = [];
  const lines: (string | null)[] = [];
  let transports = [new Closing(["one\ntwo\n"])];
  const dial = () => transports.pop() ?? new Promise<never>(() => {});
  const pool = connectPool({ dial, clock, onEvent: (event) => events.push(event) }, async (conn) => {
    conn.write("lost\n");
    const refused = await conn.flushed().catch((error) => error);
    lines.push(await conn.readLine());
    throw refused;
  });
  await clock.advance(2000);
  assertEquals(lines, ["one"]);
  const { reset, "handler-error": failed } = pool.stats().closed;
  assertEquals([reset, failed, events.filter(({ type }) => type === "handler-error")], [1, 0, []]);
  transports = [];
  await pool.shutdown();
});

testOnce("a caller that closes after a failed write waits for nothing", async () => {
  const clock = new FakeClock();
  const transport = new Closing(["one\ntwo\n"], new Deno.errors.ConnectionReset("Connection reset"));
  const conn = await connect({ dial: () => transport, clock });
  conn.write("lost\n");
  await clock.advance(1300);
  assertEquals(await conn.readLine(), "one");
  await conn[Symbol.asyncDispose]();
  assertEquals([(await conn.closed).reason, transport.closed, clock.pending], ["reset", 1, 0]);
});

for (const end of [null, new Deno.errors.ConnectionReset("Connection reset")]) {
  const how = end === null ? "ends" : "is reset";
  testOnce(`an input that ${how} after a write has failed was cut off, and is read to its end`, async () => {
    const transport = new Closing(["one\ntw", "o\nthree\n"], end);
    const conn = await connect({ dial: () => transport, clock: new FakeClock() });
    conn.write("lost\n");
    const flushed = conn.flushed();
    assertEquals([await readAll(conn), conn.ending], [["one", "two", "three"], "reset"]);
    await assertRejects(() => flushed, ConnectionClosedError, "reset");
    const { reason, error } = await conn.closed;
    assertEquals([reason, error, transport.closed], ["reset", end ?? GONE, 1]);
  });
}

testOnce("what the server had sent before a reset is left to a caller that reads late", async () => {
  const clock = new FakeClock();
  const transport = new Closing(["one\ntwo\n"], new Deno.errors.ConnectionReset("Connection reset"));
  const conn = await connect({ dial: () => transport, clock });
  conn.write("lost\n");
  // Meanwhile the connection is watched, and its input is read ahead.
  await clock.advance(900);
  assertEquals(conn.ending, undefined);
  assertEquals([await readAll(conn), conn.ending, (await conn.closed).reason], [["one", "two"], "reset", "reset"]);
  await clock.advance(0);
  assertEquals(clock.pending, 0);
});

testOnce("what had come before a reset is left to a caller one of whose reads was given up", async () => {
  const clock = new FakeClock();
  const reset = Promise.withResolvers<never>();
  const transport = new Closing(["421 too many\nmore\n"]);
  const first = transport.read.bind(transport);
  let reads = 0;
  transport.read = (into) => reads++ === 0 ? first(into) : reset.promise;
  const conn = await connect({ dial: () => transport, clock });
  const given = assertRejects(() => conn.readExactly(1000, { timeout: 100 }), Deno.errors.TimedOut);
  await clock.advance(100);
  await given;
  reset.reject(new Deno.errors.ConnectionReset("Connection reset"));
  await clock.advance(500);
  assertEquals([await readAll(conn), conn.ending], [["421 too many", "more"], "reset"]);
});

testOnce("a write that fails after the end of the input ends the connection at once", async () => {
  const clock = new FakeClock();
  const transport = new Closing(["bye\n"]);
  const conn = await connect({ dial: () => transport, clock });
  assertEquals([await readAll(conn), conn.ending], [["bye"], "end"]);
  conn.write("lost\n");
  const { reason, error } = await conn.closed;
  assertEquals([reason, error, transport.closed, clock.pending], ["reset", GONE, 1, 0]);
});

testOnce(
  "a failed write is reported after a second in which nothing is read, and ends the connection ten later",
  async () => {
    const clock = new FakeClock();
    const transport = new Closing(Array.from({ length: 1000 }, () => "x".repeat(1000) + "\n"));
    const conn = await connect({ dial: () => transport, clock });
    conn.write("lost\n");
    let reported = false;
    const flushed = conn.flushed().catch(() => reported = true);
    // Within this second, reading ahead comes to an end: too much waits for the caller.
    await clock.advance(999);
    assertEquals([transport.closed, conn.signal.aborted, reported], [0, false, false]);
    await clock.advance(1000);
    await flushed;
    await clock.advance(9000);
    assertEquals(typeof await conn.readLine(), "string");
    // With that read, the time starts anew.
    await clock.advance(9000);
    assertEquals([transport.closed, conn.signal.aborted], [0, false]);
    await clock.advance(11_000);
    const { reason, error } = await conn.closed;
    assertEquals([reason, error, transport.closed, clock.pending], ["reset", GONE, 1, 0]);
  },
);

testOnce("a connection that the caller closes does not wait for the input after a failed write", async () => {
  const controller = new AbortController();
  const clock = new FakeClock();
  const transport = new Closing(["one\n"]);
  const conn = await connect({ dial: () => transport, clock, signal: controller.signal });
  conn.write("lost\n");
  await clock.advance(0);
  controller.abort();
  assertEquals([(await conn.closed).reason, transport.closed], ["closed", 1]);
  await clock.advance(0);
  assertEquals(clock.pending, 0);
});

testOnce("a failed write waits as long as a read of the input does, and a second where none does", async () => {
  const clock = new FakeClock();
  const reads: PromiseWithResolvers<number>[] = [];
  const read = () => {
    reads.push(Promise.withResolvers());
    return reads.at(-1)!.promise;
  };
  const failing = () => {
    const transport = new ServerTransport(Object.assign(new Closing([]), { read }), clock);
    const state = { transport, reported: false };
    return { state, write: () => transport.write(new Uint8Array(1)).catch(() => state.reported = true) };
  };
  const { state, write } = failing();
  const first = state.transport.read(new Uint8Array(8));
  write();
  await clock.advance(60_000);
  assertEquals(state.reported, false, "The last words may come late");
  reads[0].resolve(1);
  await first;
  await clock.advance(999);
  const second = state.transport.read(new Uint8Array(8));
  await clock.advance(60_000);
  assertEquals(state.reported, false, "The next read came within the second");
  reads[1].resolve(1);
  await second;
  await clock.advance(999);
  assertEquals(state.reported, false);
  await clock.advance(1);
  assertEquals(state.reported, true);

  const unread = failing();
  unread.write();
  await clock.advance(500);
  unread.write();
  await clock.advance(999);
  assertEquals([unread.state.reported, clock.pending], [false, 1], "The time begins anew at each");
  await clock.advance(1);
  assertEquals([unread.state.reported, clock.pending], [true, 0], "It was never read");
});
