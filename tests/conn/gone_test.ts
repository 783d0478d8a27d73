/** Peers that reset or end while a handler works. */
import { once } from "node:events";
import net from "node:net";
import tls from "node:tls";
import { assert, assertEquals, assertGreaterOrEqual } from "@std/assert";
import {
  type Conn,
  type ConnHandler,
  type LineHandler,
  serve,
  serveConnections,
  type ServeOptions,
  type Server,
} from "@x/shouty";
import { listenTls, listenUnix } from "@x/shouty/ops";
import { FakeClock, MemoryListener, type TestClient } from "@x/shouty/testing";
import { turn } from "../../internal/time/event_loop.ts";
import { TURN_BYTES, TURNS } from "../../internal/time/turns.ts";
import { test, testOnce } from "../kit/bounded.ts";
import { inMemory, listenLoopback, SOCKETS, startConversations, startServer, TestServer } from "../kit/server.ts";
import { AUTHORITY, IDENTITY } from "../kit/tls.ts";

/** A reply of which the client reads only a part, so that closing the client's socket resets the connection. */
const REPLY = "x".repeat(50_000) + "\n";

function untilAborted({ signal }: Conn): Promise<unknown> {
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(signal.reason)));
}

for (const limits of [{}, { maxBytesPerSecond: 1e6 }, { maxLinesPerSecond: 1000 }]) {
  testOnce(
    `a reset is noticed while a handler works and another line has come, with ${JSON.stringify(limits)}`,
    async () => {
      const { listener, clock } = inMemory();
      const done = Promise.withResolvers<string>();
      await using t = startServer({ listener, clock, ...limits }, () => done.promise);
      const client = await t.admitted();
      await client.write("slow\n");
      await clock.advance(10);
      await client.write("next\n");
      await clock.advance(1000);
      client.reset();
      await clock.advance(1000);
      assertEquals(t.all("closed").map(({ reason }) => reason), ["reset"]);
      done.resolve("reply");
    },
  );
}

/** A client that can reset its connection. */
interface Peer {
  write(text: string): unknown;
  /** Waits until bytes have come. */
  heard(): Promise<unknown>;
  reset(): void;
}

/** A kind of socket: a listener, and a way to connect to it. */
interface Road {
  listen(): Promise<ServeOptions>;
  connect(addr: Deno.Addr): Promise<Peer>;
}

/** A client on Node's sockets, which can send a RST. */
async function connectNode(addr: Deno.Addr, secure: boolean): Promise<Peer> {
  const socket = net.connect((addr as Deno.NetAddr).port, "127.0.0.1");
  const conn = secure ? tls.connect({ socket, ca: AUTHORITY.cert, servername: "localhost" }) : socket;
  conn.on("error", () => {});
  await once(conn, secure ? "secureConnect" : "connect");
  const heard = once(conn, "data");
  return { write: (text) => conn.write(text), heard: () => heard, reset: () => socket.resetAndDestroy() };
}

/** A client on a Unix socket, which resets the connection by closing it with input unread. */
async function connectUnix(addr: Deno.Addr): Promise<Peer> {
  const conn = await Deno.connect({ transport: "unix", path: (addr as Deno.UnixAddr).path });
  const write = (text: string) => conn.write(new TextEncoder().encode(text));
  return { write, heard: () => conn.read(new Uint8Array(1)), reset: () => conn.close() };
}

const ROADS: Readonly<Record<string, Road>> = {
  "TCP": {
    listen: () => Promise.resolve({ listener: listenLoopback() }),
    connect: (addr) => connectNode(addr, false),
  },
  "TLS": {
    listen: async () => ({ listener: await listenTls({ listener: listenLoopback(), ...IDENTITY }) }),
    connect: (addr) => connectNode(addr, true),
  },
  "a Unix socket": {
    listen: async () => ({ listener: await listenUnix({ path: `${await Deno.makeTempDir()}/shouty.sock` }) }),
    connect: connectUnix,
  },
};

