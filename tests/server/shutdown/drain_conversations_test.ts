import { assertEquals, assertRejects } from "@std/assert";
import type { CloseReason, Conn } from "@x/shouty";
import { turn } from "../../../internal/time/event_loop.ts";
import { test, testOnce } from "../../kit/bounded.ts";
import { tapped } from "../../kit/faults.ts";
import { inMemory, startConversations } from "../../kit/server.ts";

const text = (bytes: Uint8Array | null) => bytes && new TextDecoder().decode(bytes);

/** Reads of which "head" has come when the shutdown begins, and "tail;\n" comes later; and the lines behind them. */
const BODIES: Readonly<Record<string, readonly [(conn: Conn) => Promise<string | null>, string[]]>> = {
  "readExactly": [async (conn) => text(await conn.readExactly(8)), [";"]],
  "readUntil": [async (conn) => text(await conn.readUntil(";")), [""]],
  "readStream": [(conn) => new Response(conn.readStream(8)).text(), [";"]],
  "readLine": [(conn) => conn.readLine(), []],
};

for (const [how, [read, behind]] of Object.entries(BODIES)) {
  test(`drain: "finish" waits for the rest of what ${how} has begun, and ends at the next line boundary`, async () => {
    const got: unknown[] = [];
    await using t = startConversations({}, async (conn) => {
      assertEquals(await conn.readLine(), "begin");
      await conn.write("go on\n");
      got.push((await read(conn))?.slice(0, 8));
      got.push(await Array.fromAsync(conn.lines), conn.ending, conn.finishing.reason);
    });
    const client = await t.admitted();
    await client.write("begin\n");
    assertEquals(await client.readLine(), "go on");
    await client.write("head");
    const stopped = t.server.shutdown({ drain: "finish" });
    for (let turns = 20; turns > 0; turns--) await turn();
    assertEquals(got, []);
    await client.write("tail;\n");
    assertEquals(await client.readAll(), "");
    client.close();
    assertEquals((await stopped).closed, { drained: 1 });
    assertEquals(got, ["headtail", behind, "drained", "drained"]);
  });
}

test('drain: "finish" does not end a wait for the first byte of a body: its deadline does', async () => {
  const seen: unknown[] = [];
  await using t = startConversations({}, async (conn) => {
    await assertRejects(() => conn.readExactly(4), Deno.errors.UnexpectedEof);
    seen.push(conn.ending);
  });
  await t.admitted();
  const { closed } = await t.server.shutdown({ drain: "finish", drainTimeout: 100 });
  assertEquals([closed, seen], [{ "drain-timeout": 1 }, ["drain-timeout"]]);
});

testOnce(
  'drain: "finish" ends a peer that sends on and always has a TLS record begun, before its deadline',
  async () => {
    const { listener, clock } = inMemory();
    const begun = tapped(listener, () => ({ whole: new Promise(() => {}) }));
    await using t = startConversations({ listener: begun, clock }, async (conn) => {
      while (await conn.readUntil(";", { boundary: true }) !== null);
    });
    using client = listener.connect();
    await client.write("a;");
    await clock.advance(0);
    const stopped = t.server.shutdown({ drain: "finish", drainTimeout: 60_000 });
    for (let i = 0; i < 100; i++) await client.write("a;").catch(() => {}), await clock.advance(0);
    client.close();
    assertEquals((await stopped).closed, { drained: 1 });
  },
);

/** Reads messages that begin with their length; null if there are no more. */
const MESSAGES: Readonly<Record<string, (conn: Conn) => Promise<string | null>>> = {
  "readExactly": async (conn) => {
    try {
      const [digit] = await conn.readExactly(1, { boundary: true });
      await conn.readExactly(1);
      return text(await conn.readExactly(digit - 48));
    } catch (error) {
      if (error instanceof Deno.errors.UnexpectedEof) return null;
      throw error;
    }
  },
  "readUntil": async (conn) => {
    const length = await conn.readUntil(":", { boundary: true });
    return length && text(await conn.readExactly(Number(text(length))));
  },
};

for (const [how, read] of Object.entries(MESSAGES)) {
  test(`drain: "finish" ends at a ${how} with which a message begins, once those that have come are answered`, async () => {
    const begun = Promise.withResolvers<void>();
    const go = Promise.withResolvers<void>();
    const endings: unknown[] = [];
    await using t = startConversations({ idleTimeout: Infinity }, async (conn) => {
      for (let message; (message = await read(conn)) !== null;) {
        if (message === "one") begun.resolve(), await go.promise;
        await conn.write(`${message}\n`);
      }
      endings.push(conn.ending, conn.finishing.reason);
    });
    const [silent, client] = [await t.admitted(), await t.admitted()];
    await client.write("3:one3:two5:th");
    await begun.promise;
    const stopped = t.server.shutdown({ drain: "finish", drainTimeout: Infinity });
    assertEquals(await silent.readAll(), "");
    silent.close();
    go.resolve();
    assertEquals([await client.readLine(), await client.readLine()], ["one", "two"]);
    await client.write("ree4:four");
    assertEquals(await client.readAll(), "three\nfour\n");
    client.close();
    assertEquals((await stopped).closed, { drained: 2 });
    assertEquals(endings, ["drained", "drained", "drained", "drained"]);
  });

  testOnce(`maxAge ends a ${how} with which a message begins, and none of which a byte has come`, async () => {
    const { listener, clock } = inMemory();
    const options = { listener, clock, maxAge: 10_000, idleTimeout: Infinity, minBytesPerSecond: 0 };
    await using t = startConversations({ ...options, firstLineTimeout: Infinity }, async (conn) => {
      for (let message; (message = await read(conn)) !== null;) await conn.write(`${message}\n`);
    });
    const [silent, client] = [await t.admitted(), await t.admitted()];
    const waitsFor = () => Array.from(t.server.connections, (conn) => conn.stats().waitsFor);
    await client.write("3");
    await clock.advance(0);
    assertEquals(waitsFor().toSorted(), ["body", "first-byte"]);
    await clock.advance(11_000);
    assertEquals(await silent.readAll(), "");
    await client.write(":one");
    assertEquals(await client.readAll(), "one\n");
    for (const one of [silent, client]) one.close();
    await t.closed(2);
    assertEquals(t.all("closed").map(({ reason }) => reason), ["max-age", "max-age"]);
  });
}

