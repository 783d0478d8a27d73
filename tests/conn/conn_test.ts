import { assertEquals, assertLessOrEqual, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { type CloseReason, type Conn, ConnectionClosedError, type LineHandler, shout, type Transport } from "@x/shouty";
import { test } from "../kit/bounded.ts";
import { faulty, tapped } from "../kit/faults.ts";
import { memoryAfter } from "../kit/figures/memory.ts";
import { inMemory, startConversations, startServer } from "../kit/server.ts";

test("conn.write in a line handler comes before the replies to later lines", async () => {
  const handler = (line: string, conn: Conn) => {
    conn.write(`about ${line}: `);
    conn.write(new Uint8Array([62, 32]));
    return line;
  };
  await using t = startServer(inMemory(), handler);
  assertEquals(await t.talk("a\nb\nc\n"), "about a: > a\nabout b: > b\nabout c: > c\n");
});

test("a conversation answers a line that came alone at once, and many that came together with one write", async () => {
  const { listener, clock } = inMemory();
  const writes: string[] = [];
  const write = (inner: Transport) => (bytes: Uint8Array) => {
    writes.push(new TextDecoder().decode(bytes));
    return inner.write(bytes);
  };
  const alone: string[][] = [];
  const options = { listener: tapped(listener, (inner) => ({ write: write(inner) })), clock };
  await using t = startConversations(options, async (conn) => {
    for await (const line of conn.lines) {
      conn.write(`${line}\n`);
      alone.push([...writes]);
    }
  });
  const client = t.own(listener.connect());
  for (const line of ["one", "two"]) {
    await client.write(`${line}\n`);
    assertEquals(await client.readLine(), line);
  }
  assertEquals(alone, [["one\n"], ["one\n", "two\n"]]);
  await client.write("1\n2\n3\n");
  for (const line of ["1", "2", "3"]) assertEquals(await client.readLine(), line);
  assertEquals(writes, ["one\n", "two\n", "1\n2\n3\n"]);
});

test("conn.write refuses what is neither text nor bytes, says what it has got, and the connection goes on", async () => {
  const wrong: [unknown, string][] = [[5, "5"], [null, "null"], [[65], "an array"], [
    Promise.resolve("x"),
    "a promise",
  ]];
  const errors: Error[] = [];
  await using t = startConversations(inMemory(), async (conn) => {
    for (const [data] of wrong) await conn.write(data as string).catch((error) => errors.push(error));
    await conn.write("still here\n");
  });
  assertEquals(await t.talk(""), "still here\n");
  const expected = wrong.map(([, got]) => `Cannot write: expected a string or a Uint8Array, got ${got}`);
  assertEquals(errors.map(({ message }) => message), expected);
});

test("conn.write rejects with the reason once the connection has ended, and ignoring it is safe", async () => {
  const done = Promise.withResolvers<unknown>();
  await using t = startConversations(inMemory(), async (conn) => {
    for await (const _ of conn.lines);
    conn.close();
    conn.write("ignored");
    done.resolve(await conn.write("late").catch((error) => error));
  });
  assertEquals(await t.talk(""), "");
  const { name, reason } = await done.promise as Error & { reason: CloseReason };
  assertEquals([name, reason], ["ConnectionClosedError", "closed"]);
});

test("writes that are not awaited, to a peer that is gone, make no error", async () => {
  const gone = Promise.withResolvers<void>();
  await using t = startConversations(inMemory(), async (conn) => {
    await gone.promise;
    for (let i = 0; i < 100; i++) conn.write("x".repeat(1000));
    for await (const _ of conn.lines);
  });
  (await t.admitted()).reset();
  gone.resolve();
  assertEquals((await t.closed()).reason, "reset");
  assertEquals(t.all("handler-error"), []);
});

test("the second of two reads at once rejects, and the first goes on", async () => {
  const [refused, got] = [Promise.withResolvers<void>(), Promise.withResolvers<unknown>()];
  await using t = startConversations(inMemory(), async (conn) => {
    const first = conn.lines.next();
    for (
      const read of [
        () => conn.lines.next(),
        () => conn.readLine(),
        () => conn.readExactly(1),
        () => conn.batches.next(),
      ]
    ) {
      await assertRejects(read, TypeError, "another read of this connection has not settled");
    }
    assertThrows(() => conn.readStream(1), TypeError, "another read");
    refused.resolve();
    got.resolve([await first, await conn.readLine()]);
  });
  const client = await t.connect();
  await refused.promise;
  await client.write("a\nb\n");
  assertEquals(await got.promise, [{ value: "a", done: false }, "b"]);
});

test("after a break, the next loop over conn.lines gets the lines that follow", async () => {
  await using t = startConversations(inMemory(), async (conn) => {
    for await (const name of conn.lines) {
      conn.write(`Hello ${name}\n`);
      break;
    }
    for await (const line of conn.lines) {
      if (line === "") break;
      conn.write(`${line}!\n`);
    }
    conn.write(`left: ${(await Array.fromAsync(conn.lines)).join()}\n`);
  });
  for (const text of ["Ada\none\ntwo\n\nthree\nfour", "Ada\r\none\r\ntwo\r\n\r\nthree\r\nfour\r\n"]) {
    assertEquals(await t.talk(text), "Hello Ada\none!\ntwo!\nleft: three,four\n");
  }
});

test("conn.lines throws a TypeError in a line handler", async () => {
  await using t = startServer(inMemory(), (_, conn) => `${conn.lines}`);
  assertEquals(await t.talk("x\n"), "");
  const { error } = await t.until("handler-error");
  assertEquals((error as Error).message, "Cannot use conn.lines in a line handler: it gets each line as its argument");
});

test("conn has its id and its addresses", async () => {
  const { listener, clock } = inMemory();
  const handler: LineHandler = (_, { id, remoteAddr, localAddr }) => JSON.stringify([id, remoteAddr, localAddr]);
  await using t = startServer({ listener, clock }, handler);
  const client = await t.connect();
  await client.write("\n");
  assertEquals(JSON.parse((await client.readLine())!), [1, client.addr, listener.addr]);
});

test("conn.signal aborts with the close reason, also when it is first read after the end", async () => {
  const conns: Conn[] = [];
  const signals: AbortSignal[] = [];
  await using t = startConversations(inMemory(), async (conn) => {
    conns.push(conn);
    if (conn.id < 3) signals.push(conn.signal);
    for await (const _ of conn.lines);
  });
  assertEquals(await t.talk(""), "");
  for (let i = 0; i < 2; i++) (await t.admitted()).reset();
  await t.closed(3);
  assertEquals(signals.map(({ reason }) => reason), ["end", "reset"]);
  const ends = [[true, "end"], [true, "reset"], [true, "reset"]];
  assertEquals(conns.map(({ signal }) => [signal.aborted, signal.reason]), ends);
});

test("a writer that awaits each write queues little, however slow the peer", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 10_000 });
  let written = 0;
  await using t = startConversations({ listener, clock }, async (conn) => {
    for (let i = 0; i < 1000; i++, written += 1000) await conn.write("x".repeat(1000));
  });
  const client = await t.admitted();
  await clock.advance(1);
  assertEquals(written <= 10_000 + 65_536, true, `${written} bytes were taken`);
  assertEquals((await client.readAll()).length, 1_000_000);
});

