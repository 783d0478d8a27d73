import { assertEquals, assertLessOrEqual, assertRejects } from "@std/assert";
import { type Conn, type Listener, serveConnections, type ServerEvent, type Transport } from "@x/shouty";
import { MemoryListener } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";

/** A listener with one connection, whose peer sends `line` when it is told to, or resets if that is an error. */
function telling(line: string | Error) {
  const addr = { transport: "tcp", hostname: "127.0.0.1", port: 1 } as const;
  const [over, told] = [Promise.withResolvers<Transport>(), Promise.withResolvers<void>()];
  over.promise.catch(() => {});
  let [callbacks, reads] = [0, 0];
  const transport: Transport = {
    remoteAddr: addr,
    localAddr: addr,
    read(into) {
      const count: Promise<number | null> = reads++ === 0
        ? told.promise.then(() => {
          if (line instanceof Error) throw line;
          return new TextEncoder().encodeInto(line, into).written;
        })
        : Promise.resolve(null);
      const then = count.then.bind(count);
      return Object.assign(count, { then: (...args: Parameters<typeof then>) => (callbacks++, then(...args)) });
    },
    write: (bytes) => Promise.resolve(bytes.length),
    closeWrite: () => Promise.resolve(),
    close: () => {},
  };
  const waiting = [transport];
  const listener: Listener = {
    addr,
    accept: () => Promise.resolve(waiting.pop() ?? over.promise),
    close: () => over.reject(new Deno.errors.BadResource()),
  };
  return { listener, tell: told.resolve, callbacks: () => callbacks };
}

test("reads that are given up leave nothing with the read of the transport, and the next one gets its bytes", async () => {
  const peer = telling("late\n");
  const told = Promise.withResolvers<unknown>();
  await using _server = serveConnections({ listener: peer.listener }, async (conn: Conn) => {
    for (let i = 0; i < 30; i++) await assertRejects(() => conn.readLine({ timeout: 1 }), Deno.errors.TimedOut);
    const callbacks = peer.callbacks();
    peer.tell();
    told.resolve([callbacks, await conn.readLine(), await conn.readLine()]);
  });
  const [callbacks, ...lines] = await told.promise as [number, ...(string | null)[]];
  assertEquals(lines, ["late", null]);
  assertLessOrEqual(callbacks, 2);
});

test("bytes that come while no read waits are for the next one, also behind several that were given up", async () => {
  const peer = telling("one\ntwo\n");
  const told = Promise.withResolvers<unknown>();
  await using _server = serveConnections({ listener: peer.listener }, async (conn: Conn) => {
    for (let i = 0; i < 3; i++) await assertRejects(() => conn.readLine({ timeout: 1 }), Deno.errors.TimedOut);
    peer.tell();
    await new Promise((resolve) => setTimeout(resolve, 0));
    told.resolve([await conn.readLine(), await conn.readLine(), await conn.readLine()]);
  });
  assertEquals(await told.promise, ["one", "two", null]);
});

test("a reset while no read waits ends the connection once, however many reads were given up before", async () => {
  const peer = telling(new Deno.errors.ConnectionReset("reset by the peer"));
  const told = Promise.withResolvers<unknown>();
  const ends: unknown[] = [];
  const onEvent = (event: ServerEvent) => {
    if (event.type === "closed" || event.type === "handler-error") {
      ends.push([event.type, "reason" in event && event.reason]);
    }
  };
  await using server = serveConnections({ listener: peer.listener, onEvent }, async (conn: Conn) => {
    for (let i = 0; i < 3; i++) await assertRejects(() => conn.readLine({ timeout: 1 }), Deno.errors.TimedOut);
    peer.tell();
    await new Promise((resolve) => setTimeout(resolve, 0));
    told.resolve([conn.ending, await conn.readLine()]);
  });
  assertEquals(await told.promise, ["reset", null]);
  await server.shutdown();
  assertEquals(ends, [["closed", "reset"]]);
});

test("the signal of a read that has settled does not interrupt the next one", async () => {
  // In how many steps the read settles is its own matter, so the next one begins after each number of steps.
  for (let steps = 0; steps < 20; steps++) {
    const listener = new MemoryListener();
    const told = Promise.withResolvers<unknown[]>();
    await using _server = serveConnections({ listener }, async (conn: Conn) => {
      const aborter = new AbortController();
      const first = conn.readLine({ signal: aborter.signal });
      client.write("one\n");
      for (let i = 0; i < steps; i++) await undefined;
      const second = conn.readLine();
      second.catch(() => {});
      aborter.abort("the signal of the first");
      client.write("two\n");
      told.resolve([await first.catch(String), await second.catch((error) => `${error}`)]);
    });
    using client = listener.connect();
    const [first, second] = await told.promise;
    const refused = "TypeError: Cannot read: another read of this connection has not settled";
    assertEquals(second, first === "one" ? "two" : refused, `${steps} steps, the first read: ${first}`);
  }
});
