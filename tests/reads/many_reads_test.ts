import { assertEquals, assertGreater, assertLess, assertRejects } from "@std/assert";
import { once } from "node:events";
import { createConnection } from "node:net";
import { setImmediate } from "node:timers";
import { type Conn, LimitError, type Listener, type Transport } from "@x/shouty";
import { turn } from "../../internal/time/event_loop.ts";
import { test, testOnce } from "../kit/bounded.ts";
import { startConversations } from "../kit/server.ts";

/** How much an endless peer sends in all, so that a failing test ends. */
const ENOUGH_BYTES = 8 * 1024 * 1024;

/** A listener with one connection, whose peer always has more to send. */
function endless(): Listener & { bytes: number } {
  const addr = { transport: "tcp", hostname: "127.0.0.1", port: 1 } as const;
  const waiting = [addr];
  const over = Promise.withResolvers<Transport>();
  over.promise.catch(() => {});
  const peer = {
    ...{ addr, bytes: 0, close: () => over.reject(new Deno.errors.BadResource()) },
    accept: () => waiting.pop() === undefined ? over.promise : Promise.resolve(transport),
  };
  const transport: Transport = {
    remoteAddr: addr,
    localAddr: addr,
    read(into) {
      if (peer.bytes > ENOUGH_BYTES) return Promise.resolve(null);
      peer.bytes += into.fill(10).length;
      return Promise.resolve(into.length);
    },
    write: (bytes) => Promise.resolve(bytes.length),
    closeWrite: () => Promise.resolve(),
    close: () => {},
  };
  return peer;
}

const failure = (read: Promise<unknown>): Promise<unknown> => read.catch((error: unknown) => error);

/** Small reads that never have to wait for a peer that always has more. */
const READS: Readonly<Record<string, (conn: Conn) => Promise<unknown>>> = {
  "readExactly of no bytes": (conn) => conn.readExactly(0),
  "readExactly of one byte": (conn) => conn.readExactly(1),
  "readUntil": (conn) => conn.readUntil("\n"),
  "readUntil that passes its limit": (conn) => conn.readUntil("x", { maxBytes: 5 }).catch((error: LimitError) => error),
  "readStream of one byte": (conn) => new Response(conn.readStream(1)).bytes(),
  "readStream that is cancelled": (conn) => conn.readStream(2).cancel().then(() => conn.readExactly(0)),
  "readLine with a signal that has aborted": (conn) => failure(conn.readLine({ signal: AbortSignal.abort() })),
  "readExactly past its limit": (conn) => failure(conn.readExactly(6, { maxBytes: 5 })),
  "readUntil of no delimiter": (conn) => failure(conn.readUntil("")),
  "readLine while a body is being read": (conn) => {
    const body = conn.readStream(1);
    return failure(conn.readLine()).finally(() => body.cancel());
  },
  "readLine with a timeout": (conn) => conn.readLine({ timeout: 60_000 }),
  "batches": (conn) => conn.batches.next(),
  "readable": async (conn) => {
    const reader = conn.readable.getReader();
    await reader.read();
    reader.releaseLock();
  },
  "lines and bytes": (conn) => conn.lines.next().then(() => conn.readExactly(1)),
};

for (const [what, read] of Object.entries(READS)) {
  testOnce(`a handler with endless reads of ${what} does not keep others waiting`, async () => {
    const listener = endless();
    let [reads, stopped] = [0, false];
    await using t = startConversations({ listener }, async (conn) => {
      while (!stopped && reads < 1_000_000 && conn.ending === undefined) reads++, await read(conn);
    });
    for (let left = 60; left > 0; left--) await new Promise<void>((resolve) => setImmediate(() => resolve()));
    stopped = true;
    assertEquals(t.all("handler-error"), []);
    assertGreater(reads, 1);
    assertLess(reads, 200_000);
    assertLess(listener.bytes, ENOUGH_BYTES);
  });
}