/** Handlers that answer one line, and then wait for the end of their connection. */
function handlers(
  ended: (reason: unknown) => void,
): Readonly<Record<string, (options: ServeOptions) => Server>> {
  const line: LineHandler = async (line, conn) => {
    if (line === "wait") ended(await untilAborted(conn));
    return line === "hello" ? REPLY.trimEnd() : line;
  };
  const conversation: ConnHandler = async (conn) => {
    await conn.lines.next();
    await conn.write(REPLY);
    if ((await conn.lines.next()).value === "wait") ended(await untilAborted(conn));
  };
  return {
    "a line handler": (options) => serve(options, line),
    "a conversation": (options) => serveConnections(options, conversation),
  };
}

for (const [road, { listen, connect }] of Object.entries(ROADS)) {
  for (const wayIn of ["a line handler", "a conversation"]) {
    const skipped = road === "a Unix socket" && Deno.build.os === "windows" ? " (skipped: no Unix sockets)" : "";
    (road === "a Unix socket" ? testOnce : test)(
      `a peer that resets over ${road} while ${wayIn} waits ends its connection at once, and its place is free`,
      async () => {
        const ended = Promise.withResolvers<unknown>();
        const start = handlers(ended.resolve)[wayIn];
        const timeouts = { idleTimeout: Infinity, writeTimeout: Infinity };
        await using t = new TestServer(start, {
          ...await listen(),
          maxConnections: 1,
          maxConnectionsPerIp: 1,
          ...timeouts,
        });
        const peer = await connect(t.server.addr);
        peer.write("hello\n");
        await peer.heard();
        peer.write("wait\n");
        while (t.stats.lines < 2) await new Promise((resolve) => setTimeout(resolve, 1));
        peer.reset();
        assertEquals(await ended.promise, "reset");
        assertEquals((await t.closed()).reason, "reset");
        const next = await connect(t.server.addr);
        next.write("hello\n");
        await next.heard();
        next.reset();
      },
      60,
      skipped,
    );
  }
}

/** Starts a server in memory whose handler works until `goOn` is called. */
function startWaiting(options: ServeOptions = {}, wayIn = "line") {
  const { listener, clock } = inMemory({ bufferBytes: 1 << 20 });
  const { promise, resolve: goOn } = Promise.withResolvers<void>();
  const signals: AbortSignal[] = [];
  const all = { listener, clock, idleTimeout: Infinity, ...options };
  const t = wayIn === "line"
    ? startServer(all, async (line, conn) => (signals.push(conn.signal), await promise, line))
    : startConversations(all, async (conn) => {
      signals.push(conn.signal);
      await promise;
      for await (const line of conn.lines) await conn.write(`${line}\n`);
    });
  return { t, clock, goOn, signals };
}

testOnce("what a peer sends while a handler works is kept for it, however much that is", async () => {
  for (const wayIn of ["line", "conversation"]) {
    for (const count of [1, 100, 20_000]) {
      const { t, clock, goOn } = startWaiting({}, wayIn);
      await using _ = t;
      const client = await t.admitted();
      const text = Array.from({ length: count }, (_, i) => `line ${i}\n`).join("");
      await client.write("first\n");
      await clock.advance(1000);
      await client.write(text);
      await clock.advance(1000);
      // The server has read only a bounded part so far.
      assert(t.stats.bytesIn <= 6 + 2 * 65_536, `${t.stats.bytesIn}`);
      goOn();
      await client.closeWrite();
      assertEquals(await client.readAll(), `first\n${text}`);
      assertEquals((await t.closed()).reason, "end");
    }
  }
});

testOnce("a peer that has sent much before it resets is noticed, too", async () => {
  const { t, clock, signals } = startWaiting({ maxLineBytes: 1000 });
  await using _ = t;
  const client = await t.admitted();
  await client.write("first\n" + "y".repeat(60_000));
  await clock.advance(1000);
  client.reset();
  assertEquals((await t.closed()).reason, "reset");
  assertEquals(signals[0].reason, "reset");
});