test("a writer that awaits each write never exceeds maxQueuedBytes, however small it is", async () => {
  for (const maxQueuedBytes of [1, 1000, 100_000]) {
    const { listener, clock } = inMemory({ bufferBytes: 100 });
    await using t = startConversations({ listener, clock, maxQueuedBytes }, async (conn) => {
      for (let i = 0; i < 300; i++) await conn.write("x".repeat(600));
      await conn.write("y".repeat(200_000));
    });
    const client = await t.connect();
    await client.closeWrite();
    assertEquals((await client.readAll()).length, 380_000);
    assertEquals((await t.closed()).reason, "closed");
  }
});

test("a writer that does not await is cut off when more than maxQueuedBytes wait", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 1000 });
  const outcome = Promise.withResolvers<unknown[]>();
  await using t = startConversations({ listener, clock, maxQueuedBytes: 200_000 }, async (conn) => {
    let writes = 0;
    while (!conn.signal.aborted) conn.write("x".repeat(1000)), writes++;
    outcome.resolve([writes, await conn.write("").catch((error) => error.reason)]);
  });
  await t.connect();
  assertEquals((await t.closed()).reason, "write-queue");
  assertEquals(await outcome.promise, [201, "write-queue"]);
});

test("the write that exceeds maxQueuedBytes is rejected, and so is each later one", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 1000 });
  const outcome = Promise.withResolvers<string[]>();
  await using t = startConversations({ listener, clock, maxQueuedBytes: 200_000 }, async (conn) => {
    const writes = await Promise.allSettled(Array.from({ length: 203 }, () => conn.write("x".repeat(1000))));
    outcome.resolve(writes.map((write) => write.status === "rejected" ? write.reason.reason : "taken"));
  });
  await t.connect();
  const reasons = await outcome.promise;
  assertEquals([reasons[0], ...reasons.slice(200)], ["taken", "write-queue", "write-queue", "write-queue"]);
});