testOnce(
  "a body of the largest count can be read in part and cancelled, and nothing behind it is a command",
  async () => {
    const lines: unknown[] = [];
    await using t = startConversations({ listener: endless(), minBytesPerSecond: 0 }, async (conn) => {
      await assertRejects(() => conn.readExactly(Number.MAX_SAFE_INTEGER), LimitError);
      const reader = conn.readStream(Number.MAX_SAFE_INTEGER).getReader();
      await reader.read();
      await reader.cancel();
      lines.push(await conn.readLine(), conn.ending);
    });
    assertEquals([(await t.closed()).reason, lines], ["end", [null, "end"]]);
  },
);

test("10 000 tiny reads of many kinds over a socket give what was sent", async () => {
  const parts: Uint8Array[] = [];
  const seen: unknown[] = [];
  await using t = startConversations({}, async (conn) => {
    for (let i = 0; i < 2000; i++) {
      parts.push(
        await conn.readExactly(2),
        (await conn.readUntil(";"))!,
        await new Response(conn.readStream(1)).bytes(),
      );
      parts.push(new TextEncoder().encode((await conn.readLine())! + (await conn.lines.next()).value));
    }
    seen.push(await conn.readLine(), conn.ending);
  });
  const client = await t.connect();
  await client.write(Array.from({ length: 2000 }, (_, i) => `${i % 90 + 10};.line ${i}\r\nß\n`).join(""));
  await client.closeWrite();
  assertEquals([(await t.closed()).reason, seen], ["end", [null, "end"]]);
  const text = parts.map((part) => new TextDecoder().decode(part)).join("");
  assertEquals(text, Array.from({ length: 2000 }, (_, i) => `${i % 90 + 10}.line ${i}ß`).join(""));
});

test("bodies are piped back over their socket, and lines go on around them", async () => {
  const body = crypto.getRandomValues(new Uint8Array(60_000));
  await using t = startConversations({}, async (conn) => {
    for (let line = await conn.readLine(); line !== null; line = await conn.readLine()) {
      const count = Number(line);
      await conn.write(`${count}\n`);
      await conn.readStream(count).pipeTo(conn.writable, { preventClose: true });
      assertEquals(await conn.readLine(), "");
      await conn.write("done\n");
    }
  });
  const client = await t.connect();
  const got: number[] = [];
  const reading = (async () => {
    for (let bytes = await client.read(); bytes !== null; bytes = await client.read()) got.push(...bytes);
  })();
  const encoder = new TextEncoder();
  const sizes = [0, 1, 60_000, 7];
  for (const size of sizes) {
    await client.write(`${size}\n`);
    await client.write(body.subarray(0, size));
    await client.write("\r\n");
  }
  await client.closeWrite();
  await reading;
  const wanted = sizes.flatMap((
    size,
  ) => [...encoder.encode(`${size}\n`), ...body.subarray(0, size), ...encoder.encode("done\n")]);
  assertEquals([got.length, got.every((byte, i) => byte === wanted[i])], [wanted.length, true]);
  assertEquals((await t.closed()).reason, "end");
});

test("a peer that resets in the middle of a body ends the read with what had come, and the reason is reset", async () => {
  const seen: unknown[] = [];
  await using t = startConversations({}, async (conn) => {
    await conn.write("send\n");
    const error = await conn.readExactly(100).catch((error) => error);
    seen.push(error instanceof Deno.errors.UnexpectedEof, conn.ending, conn.signal.aborted);
    throw error;
  });
  const socket = createConnection({ port: t.port, host: "127.0.0.1" });
  await once(socket, "data");
  socket.write("x");
  while (t.stats.bytesIn === 0) await turn();
  socket.resetAndDestroy();
  await t.closed();
  while (t.stats.handlers > 0) await turn();
  assertEquals([(await t.closed()).reason, t.all("handler-error"), seen], ["reset", [], [true, "reset", true]]);
});