test('a handler that only pushes ends when conn.finishing aborts, under "finish" alone', async () => {
  for (const drain of ["finish", "linger"] as const) {
    const pushing = Promise.withResolvers<void>();
    await using t = startConversations({}, async (conn) => {
      const { finishing } = conn;
      await conn.write("news\n");
      pushing.resolve();
      await new Promise((resolve) => {
        finishing.addEventListener("abort", resolve);
        conn.signal.addEventListener("abort", resolve);
      });
      if (finishing.aborted) await conn.write(`${finishing.reason}\n`);
    });
    const client = await t.admitted();
    await pushing.promise;
    // A handler that takes "finish" for "linger" meets the time limit of the test.
    const stopped = t.server.shutdown({ drain, drainTimeout: drain === "finish" ? Infinity : 150 });
    if (drain === "finish") {
      assertEquals(await client.readAll(), "news\ndrained\n");
      client.close();
    }
    assertEquals((await stopped).closed, { [drain === "finish" ? "drained" : "drain-timeout"]: 1 });
  }
});

test("conn.finishing that is first asked for after the drain has begun has aborted already, with the reason", async () => {
  const asked = Promise.withResolvers<AbortSignal>();
  const ask = Promise.withResolvers<void>();
  await using t = startConversations({}, async (conn) => {
    await ask.promise;
    asked.resolve(conn.finishing);
  });
  const client = await t.admitted();
  const stopped = t.server.shutdown({ drain: "finish" });
  ask.resolve();
  const { aborted, reason } = await asked.promise;
  assertEquals([aborted, reason], [true, "drained"]);
  await client.readAll();
  client.close();
  await stopped;
});

test('drain: "linger" leaves ending undefined, and connections end for causes of their own', async () => {
  const endings: unknown[] = [];
  await using t = startConversations({}, async (conn) => {
    for (let line = await conn.readLine(); line !== null; line = await conn.readLine()) {
      endings.push([conn.ending, conn.finishing.aborted]);
      await conn.write(`${line}\n`);
      if (line === "quit") return;
    }
    endings.push(conn.ending);
  });
  const [ends, quits] = [await t.admitted(), await t.admitted()];
  const stopped = t.server.shutdown();
  for (const client of [ends, quits]) {
    await client.write("still here\n");
    assertEquals(await client.readLine(), "still here");
  }
  await quits.write("quit\n");
  assertEquals(await quits.readAll(), "quit\n");
  quits.close();
  await ends.closeWrite();
  assertEquals(await ends.readAll(), "");
  const wanted: Partial<Record<CloseReason, number>> = { end: 1, closed: 1 };
  assertEquals((await stopped).closed, wanted);
  assertEquals(endings, [[undefined, false], [undefined, false], [undefined, false], "end"]);
});

test('in a drain with "finish", conn.readable ends once what the kernel holds is handed out', async () => {
  const parts: string[] = [];
  const go = Promise.withResolvers<void>();
  await using t = startConversations({}, async (conn) => {
    await go.promise;
    for await (const part of conn.readable) parts.push(text(part)!);
    await conn.write(`${parts.join("").length} bytes, ${conn.ending}\n`);
  });
  const client = await t.admitted();
  await client.write("x".repeat(100_000));
  const stopped = t.server.shutdown({ drain: "finish" });
  go.resolve();
  assertEquals(await client.readAll(), "100000 bytes, drained\n");
  client.close();
  assertEquals((await stopped).closed, { drained: 1 });
});

test('in a drain with "finish", lines that came with the last one are all read, in batches, too', async () => {
  const go = Promise.withResolvers<void>();
  const lines: string[] = [];
  await using t = startConversations({}, async (conn) => {
    await go.promise;
    for await (const batch of conn.batches) lines.push(...batch);
  });
  const client = await t.admitted();
  await client.write("line\n".repeat(5000));
  const stopped = t.server.shutdown({ drain: "finish" });
  go.resolve();
  await client.readAll();
  client.close();
  assertEquals([(await stopped).closed, lines.length], [{ drained: 1 }, 5000]);
});