test("conn.close in a line handler lets the line have its reply, and later lines get none, whatever they are", async () => {
  const replies: LineHandler[] = [
    (line, conn) => (line === "quit" && conn.close(), shout(line)),
    async (line, conn) => {
      await Promise.resolve();
      if (line === "quit") conn.close();
      return shout(line);
    },
  ];
  for (const handler of replies) {
    for (const after of ["", "more\n", "unterminated", "a line that is much too long\n"]) {
      await using t = startServer({ ...inMemory(), maxLineBytes: 12 }, handler);
      assertEquals(await t.talk(`one\nquit\n${after}`), "ONE\nQUIT\n");
      assertEquals((await t.closed()).reason, "closed");
    }
  }
});

test("conn.close in a line handler ends the connection though the client stays, also where a pace holds lines back", async () => {
  for (const pace of [{}, { maxLinesPerSecond: 2 }]) {
    await using t = startServer({ ...inMemory(), ...pace }, (line, conn) => {
      if (line === "quit") conn.close();
      return shout(line);
    });
    const client = await t.connect();
    await client.write("one\nquit\nmore\nmore\n");
    assertEquals([await client.readLine(), await client.readLine(), await client.readLine()], ["ONE", "QUIT", null]);
    await client.close();
    assertEquals((await t.closed()).reason, "closed");
  }
});

test("conn.close ends a loop over lines at once, even if a pace holds lines back", async () => {
  const ended = Promise.withResolvers<void>();
  let conn: Conn;
  await using t = startConversations({ ...inMemory(), maxLinesPerSecond: 0.001 }, async (one) => {
    conn = one;
    for await (const line of one.lines) await one.write(line + "\n");
    ended.resolve();
  });
  const client = await t.connect();
  await client.write("one\ntwo\n");
  assertEquals(await client.readLine(), "one");
  conn!.close();
  await ended.promise;
});

test("conn.close in a conversation sends what was written, and ends the loop at once", async () => {
  const after: string[] = [];
  const ended = Promise.withResolvers<void>();
  await using t = startConversations(inMemory(), async (conn) => {
    for await (const line of conn.lines) {
      if (line === "quit") conn.write("bye\n"), conn.close();
      else after.push(line);
    }
    ended.resolve();
  });
  const client = await t.connect();
  await client.write("quit\n");
  assertEquals(await client.readLine(), "bye");
  await ended.promise;
  assertEquals([await client.readLine(), after], [null, []]);
});