testOnce("a peer that has ended its side gets the reply of a handler that takes its time", async () => {
  for (const wayIn of ["line", "conversation"]) {
    const { t, clock, goOn } = startWaiting({}, wayIn);
    await using _ = t;
    const client = await t.admitted();
    await client.write("slow\n");
    await client.closeWrite();
    await clock.advance(59_000);
    goOn();
    assertEquals(await client.readAll(), "slow\n");
    assertEquals((await t.closed()).reason, "end");
  }
});

testOnce(
  "halfCloseTimeout ends a handler that goes on after its peer's end, and each write starts it anew",
  async () => {
    const { listener, clock } = inMemory();
    const push = Promise.withResolvers<Conn>();
    await using t = startConversations(
      { listener, clock, idleTimeout: Infinity, halfCloseTimeout: 1000 },
      async (conn) => {
        for await (const _ of conn.lines);
        push.resolve(conn);
        await untilAborted(conn);
      },
    );
    const client = await t.admitted();
    await client.closeWrite();
    const conn = await push.promise;
    for (let i = 0; i < 5; i++) {
      await clock.advance(900);
      conn.write(`${i}\n`);
      assertEquals(await client.readLine(), `${i}`);
    }
    await clock.advance(999);
    assertEquals(t.all("closed"), []);
    await clock.advance(1);
    assertEquals((await t.closed()).reason, "handler-timeout");
  },
);

for (const wayIn of ["line", "lines", "readable"]) {
  testOnce(`a handler of ${wayIn} gets all lines that came before TLS was cut off, however long it takes`, async () => {
    const clock = new FakeClock();
    const lines: string[] = [];
    const aWhile = () => new Promise<void>((resolve) => clock.setTimer(resolve, 1000));
    const take = (line: string) => (lines.push(line), aWhile());
    const options = {
      listener: await listenTls({ listener: listenLoopback(), ...IDENTITY }),
      clock,
      idleTimeout: Infinity,
    };
    await using t = wayIn === "line" ? startServer(options, take) : startConversations(options, async (conn) => {
      if (wayIn === "lines") { for await (const line of conn.lines) await take(line); }
      else {
        await aWhile();
        for await (const bytes of conn.readable) {
          lines.push(...new TextDecoder().decode(bytes).split("\n").slice(0, -1));
        }
      }
    });
    const socket = net.connect(t.port, "127.0.0.1");
    const client = tls.connect({ socket, ca: AUTHORITY.cert, servername: "localhost" });
    client.on("error", () => {});
    await once(client, "secureConnect");
    await t.until("accepted");
    await new Promise((resolve) => client.write("one\ntwo\nthree\nfour\nfi", resolve));
    // The socket ends, and TLS does not.
    socket.end();
    const closed = t.closed();
    for (let done = false; !done; closed.then(() => done = true)) {
      await clock.advance(100);
      await turn();
    }
    assertEquals([lines, (await closed).reason], [["one", "two", "three", "four"], "reset"]);
    socket.destroy();
  });
}

testOnce("halfCloseTimeout counts from the moment at which the end is noticed while a line handler works", async () => {
  const { t, clock } = startWaiting({ halfCloseTimeout: 5000 });
  await using _ = t;
  const client = await t.admitted();
  await client.write("slow\n");
  await clock.advance(20_000);
  await client.closeWrite();
  await clock.advance(4999);
  assertEquals(t.all("closed"), []);
  await clock.advance(1);
  // The handler has one more second to write.
  await clock.advance(1000);
  assertEquals((await t.closed()).reason, "handler-timeout");
});

testOnce("the shorter one of handlerTimeout and halfCloseTimeout holds once the peer has ended its side", async () => {
  for (const [handlerTimeout, halfCloseTimeout] of [[3000, 5000], [5000, 3000]]) {
    const { t, clock } = startWaiting({ handlerTimeout, halfCloseTimeout });
    await using _ = t;
    const client = await t.admitted();
    await client.write("slow\n");
    await client.closeWrite();
    // The end is noticed after a quarter of a second, and starts the clock anew.
    await clock.advance(3249);
    assertEquals([...t.server.connections].map(({ ending }) => ending), [undefined]);
    await clock.advance(1);
    assertEquals([...t.server.connections].map(({ ending }) => ending), ["handler-timeout"]);
    await clock.advance(1000);
    assertEquals((await t.closed()).reason, "handler-timeout");
  }
});

