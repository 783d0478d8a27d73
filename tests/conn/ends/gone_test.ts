/** Peers that reset or end while a handler works. */
import { once } from "node:events";
import net from "node:net";
import tls from "node:tls";
import { assertEquals } from "@std/assert";
import { type ConnHandler, type LineHandler, serve, serveConnections, type ServeOptions, type Server } from "@x/shouty";
import { listenTls, listenUnix } from "@x/shouty/ops";
import { turn } from "../../../internal/time/event_loop.ts";
import { test, testOnce } from "../../kit/bounded.ts";
import { inMemory, listenLoopback, SOCKETS, startConversations, startServer, TestServer } from "../../kit/server.ts";
import { AUTHORITY, IDENTITY } from "../../kit/tls.ts";
import { untilAborted } from "../../kit/working_handlers.ts";

/** A reply of which the client reads only a part, so that closing the client's socket resets the connection. */
const REPLY = "x".repeat(50_000) + "\n";

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
  const closing: LineHandler = (text, conn) => {
    if (text === "wait") conn.close();
    return line(text, conn);
  };
  const conversation: ConnHandler = async (conn) => {
    await conn.lines.next();
    await conn.write(REPLY);
    if ((await conn.lines.next()).value === "wait") ended(await untilAborted(conn));
  };
  return {
    "a line handler": (options) => serve(options, line),
    "a line handler that has called conn.close": (options) => serve(options, closing),
    "a conversation": (options) => serveConnections(options, conversation),
  };
}

for (const [road, { listen, connect }] of Object.entries(ROADS)) {
  for (const wayIn of ["a line handler", "a line handler that has called conn.close", "a conversation"]) {
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