test("conn.lines is done after conn.close, and leaves the last reads to the graceful close", async () => {
  const results: unknown[] = [];
  const { listener, clock } = inMemory();
  await using t = startConversations({ listener, clock }, async (conn) => {
    await conn.write("bye\n");
    conn.close();
    await clock.advance(10);
    results.push(await conn.lines.next());
  });
  const client = await t.connect();
  assertEquals(await client.readLine(), "bye");
  await clock.advance(100);
  await client.write("unread\n");
  assertEquals(await client.readLine(), null);
  assertEquals(results, [{ value: undefined, done: true }]);
  await client.closeWrite();
  assertEquals((await t.closed()).reason, "closed");
});

test("a conversation that returns early ends as closed, whatever the client still sends", async () => {
  for (const after of ["", "\n", "more\n", "a line that is much too long\n"]) {
    await using t = startConversations({ ...inMemory(), maxLineBytes: 12 }, async (conn) => {
      for await (const line of conn.lines) return await conn.write(`${line}\n`);
    });
    assertEquals(await t.talk(`one\n${after}`), "one\n");
    assertEquals((await t.closed()).reason, "closed");
  }
});

const HANDLERS = {
  serve: "(line) => line",
  serveConnections: "async (conn) => { for await (const line of conn.lines) conn.write(line + '\\n'); }",
};

for (const [wayIn, handler] of Object.entries(HANDLERS)) {
  test(`${wayIn} keeps no text of a connection that has become quiet`, async () => {
    const { heapUsed } = await memoryAfter(`
      import { ${wayIn} } from "${import.meta.resolve("../../mod.ts")}";
      const addr = { transport: "tcp", hostname: "127.0.0.1", port: 1 };
      const input = new TextEncoder().encode("a line like any other\\n".repeat(9_800));
      const quiet = Promise.withResolvers();
      const clientCount = 300;
      let owed = clientCount * input.length;
      const connect = () => {
        let sent = 0;
        const read = (into) => {
          const part = input.subarray(sent, sent += into.length);
          into.set(part);
          return part.length > 0 ? Promise.resolve(part.length) : new Promise(() => {});
        };
        const write = async ({ length }) => {
          if ((owed -= length) === 0) quiet.resolve();
          return length;
        };
        return { addr, remoteAddr: addr, localAddr: addr, read, write, close() {} };
      };
      const clients = Array.from({ length: clientCount }, connect);
      const accept = async () => clients.pop() ?? new Promise(() => {});
      ${wayIn}({ listener: { addr, accept, close() {} } }, ${handler});
      await quiet.promise;
    `);
    // The last block of each connection is about 60 KB; those of three hundred are 18 MB.
    assertLessOrEqual(heapUsed, 14 * 2 ** 20);
  });
}

test("a conversation gets no part of an unfinished line of a peer that reset the connection", async () => {
  const got: string[] = [];
  await using t = startConversations(inMemory(), async (conn) => {
    for await (const line of conn.lines) got.push(line), await conn.write("ok\n");
  });
  const client = await t.connect();
  await client.write("whole\nDELETE EVERYTH");
  assertEquals(await client.readLine(), "ok");
  client.reset();
  await t.closed();
  assertEquals(got, ["whole"]);
});

test("a conversation that goes on after its connection's end does not use the transport", async () => {
  const { listener, clock } = inMemory();
  const misuse: string[] = [];
  const done = Promise.withResolvers<void>();
  const options = { listener: faulty(listener, { misuse }), clock, idleTimeout: 50 };
  await using t = startConversations(options, async (conn) => {
    for await (const _ of conn.lines);
    assertEquals(await conn.lines.next(), { value: undefined, done: true });
    await conn.closed;
    await assertRejects(() => conn.write("too late"));
    done.resolve();
  });
  listener.connect();
  await clock.advance(50);
  // The handler may still write for one more second.
  await clock.advance(1000);
  await done.promise;
  assertEquals([misuse, t.all("handler-error")], [[], []]);
});