testOnce("handlerTimeout bounds a line handler's answer to each line", async () => {
  const { listener, clock } = inMemory();
  let reply = (_: string) => {};
  await using t = startServer(
    { listener, clock, idleTimeout: 100, handlerTimeout: 1000 },
    () => new Promise<string>((resolve) => reply = resolve),
  );
  const client = await t.admitted();
  for (const line of ["one", "two"]) {
    await client.write(`${line}\n`);
    await clock.advance(999);
    reply(line);
    assertEquals(await client.readLine(), line);
  }
  await client.write("three\n");
  await clock.advance(999);
  assertEquals(t.all("closed"), []);
  await clock.advance(1);
  // The handler has one more second to write.
  await clock.advance(1000);
  assertEquals((await t.closed()).reason, "handler-timeout");
});

testOnce(
  "handlerTimeout lets a conversation read and write for as long as it likes, and wait for a slow peer",
  async () => {
    const { listener, clock } = inMemory({ bufferBytes: 100 });
    let goOn = () => {};
    const pause = () => new Promise<void>((resolve) => goOn = resolve);
    const options = { listener, clock, idleTimeout: Infinity, firstLineTimeout: Infinity, handlerTimeout: 1000 };
    await using t = startConversations(options, async (conn) => {
      for (let i = 0; i < 3; i++) await pause(), conn.write("tick\n");
      await conn.lines.next();
      await conn.write("x".repeat(100_000));
      await pause();
    });
    const client = await t.admitted();
    for (let i = 0; i < 3; i++) {
      await clock.advance(999);
      goOn();
      assertEquals(await client.readLine(), "tick");
    }
    // Now the handler waits for its peer, first for a line, and then for room to write.
    await clock.advance(60_000);
    await client.write("go\n");
    for (let left = 100_000; left > 0;) {
      await clock.advance(50);
      for (let count = 0; count < 5000 && left > 0;) {
        const { length } = (await client.read())!;
        count += length;
        left -= length;
      }
    }
    await clock.advance(0);
    assertEquals(t.all("closed"), []);
    await clock.advance(1000);
    // The handler has one more second to write.
    await clock.advance(1000);
    assertEquals((await t.closed()).reason, "handler-timeout");
  },
);

testOnce("each read of what has come already restarts the clock of handlerTimeout", async () => {
  const { listener, clock } = inMemory();
  const options = { listener, clock, idleTimeout: Infinity, handlerTimeout: 1000 };
  await using t = startConversations(options, async (conn) => {
    const work = () => new Promise<void>((resolve) => clock.setTimer(resolve, 600));
    for (let i = 0; i < 3; i++) await conn.readLine(), await work();
    for (let i = 0; i < 3; i++) await conn.readExactly(2), await work();
    for (let i = 0; i < 3; i++) await conn.readUntil("\n"), await work();
    await conn.write("done\n");
  });
  const client = await t.admitted();
  await client.write("x\n".repeat(9));
  await clock.advance(9 * 600);
  assertEquals(await client.readLine(), "done");
  client.close();
  assertEquals((await t.closed()).reason, "closed");
});

testOnce("maxAge ends a connection whose handler hangs, ten seconds later", async () => {
  for (const wayIn of ["line", "conversation"]) {
    const { t, clock } = startWaiting({ maxAge: 1000 }, wayIn);
    await using _ = t;
    await (await t.admitted()).write("slow\n");
    await clock.advance(10_899);
    assertEquals(t.all("closed"), []);
    await clock.advance(202);
    assertEquals((await t.closed()).reason, "max-age");
  }
});

