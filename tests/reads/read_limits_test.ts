import { assert, assertEquals, assertLessOrEqual, assertRejects, assertThrows } from "@std/assert";
import { type Conn, LimitError, type ServeOptions, type Transport } from "@x/shouty";
import { test } from "../kit/bounded.ts";
import { tapped } from "../kit/faults.ts";
import { toBytes } from "../kit/bytes.ts";
import { inMemory, startConversations, startServer, type TestServer } from "../kit/server.ts";
import { turn } from "../../internal/time/event_loop.ts";

const text = (bytes: Uint8Array | null) => bytes && new TextDecoder().decode(bytes);

/** Starts conversations whose failed assertions end up in `failures`. */
function converse(
  options: ServeOptions,
  handler: (conn: Conn) => Promise<unknown>,
): { t: TestServer; failures: unknown[] } {
  const failures: unknown[] = [];
  const t = startConversations(options, async (conn) => {
    try {
      await handler(conn);
    } catch (error) {
      failures.push(error);
      throw error;
    }
  });
  return { t, failures };
}

/** Sends an input to a handler, and returns the reply and the reason of the end. */
async function play(
  input: string,
  handler: (conn: Conn) => Promise<unknown>,
  options: ServeOptions = {},
): Promise<[string, string]> {
  const { t: server, failures } = converse({ ...inMemory(), ...options }, handler);
  await using t = server;
  const reply = await t.talk(input);
  const { reason } = await t.closed();
  if (reason !== "read-too-long") { for (const failure of failures) throw failure; }
  return [reply, reason];
}

test("data past maxBytes is a LimitError, and nothing of it is consumed; data of exactly maxBytes passes", async () => {
  await play("12345;67890;line\nabc", async (conn) => {
    const { reason, limit } = await assertRejects(() => conn.readUntil(";", { maxBytes: 4 }), LimitError);
    assertEquals([reason, limit], ["read-too-long", 4]);
    assertEquals(text(await conn.readUntil(";", { maxBytes: 5 })), "12345");
    await assertRejects(() => conn.readExactly(6, { maxBytes: 5 }), LimitError, "longer than maxBytes, 5 bytes");
    assertEquals(text(await conn.readExactly(5, { maxBytes: 5 })), "67890");
    await assertRejects(() => conn.readExactly(1024 * 1024 + 1), LimitError, "longer than maxBytes, 1048576 bytes");
    assertEquals([text(await conn.readUntil(";")), await conn.readLine()], ["", "line"]);
    assertEquals([conn.ending, conn.signal.aborted], [undefined, false]);
  });
});

test("a LimitError that the handler lets pass ends the connection with read-too-long and a last word", async () => {
  const [reply, reason] = await play("too long;", (conn) => conn.readUntil(";", { maxBytes: 3 }));
  assertEquals([reply, reason], ["error: more than 3 bytes at once\n", "read-too-long"]);
});

test("UnexpectedEof leaves what had come for the next read, and ends the connection with end if it propagates", async () => {
  await play("abc", async (conn) => {
    await assertRejects(() => conn.readExactly(4), Deno.errors.UnexpectedEof);
    await assertRejects(() => conn.readUntil(";"), Deno.errors.UnexpectedEof);
    assertEquals([text(await conn.readExactly(1)), await conn.readLine(), conn.lastLineEnd], ["a", "bc", "none"]);
    assertEquals([await conn.readUntil(";"), await conn.readLine(), conn.ending], [null, null, "end"]);
    await assertRejects(() => conn.readExactly(1), Deno.errors.UnexpectedEof);
  });
  for (const read of ["readExactly", "readUntil", "readStream"] as const) {
    await using t = startConversations(inMemory(), async (conn) => {
      if (read === "readStream") await new Response(conn.readStream(9)).bytes();
      else await (read === "readUntil" ? conn.readUntil(";") : conn.readExactly(9));
    });
    await t.talk("a");
    assertEquals([(await t.closed()).reason, t.all("handler-error")], ["end", []]);
  }
});

test("at a limit or a clock nothing of what had come is handed out any more, and the error says so", async () => {
  const { clock, listener } = inMemory();
  const messages: string[] = [];
  await using t = startConversations({ clock, listener, idleTimeout: 1000, lineTimeout: Infinity }, async (conn) => {
    for (const read of [() => conn.readExactly(9), () => conn.readExactly(2), () => conn.readUntil(";")]) {
      messages.push((await assertRejects(read, Deno.errors.UnexpectedEof)).message);
    }
    assertEquals([await conn.readLine(), conn.ending], [null, "idle"]);
  });
  const client = await t.admitted();
  await client.write("abcd");
  await clock.advance(1000);
  assertEquals((await t.closed()).reason, "idle");
  assertEquals(messages, [
    "Cannot read 9 bytes: the connection has ended (idle)",
    "Cannot read 2 bytes: the connection has ended (idle)",
    "Cannot read up to the delimiter: the connection has ended (idle)",
  ]);
});

