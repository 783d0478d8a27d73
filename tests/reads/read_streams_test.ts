import { assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import type { Conn, ServeOptions } from "@x/shouty";
import { test } from "../kit/bounded.ts";
import { faulty, type Method } from "../kit/faults.ts";
import { toBytes } from "../kit/bytes.ts";
import { listenerOf } from "../kit/framing/segments.ts";
import { inMemory, startConversations } from "../kit/server.ts";

const text = (bytes: Uint8Array | undefined) => new TextDecoder().decode(bytes);

/** Gives an input to a handler; what fails there fails here. */
async function play(
  input: string,
  handler: (conn: Conn) => Promise<void>,
  cuts: number[] = [],
  options: ServeOptions = {},
): Promise<void> {
  const failures: unknown[] = [];
  await using t = startConversations(
    { ...options, listener: listenerOf(toBytes(input), cuts, []) },
    (conn) => handler(conn).catch((error) => void failures.push(error)),
  );
  await t.closed();
  for (const failure of failures) throw failure;
}

test("a read into the caller's own buffer takes what fits there; what does not fit stays for the next read", () =>
  play("abcdefgh\nline\nrest", async (conn) => {
    const reader = conn.readable.getReader({ mode: "byob" });
    assertEquals(text((await reader.read(new Uint8Array(3))).value), "abc");
    assertEquals(text((await reader.read(new Uint8Array(4), { min: 2 })).value), "defg");
    reader.releaseLock();
    assertEquals([await conn.readLine(), await conn.readLine()], ["h", "line"]);
    const again = conn.readable.getReader({ mode: "byob" });
    assertEquals(text((await again.read(new Uint8Array(100))).value), "rest");
    assertEquals((await again.read(new Uint8Array(100))).done, true);
  }));

test("to cancel the stream of an empty body disturbs neither a read nor another body", async () => {
  await using t = startConversations(inMemory(), async (conn) => {
    const [empty, late] = [conn.readStream(0), conn.readStream(0)];
    const line = conn.readLine();
    await empty.cancel();
    await conn.write(`${await line},`);
    const body = new Response(conn.readStream(4)).text();
    await late.cancel();
    await conn.write(`${await body},${await conn.readLine()}`);
  });
  assertEquals(await t.talk("line\nbodynext\n"), "line,body,next");
});

test("a body is read into the caller's own buffer, and what is left of a cancelled one is skipped", () =>
  play("12345678line\n", async (conn) => {
    const reader = conn.readStream(8).getReader({ mode: "byob" });
    assertEquals(text((await reader.read(new Uint8Array(3))).value), "123");
    await reader.cancel();
    assertEquals(await conn.readLine(), "line");
    const whole = conn.readStream(0).getReader({ mode: "byob" });
    assertEquals((await whole.read(new Uint8Array(3))).done, true);
  }));

test("conn.readable is one object, reads only when it is pulled, and after its end the connection still writes", async () => {
  let reads = 0;
  const listener = listenerOf(toBytes("one\ntwo"), [], []);
  const counted = {
    ...listener,
    accept: async () => {
      const transport = await listener.accept();
      return { ...transport, read: (into: Uint8Array) => (reads++, transport.read(into)) };
    },
  };
  const seen: unknown[] = [];
  await using t = startConversations({ listener: counted }, async (conn) => {
    assertStrictEquals(conn.readable, conn.readable);
    for (let ticks = 20; ticks > 0; ticks--) await Promise.resolve();
    seen.push(reads);
    assertEquals(await new Response(conn.readable).text(), "one\ntwo");
    await conn.write("still here\n");
    seen.push(conn.ending, conn.signal.aborted);
  });
  assertEquals([(await t.closed()).reason, seen], ["end", [0, "end", false]]);
});

test("a stream of bytes ends with whole lines at maxConnectionBytes, and the signal waits for the handler", async () => {
  const seen: unknown[] = [];
  await using t = startConversations({ ...inMemory(), maxConnectionBytes: 10 }, async (conn) => {
    seen.push(await new Response(conn.readable).text(), conn.ending, conn.signal.aborted);
  });
  assertEquals(await t.talk("one\ntwo\nthree\n"), "error: more than 10 bytes from one connection\n");
  assertEquals([(await t.closed()).reason, seen], ["byte-limit", ["one\ntwo\n", "byte-limit", false]]);
});

test("what a stream leaves of the bytes within maxConnectionBytes stays for the next read, also if more has come", async () => {
  // All at once, or so that the stream is read before the limit is passed.
  for (const cuts of [[], [5]]) {
    await play(
      "ab\ncdef;ghiklmnop\n",
      async (conn) => {
        const reader = conn.readable.getReader({ mode: "byob" });
        assertEquals(text((await reader.read(new Uint8Array(3))).value), "ab\n");
        reader.releaseLock();
        assertEquals(text((await conn.readUntil(";"))!), "cdef");
      },
      cuts,
      { maxConnectionBytes: 12 },
    );
  }
});

test("a body that the end cuts off hands out what has come, and then fails", () =>
  play("12345", async (conn) => {
    const reader = conn.readStream(9).getReader();
    const parts = [await reader.read(), await reader.read(), await reader.read()].map(({ value }) => text(value));
    assertEquals(parts.join(""), "12345");
    await assertRejects(() => reader.read(), Deno.errors.UnexpectedEof, "4 bytes before the end");
    assertEquals([await conn.readLine(), conn.ending], [null, "end"]);
  }, [2, 2, 1]));

test("conn.writable writes text and bytes, and its close ends this side alone", async () => {
  await using t = startConversations(inMemory(), async (conn) => {
    const writer = conn.writable.getWriter();
    assertStrictEquals(conn.writable, conn.writable);
    await writer.write("text ");
    await writer.write(toBytes("bytes\n"));
    await writer.close();
    assertEquals(await conn.readLine(), "more");
  });
  const client = await t.connect();
  assertEquals(await client.readAll(), "text bytes\n");
  await client.write("more\n");
  await client.closeWrite();
  assertEquals((await t.closed()).reason, "closed");
});

/** Handlers that end this side by closing `conn.writable`. */
const CLOSERS: Readonly<Record<string, (conn: Conn) => Promise<void>>> = {
  "a pipe": (conn) => conn.readable.pipeTo(conn.writable, { signal: conn.signal }),
  "a writer": async (conn) => {
    await conn.readLine();
    await conn.writable.getWriter().close();
  },
};

for (const [what, close] of Object.entries(CLOSERS)) {
  test(`${what} that closes conn.writable is not at fault if the peer is gone by then`, async () => {
    const { listener } = inMemory();
    // Under TLS, the end of this side is a message, which a peer that has reset the connection does not take.
    const gone = new Deno.errors.BrokenPipe("The peer is gone");
    const fail = (method: Method) => method === "closeWrite" ? gone : undefined;
    await using t = startConversations({ listener: faulty(listener, { fail }) }, close);
    const client = t.own(listener.connect());
    await client.write("line\n");
    await client.closeWrite();
    const { reason, error } = await t.closed();
    assertEquals([t.all("handler-error"), error], [[], undefined]);
    assertEquals(reason, what === "a pipe" ? "end" : "closed");
  });
}

for (
  const [when, text] of [["nothing waits to be written", "half"], ["a write waits for the peer", "x".repeat(9000)]]
) {
  test(`to abort conn.writable resets the connection at once, also while ${when}`, async () => {
    const error = new Error("mine");
    await using t = startConversations(inMemory({ bufferBytes: 4096 }), async (conn) => {
      const writer = conn.writable.getWriter();
      writer.write(text).catch(() => {});
      if (text.length < 4096) await conn.flushed();
      await conn.readLine();
      await writer.abort(error);
    });
    const client = await t.connect();
    await client.write("abort\n");
    const closed = await t.closed();
    assertEquals([closed.reason, closed.error], ["closed", error]);
    await assertRejects(() => client.readAll(), Deno.errors.ConnectionReset);
  });
}

test("to abort conn.writable aborts the connection with closed, but does nothing once the connection is ending", async () => {
  await using t = startConversations(inMemory(), (conn) => conn.writable.abort(new Error("mine")));
  await t.admitted();
  assertEquals((await t.closed()).reason, "closed");
  const { listener, clock } = inMemory();
  await using late = startConversations(
    { listener, clock, idleTimeout: 100, lastWords: () => "last" },
    async (conn) => {
      await conn.readLine();
      conn.write("said\n");
      await conn.writable.abort();
    },
  );
  const client = await late.admitted();
  await clock.advance(100);
  assertEquals(await client.readAll(), "said\nlast\n");
  await client.closeWrite();
  assertEquals((await late.closed()).reason, "idle");
});

for (const catches of [false, true]) {
  const what = catches ? "that goes on" : "that rejects with it";
  test(`a body that is cut off and piped to conn.writable reaches the client, with a handler ${what}`, async () => {
    await using t = startConversations(inMemory(), async (conn) => {
      await conn.write("before,");
      const piped = conn.readStream(10).pipeTo(conn.writable);
      if (!catches) return await piped;
      await piped.catch((error) => conn.write(`,${error.name}`));
    });
    assertEquals(await t.talk("abc"), `before,abc${catches ? ",UnexpectedEof" : ""}`);
    const { reason, error } = await t.closed();
    assertEquals([reason, error], ["end", undefined]);
  });
}
