import { assertEquals } from "@std/assert";
import type { CloseReason, Conn, Transport } from "@x/shouty";
import { test } from "../kit/bounded.ts";
import { tapped } from "../kit/faults.ts";
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