test("an error of the handler's own, after the input has ended, is still a handler-error", async () => {
  await using t = startConversations(inMemory(), async (conn) => {
    await conn.readExactly(5).catch(() => {});
    throw new Deno.errors.UnexpectedEof("mine");
  });
  await t.talk("a");
  assertEquals((await t.closed()).reason, "handler-error");
});

test("reads refuse wrong arguments without reading, and a second read at once; the first goes on", async () => {
  await play("line\nrest", async (conn) => {
    const wrong = [-1, 1.5, NaN, Infinity, "5", 2 ** 53];
    for (const count of wrong) {
      await assertRejects(() => conn.readExactly(count as number), Error, "Cannot use count");
      assertThrows(() => conn.readStream(count as number), Error, "Cannot use count");
    }
    for (const delimiter of ["", new Uint8Array(), "x".repeat(1025), 5, null]) {
      await assertRejects(() => conn.readUntil(delimiter as string), Error, "Cannot use delimiter");
    }
    for (const delimiters of [[], ["a", ""], [["a"]], Array(17).fill("a")]) {
      await assertRejects(() => conn.readUntil(delimiters as string[]), Error, "Cannot use");
    }
    for (const options of [{ timeout: 0 }, { timeout: -1 }, { timeout: "1" }, { signal: {} }, null, 5]) {
      await assertRejects(() => conn.readLine(options as never), Error, "Cannot use");
      await assertRejects(() => conn.readExactly(1, options as never), Error, "Cannot use");
    }
    for (const maxBytes of [0, -1, Infinity, 2 ** 28 + 1]) {
      await assertRejects(() => conn.readExactly(1, { maxBytes }), RangeError, "Cannot use maxBytes");
    }
    for (const boundary of [1, null, "true"] as unknown as boolean[]) {
      await assertRejects(() => conn.readExactly(1, { boundary }), TypeError, "Cannot use boundary");
      await assertRejects(() => conn.readUntil(";", { boundary }), TypeError, "Cannot use boundary");
      await assertRejects(
        () => conn.readUntil(";", { keepDelimiter: boundary }),
        TypeError,
        "Cannot use keepDelimiter",
      );
    }
    assertEquals(await conn.readExactly(0), new Uint8Array());
    assertEquals(await conn.readLine(), "line");
    const first = conn.readExactly(5);
    const others = [conn.readLine(), conn.readExactly(0), conn.readUntil("x"), conn.lines.next(), conn.batches.next()];
    assertThrows(() => conn.readStream(1), TypeError, "has not settled");
    const results = await Promise.allSettled([first, ...others]);
    const errors = results.map((result) => result.status === "rejected" ? result.reason.constructor : undefined);
    assertEquals(errors, [Deno.errors.UnexpectedEof, ...others.map(() => TypeError)]);
  });
});

test("while a body is neither read nor cancelled, other reads are refused; a cancelled one is skipped", async () => {
  await play("bodyline\n", async (conn) => {
    const body = conn.readStream(4);
    await assertRejects(() => conn.readLine(), TypeError, "has not settled");
    assertThrows(() => conn.readStream(0), TypeError, "has not settled");
    await body.cancel();
    assertEquals(await conn.readLine(), "line");
    await body.cancel();
    assertEquals(await new Response(conn.readStream(0)).text(), "");
  });
});

test("what is read has memory of its own, which no later read changes", async () => {
  await play("aaaabbbbcccc;dddd", async (conn) => {
    const parts = [await conn.readExactly(4), await conn.readExactly(4), (await conn.readUntil(";"))!];
    assertEquals(parts.map((part) => part.buffer.byteLength), [4, 4, 4]);
    parts[0].fill(120);
    assertEquals(text(await conn.readExactly(4)), "dddd");
    assertEquals(parts.map(text), ["xxxx", "bbbb", "cccc"]);
  });
});