testOnce(
  "a shutdown waits until handlers whose connections have ended have settled, their finally included",
  async () => {
    for (const wayIn of ["line", "conversation"]) {
      const { listener, clock } = inMemory();
      const cleanUp = Promise.withResolvers<void>();
      const order: string[] = [];
      const work = async (conn: Conn) => {
        try {
          await untilAborted(conn);
        } finally {
          await cleanUp.promise;
          order.push("cleaned up");
        }
      };
      const options = { listener, clock, idleTimeout: Infinity };
      await using t = wayIn === "line"
        ? startServer(options, (_, conn) => work(conn).then(() => ""))
        : startConversations(options, async (conn) => (await conn.lines.next(), await work(conn)));
      const client = await t.admitted();
      await client.write("work\n");
      await clock.advance(1000);
      assertEquals(t.stats.handlers, 1);
      client.reset();
      await t.closed();
      assertEquals([t.stats.active, t.stats.handlers], [0, 1]);
      const stopped = t.server.shutdown().then((report) => (order.push("stopped"), report));
      await clock.advance(1000);
      assertEquals(order, []);
      cleanUp.resolve();
      assertEquals((await stopped).handlersLeft, 0);
      assertEquals([order, t.stats.handlers], [["cleaned up", "stopped"], 0]);
    }
  },
);

testOnce("a handler that ends at the deadline of a shutdown is not given up, its finally included", async () => {
  const { listener, clock } = inMemory();
  let isClean = false;
  await using t = startConversations({ listener, clock, idleTimeout: Infinity }, async (conn) => {
    await untilAborted(conn);
    for (let steps = 0; steps < 20; steps++) await undefined;
    isClean = true;
  });
  await t.admitted();
  const stopped = t.server.shutdown({ drainTimeout: 1000 });
  await clock.advance(1000);
  const { closed, handlersLeft } = await stopped;
  assertEquals([closed, handlersLeft, isClean], [{ "drain-timeout": 1 }, 0, true]);
});

testOnce("a shutdown gives up handlers that hang at its deadline, and says how many", async () => {
  const { listener, clock } = inMemory();
  await using t = startConversations({ listener, clock }, () => new Promise(() => {}));
  const clients: TestClient[] = [];
  for (let i = 0; i < 3; i++) clients.push(await t.admitted());
  clients[0].reset();
  await clock.advance(1000);
  assertEquals([t.stats.active, t.stats.handlers], [2, 3]);
  const stopped = t.server.shutdown({ drain: "finish", drainTimeout: 5000 });
  await clock.advance(4999);
  assertEquals(t.server.state, "draining");
  await clock.advance(1);
  const { closed, handlersLeft } = await stopped;
  assertEquals([closed, handlersLeft], [{ "drain-timeout": 2 }, 3]);
});

testOnce("a handler that was given up and fails after the shutdown is no event", async () => {
  const { listener, clock } = inMemory();
  const work = Promise.withResolvers<void>();
  await using t = startConversations({ listener, clock }, () => work.promise);
  await t.admitted();
  const stopped = t.server.shutdown({ drainTimeout: 1000 });
  await clock.advance(1000);
  assertEquals((await stopped).handlersLeft, 1);
  work.reject(new Error("too late"));
  await turn();
  assertEquals([t.events.at(-1)?.type, t.all("handler-error")], ["stopped", []]);
});

testOnce("stats and shutdown do not count a line handler that is not running", async () => {
  await using t = startServer(inMemory());
  const client = await t.admitted();
  await client.write("hello\n");
  await client.readLine();
  assertEquals(t.stats.handlers, 0);
});

testOnce("reading ahead for a handler keeps to the pace", async () => {
  const { listener, clock } = inMemory();
  const goOn = Promise.withResolvers<void>();
  const options = { listener, clock, idleTimeout: Infinity, maxBytesPerSecond: 100 };
  await using t = startServer(options, async (line) => (await goOn.promise, line));
  const client = await t.admitted();
  await client.write("first\n" + "y".repeat(10_000) + "\n");
  await clock.advance(10_000);
  const { bytesIn } = t.stats;
  assertGreaterOrEqual(1300, bytesIn);
  goOn.resolve();
});