test("conn.readable goes on where conn.lines stopped, at every line and cut, and conn.lines after conn.readable", async () => {
  const input = "one\r\ntwo\n\nfour\xff\nfive";
  for (let lines = 0; lines <= 5; lines++) {
    for (let cut = 1; cut <= input.length; cut++) {
      const { listener, clock } = inMemory();
      const got: string[] = [];
      const rest: number[] = [];
      await using t = startConversations({ listener, clock }, async (conn) => {
        for (let left = lines; left > 0; left--) got.push((await conn.lines.next()).value ?? "");
        const reader = conn.readable.getReader();
        for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) rest.push(...chunk.value);
        assertEquals(await conn.lines.next(), { value: undefined, done: true });
      });
      const client = await t.admitted();
      const bytes = Uint8Array.from(input, (character) => character.charCodeAt(0));
      await client.write(bytes.subarray(0, cut));
      await clock.advance(0);
      await client.write(bytes.subarray(cut));
      await client.closeWrite();
      assertEquals((await t.closed()).reason, "end");
      const lineEnds = [0, 5, 9, 10, 16, 20];
      assertEquals(rest, [...bytes.subarray(lineEnds[lines])], `${lines} lines, cut at ${cut}`);
      assertEquals(got.length, lines);
    }
  }
});

test("conn.readable that is cancelled leaves its unread bytes to conn.lines", async () => {
  const { listener, clock } = inMemory();
  const got: unknown[] = [];
  await using t = startConversations({ listener, clock }, async (conn) => {
    const reader = conn.readable.getReader();
    got.push((await reader.read()).value?.length);
    const pending = reader.read();
    await reader.cancel();
    got.push(await pending);
    for await (const line of conn.lines) got.push(line);
  });
  const client = await t.admitted();
  await client.write("12345");
  await clock.advance(0);
  await client.write("one\ntwo");
  await client.closeWrite();
  assertEquals((await t.closed()).reason, "end");
  assertEquals(got, [5, { value: undefined, done: true }, "one", "two"]);
});

test("conn.readable reads nothing until it is pulled, and is the same object each time", async () => {
  const { listener, clock } = inMemory();
  const goOn = Promise.withResolvers<void>();
  await using t = startConversations({ listener, clock }, async (conn) => {
    assertStrictEquals(conn.readable, conn.readable);
    await goOn.promise;
    await conn.readable.cancel();
  });
  const client = await t.admitted();
  await client.write("nobody asked\n");
  await clock.advance(0);
  assertEquals(t.stats.bytesIn, 0);
  goOn.resolve();
  await client.closeWrite();
  assertEquals((await t.closed()).reason, "closed");
});

test("conn.writable ends this side when it is closed, and the peer can go on sending", async () => {
  const { listener, clock } = inMemory();
  const got: string[] = [];
  await using t = startConversations({ listener, clock }, async (conn) => {
    const writer = conn.writable.getWriter();
    await writer.write("text and ");
    await writer.write(new TextEncoder().encode("bytes"));
    await writer.close();
    await assertRejects(() => conn.write("late"), ConnectionClosedError);
    for await (const line of conn.lines) got.push(line);
  });
  const client = await t.admitted();
  assertEquals(await client.readAll(), "text and bytes");
  await client.write("still here\n");
  await client.closeWrite();
  assertEquals([(await t.closed()).reason, got], ["end", ["still here"]]);
});

test("conn.writable that is aborted ends the connection as closed", async () => {
  await using t = startConversations(inMemory(), (conn) => conn.writable.abort());
  await t.admitted();
  assertEquals((await t.closed()).reason, "closed");
});

test("a pipe from conn.readable to conn.writable ends with its connection, and for its reason", async () => {
  const { listener, clock } = inMemory();
  await using t = startConversations(
    { listener, clock, idleTimeout: 1000 },
    (conn) => conn.readable.pipeTo(conn.writable, { signal: conn.signal }),
  );
  const client = await t.admitted();
  await client.write("echo");
  await clock.advance(999);
  assertEquals(new TextDecoder().decode((await client.read())!), "echo");
  await clock.advance(1);
  assertEquals((await t.closed()).reason, "idle");
  assertEquals(t.all("handler-error"), []);
});