test("maxConnectionBytes holds for bytes: what is within it can be read, then the input ends", async () => {
  const [reply, reason] = await play("12345678", async (conn) => {
    assertEquals(text(await conn.readExactly(4)), "1234");
    await assertRejects(() => conn.readExactly(4), Deno.errors.UnexpectedEof);
    assertEquals([conn.ending, conn.signal.reason], ["byte-limit", "byte-limit"]);
  }, { maxConnectionBytes: 6 });
  assertEquals([reply, reason], ["error: more than 6 bytes from one connection\n", "byte-limit"]);
});

test("in a line handler every read is a TypeError, and the connection goes on", async () => {
  await using t = startServer(inMemory(), async (line, conn) => {
    for (const read of [conn.readLine(), conn.readExactly(0), conn.readUntil("x")]) {
      await assertRejects(() => read, TypeError);
    }
    for (const name of ["lines", "batches", "readable"] as const) {
      assertThrows(() => conn[name], TypeError, `conn.${name}`);
    }
    assertThrows(() => conn.readStream(1), TypeError, "conn.readStream");
    return line;
  });
  assertEquals(await t.talk("one\ntwo\n"), "one\ntwo\n");
});

test("a line that maxConnectionBytes cuts off is none, although the end of input came while the handler worked", async () => {
  for (const isLineHandler of [true, false]) {
    const { listener, clock } = inMemory();
    const lines: string[] = [];
    const work = Promise.withResolvers<void>();
    const handle = async (line: string) => {
      lines.push(line);
      await work.promise;
    };
    const options = { listener, clock, maxConnectionBytes: 12 };
    await using t = isLineHandler
      ? startServer(options, async (line) => void await handle(line))
      : startConversations(options, async (conn) => {
        for await (const line of conn.lines) await handle(line);
      });
    const client = await t.admitted();
    await client.write("first\n");
    await clock.advance(250);
    await client.write("second and more");
    await client.closeWrite();
    await clock.advance(250);
    work.resolve();
    assertEquals([(await t.closed()).reason, lines], ["byte-limit", ["first"]]);
    assertEquals(await client.readAll(), "error: more than 12 bytes from one connection\n");
  }
});

test("a last line that is longer than maxLineBytes by a CR without its LF is too long", async () => {
  const lines: string[] = [];
  const options = { maxLineBytes: 3, framing: { lineEnd: "crlf" } } as const;
  const [reply, reason] = await play("abc\r\nabc\r", async (conn) => {
    for await (const line of conn.lines) lines.push(line);
  }, options);
  assertEquals([reply, reason, lines], ["error: line longer than 3 bytes\r\n", "line-too-long", ["abc"]]);
});

test("many clients with large bodies that never come whole stay within maxBufferedBytes, and the largest give way", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 1 << 20 });
  const sizes = new Map<Transport, number>();
  const watched = tapped(listener, (inner) => ({
    read: (into) => (sizes.set(inner, into.buffer.byteLength), inner.read(into)),
    close: () => (sizes.delete(inner), inner.close()),
  }));
  const limit = 1024 * 1024;
  const options = { clock, maxBufferedBytes: limit, idleTimeout: Infinity, minBytesPerSecond: 0 };
  await using t = startConversations(
    { ...options, listener: watched },
    (conn) => conn.readExactly(500_000).then(() => {}),
  );
  const clients = Array.from({ length: 20 }, () => t.own(listener.connect()));
  for (const [i, client] of clients.entries()) await client.write("x".repeat(10_000 * (i + 1)));
  for (let turns = 100; turns > 0; turns--) await turn();
  const held = [...sizes.values()].reduce((sum, size) => sum + size, 0);
  assertLessOrEqual(held, limit + 64 * 1024);
  const { closed, active } = t.stats;
  assert(closed.memory > 0 && active > 0, `${closed.memory} gave way, ${active} are left`);
  assertEquals(t.all("handler-error"), []);
});

test("lines and bytes of all sizes can be read up to the largest buffer", async () => {
  const body = "0123456789".repeat(150_000);
  const { t: server, failures } = converse({}, async (conn) => {
    conn.setLimits({ maxLineBytes: body.length });
    const options = { maxBytes: body.length };
    assertEquals(await conn.readLine(), body);
    assertEquals(text(await conn.readExactly(body.length, options)), body);
    assertEquals(text(await conn.readUntil("\n", options)), body);
    assertEquals((await new Response(conn.readStream(body.length)).text()).length, body.length);
    assertEquals(toBytes(await conn.readLine() ?? "").length, 3);
  });
  await using t = server;
  await t.talk(`${body}\r\n${body}${body}\n${body}end`);
  await t.closed();
  for (const failure of failures) throw failure;
});