testOnce(
  "a connection that was read ahead of its handler starts a new idle clock when it waits for the peer",
  async () => {
    const clock = new FakeClock();
    const listener = new MemoryListener();
    const goOn = Promise.withResolvers<void>();
    await using t = startServer({ listener, clock, idleTimeout: 1000 }, async (line) => (await goOn.promise, line));
    const client = await t.admitted();
    await client.write("slow\n");
    await clock.advance(60_000);
    goOn.resolve();
    assertEquals(await client.readLine(), "slow");
    await clock.advance(999);
    assertEquals(t.all("closed"), []);
    await clock.advance(1);
    assertEquals((await t.closed()).reason, "idle");
  },
);

testOnce("a peer whose first byte was read ahead of the handler meets firstLineTimeout no longer", async () => {
  const { listener, clock } = inMemory();
  const goOn = Promise.withResolvers<void>();
  const options = { listener, clock, firstLineTimeout: 1000, idleTimeout: Infinity, lineTimeout: 5000 };
  await using t = startConversations(options, async (conn) => {
    await goOn.promise;
    await conn.readLine();
  });
  const client = await t.admitted();
  await client.write("begun");
  await clock.advance(500);
  goOn.resolve();
  await clock.advance(4999);
  assertEquals(t.all("closed"), []);
  await clock.advance(1);
  assertEquals(await client.readAll(), "");
  client.close();
  assertEquals((await t.closed()).reason, "line-timeout");
});

testOnce("bytes that were read ahead while the reader waited for a turn are not read once more", async () => {
  const { listener, clock } = inMemory();
  const got: string[] = [];
  const goOn = Promise.withResolvers<void>();
  await using t = startConversations({ listener, clock, idleTimeout: Infinity }, async (conn) => {
    for await (const line of conn.lines) {
      got.push(line);
      if (got.length === 1) await goOn.promise;
      // This read has filled its buffer, so the reader waits for a turn before the next one.
      if (got.length === 128) {
        while (TURNS.take(TURN_BYTES) === undefined);
        client.write("and more\n");
      }
    }
  });
  const client = await t.admitted();
  await client.write("x\n".repeat(128));
  await clock.advance(250);
  goOn.resolve();
  for (let turns = 0; turns < 10 && got.length < 129; turns++) await turn();
  assertEquals(got.at(-1), "and more");
});

// Deno's sockets tell of a reset only when they are read, which is when what was sent before has been taken.
if (SOCKETS.tellResets) {
  for (const road of ["TCP", "TLS"]) {
    test(`a peer that has sent more than is read ahead, and resets over ${road}, is gone at once`, async () => {
      const ended = Promise.withResolvers<unknown>();
      const { listen, connect } = ROADS[road];
      const start = (options: ServeOptions) =>
        serve(options, async (_, conn) => ended.resolve(await untilAborted(conn)));
      await using t = new TestServer(start, { ...await listen(), idleTimeout: Infinity });
      const peer = await connect(t.server.addr);
      peer.write("wait\n");
      while (t.stats.lines < 1) await turn();
      peer.write("y".repeat(400_000));
      // As much as fits has been read ahead.
      while (t.stats.bytesIn < 65_536) await turn();
      peer.reset();
      assertEquals(await ended.promise, "reset");
      assertEquals((await t.closed()).reason, "reset");
    });
  }
}

testOnce("a peer's reset is noticed while a handler works on batch after batch", async () => {
  const { listener, clock } = inMemory();
  const reached = Promise.withResolvers<[at: number, reason: unknown]>();
  await using t = startConversations(
    { listener, clock, maxLineBytes: 1, framing: { onLongLine: "truncate" } },
    async (conn) => {
      conn.signal.addEventListener("abort", () => reached.resolve([clock.now(), conn.signal.reason]));
      // Each batch has one line, as the next one is too long.
      for await (const _ of conn.batches) await new Promise<void>((resolve) => clock.setTimer(resolve, 200));
    },
  );
  const client = await t.connect();
  await client.write("aaa\n".repeat(30));
  await clock.advance(300);
  client.reset();
  await clock.advance(1000);
  assertEquals(await reached.promise, [300, "reset"]);
});
