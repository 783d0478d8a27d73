import { assertEquals, assertLess, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { serve, type ServeOptions, shout } from "@x/shouty";
import { FakeClock, type TestClient } from "@x/shouty/testing";
import { socketsTurn, turn } from "../../internal/time/event_loop.ts";
import { test, testOnce } from "../kit/bounded.ts";
import { shouted } from "../kit/framing/oracle.ts";
import { startConversations, startServer, TestServer, WAYS_IN } from "../kit/server.ts";
import { talk } from "../kit/replies.ts";

const NO_LIMITS = { maxLineBytes: 65_536, maxConnectionBytes: Infinity };

/** Inputs that clients send, and that are easily handled wrongly. */
const INPUTS: Readonly<Record<string, string | Uint8Array>> = {
  "nothing at all": "",
  "empty lines": "\n\r\n\n",
  "LF and CRLF, mixed": "one\ntwo\r\nthree\n",
  "an unterminated last line": "one\ntwo",
  "an unterminated last line with a CR": "one\ntwo\r",
  "lone CRs": "a\rb\r\r\nc\r\n",
  "VT, FF, NEL, U+2028 and U+2029": "a\vb\fc\u0085d\u2028e\u2029f\n",
  "a BOM": "\uFEFFbom\n\uFEFF\n",
  "NULs": "\0a\0\n",
  "letters that grow": "straße ŉ ﬃ ΐ\n",
  "letters of four bytes": "😀𐐨\n",
  "invalid UTF-8": new Uint8Array([0xFF, 0x61, 0xC3, 0x0A, 0xE2, 0x82, 0x0A, 0xF0, 0x9F, 0x0D, 0x0A]),
  "a line of the longest kind": "x".repeat(65_536) + "\r\n",
  "many lines": Array.from({ length: 5000 }, (_, i) => `line ${i}\n`).join(""),
};

for (const [kind, start] of Object.entries(WAYS_IN)) {
  test(`a client that ends its side gets every reply, through ${kind}`, async () => {
    await using t = new TestServer(start, {});
    for (const [name, input] of Object.entries(INPUTS)) {
      const bytes = typeof input === "string" ? new TextEncoder().encode(input) : input;
      assertEquals(await t.talk(input), shouted(bytes, NO_LIMITS), name);
    }
    const { end } = (await closedAll(t, Object.keys(INPUTS).length)).stats.closed;
    assertEquals(end, Object.keys(INPUTS).length);
  });

  test(`many clients at once get their own replies, in order, through ${kind}`, async () => {
    await using t = new TestServer(start, {});
    await Promise.all(Array.from({ length: 50 }, async (_, i) => {
      const client = await t.connect();
      for (let j = 0; j < 20; j++) {
        await client.write(`client ${i} line ${j}\n`);
        assertEquals(await client.readLine(), `CLIENT ${i} LINE ${j}`);
      }
      client.close();
    }));
    assertEquals((await closedAll(t, 50)).stats.lines, 1000);
  });

  test(`a client that sends a whole conversation before it reads gets all of it back, through ${kind}`, async () => {
    await using t = new TestServer(start, {});
    const text = "All of this is sent before any of it is read.\n".repeat(40_000);
    using client = await t.connect();
    const sent = client.write(text).then(() => client.closeWrite());
    assertEquals(await client.readAll() === text.toUpperCase(), true);
    await sent;
  });

  test(`a line that is too long gets its error line, even if much input follows it, through ${kind}`, async () => {
    await using t = new TestServer(start, { maxLineBytes: 100 });
    using client = await t.connect();
    await client.write("fine\n" + "x".repeat(500_000));
    await client.closeWrite();
    assertEquals(await client.readAll(), "FINE\nerror: line longer than 100 bytes\n");
    assertEquals((await t.closed()).reason, "line-too-long");
  });

  test(`a client that sends too much gets replies to its whole lines and an error line, through ${kind}`, async () => {
    await using t = new TestServer(start, { maxConnectionBytes: 20 });
    assertEquals(
      await t.talk("a line\nanother\ncut off\n"),
      "A LINE\nANOTHER\nerror: more than 20 bytes from one connection\n",
    );
    assertEquals((await t.closed()).reason, "byte-limit");
    assertEquals(await t.talk("exactly 20 bytes...\n"), "EXACTLY 20 BYTES...\n");
  });

  test(`a client that never reads meets writeTimeout, and other connections go on, through ${kind}`, async () => {
    await using t = new TestServer(start, { writeTimeout: 300, maxQueuedBytes: 1 << 30 });
    const deaf = await t.connect();
    const flood = (async () => {
      for (;;) await deaf.write("x".repeat(50_000) + "\n");
    })().catch(() => {});
    const neighbour = await t.connect();
    let turns = 0;
    while (t.all("closed").length === 0) {
      await neighbour.write(`${turns++}\n`);
      await neighbour.readLine();
    }
    assertEquals(t.all("closed").map(({ reason, conn }) => [reason, conn.remoteAddr]), [["write-timeout", deaf.addr]]);
    deaf.close();
    await flood;
  });

  test(`clients that always have more to send do not starve others, through ${kind}`, async () => {
    await using t = new TestServer(start, {});
    const greedy = [await t.connect(), await t.connect()];
    const floods = greedy.map(flood);
    const modest = await t.connect();
    for (let i = 0; i < 20; i++) {
      await modest.write(`${i}\n`);
      assertEquals(await modest.readLine(), `${i}`);
    }
    for (const client of greedy) client.close();
    await Promise.all(floods);
  });
}

/** Sends and reads until the client is closed. */
async function flood(client: TestClient): Promise<void> {
  const lines = "0123456789abcde\n".repeat(10_000);
  const sending = (async () => {
    for (;;) await client.write(lines);
  })().catch(() => {});
  while (await client.read().catch(() => null) !== null);
  await sending;
}

test("the idle clock and the line clock end real connections, and others go on", async () => {
  const clock = new FakeClock();
  await using t = startServer({ clock, idleTimeout: 200, lineTimeout: 300 });
  const [silent, trickler, talker] = [await t.admitted(), await t.admitted(), await t.admitted()];
  // The clock moves on only when the server has read what was sent, so a slow machine does no harm.
  for (let sent = 0; clock.now() < 300; await clock.advance(50)) {
    await trickler.write("x");
    await talk(talker);
    sent += "xstill here\n".length;
    while (t.stats.bytesIn < sent) await socketsTurn();
  }
  assertEquals([await silent.readLine(), await trickler.readLine()], [null, null]);
  assertEquals(t.all("closed").map(({ reason }) => reason), ["idle", "line-timeout"]);
  await talk(talker);
});

test("a real connection ends at maxAge", async () => {
  const clock = new FakeClock();
  await using t = startServer({ clock, maxAge: 100 });
  const client = await t.connect();
  await talk(client);
  await clock.advance(89);
  await talk(client);
  await clock.advance(21);
  assertEquals(await client.readLine(), null);
  client.close();
  assertEquals((await t.closed()).reason, "max-age");
});

test("a connection above maxConnections gets an error line, even if it has sent input", async () => {
  await using t = startServer({ maxConnections: 2 });
  const [first, second] = [await t.admitted(), await t.admitted()];
  for (let i = 0; i < 20; i++) {
    using late = await t.connect();
    await late.write("hello?\n".repeat(100));
    assertEquals(await late.readAll(), "error: more than 2 connections\n");
  }
  await first.closeWrite();
  await t.closed();
  using next = await t.admitted();
  for (const client of [second, next]) await talk(client);
  const [{ reason, limit }] = t.all("rejected");
  assertEquals([t.stats.rejected, reason, limit], [20, "max-connections", 2]);
});

test("of hundreds of connections above maxConnections, a hundred are closed gracefully", async () => {
  await using t = startServer({ maxConnections: 1 });
  const admitted = await t.admitted();
  const late = await Promise.all(Array.from({ length: 250 }, () => t.connect()));
  await t.until("rejected", 250);
  await talk(admitted);
  const told = await Promise.all(late.map((client) => client.readAll().catch(() => "reset")));
  assertEquals(told.filter((text) => text === "error: more than 1 connection\n").length >= 100, true);
  for (const client of late) client.close();
  await talk(admitted);
});

test("a client that reads late gets what the kernel holds at the end, with or without unread input", async () => {
  const over = Promise.withResolvers<void>();
  await using t = startServer({}, (_, conn) => {
    conn.signal.addEventListener("abort", () => over.resolve());
    conn.close();
    return "x".repeat(200_000);
  });
  const client = await t.connect();
  await client.write("go\n" + "unread\n".repeat(20_000));
  await over.promise;
  for (let turns = 0; turns < 5; turns++) await turn();
  assertEquals((await client.readAll()).length, 200_001);
});

test("lastWords changes the error line, or leaves it out", async () => {
  const cases: [ServeOptions["lastWords"], string][] = [
    [(reason, limit) => `-ERR ${reason} ${limit}`, "-ERR line-too-long 3\n"],
    [() => null, ""],
    [() => "", "\n"],
  ];
  for (const [lastWords, told] of cases) {
    await using t = startServer({ maxLineBytes: 3, maxConnections: 1, lastWords });
    assertEquals(await t.talk("okay\n"), told);
    await t.closed();
    await t.admitted();
    using late = await t.connect();
    assertEquals(await late.readAll(), told.replace("line-too-long 3", "max-connections 1"));
  }
});

test("un-awaited writes abort a connection at maxQueuedBytes, on a real socket too", async () => {
  await using t = startConversations({ maxQueuedBytes: 200_000 }, async (conn) => {
    while (!conn.signal.aborted) {
      for (let i = 0; i < 100; i++) conn.write("x".repeat(10_000));
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  });
  // The client may be reset before it has seen that it is connected.
  await t.connect().catch(() => {});
  assertEquals((await t.closed()).reason, "write-queue");
});

test("a client to which nothing was sent cannot go on sending after the end, and its neighbour is served", async () => {
  await using t = startConversations({}, async (conn) => {
    const line = await conn.readLine();
    if (line === "neighbour") await conn.write("served\n");
  });
  using client = await t.connect();
  await client.write("a log line\n");
  const [{ reason, bytesOut }] = await t.until("closed", 1).then(() => t.all("closed"));
  assertEquals([reason, bytesOut], ["closed", 0]);
  // It never reads: only a failed write can tell it.
  await assertRejects(async () => {
    for (;;) await client.write("another log line\n");
  });
  assertEquals(await t.talk("neighbour\n"), "served\n");
});

test("un-awaited writes to a peer that is gone do not end the process", async () => {
  const gone = Promise.withResolvers<void>();
  await using t = startConversations({}, async (conn) => {
    await gone.promise;
    for (let i = 0; i < 50 && !conn.signal.aborted; i++) {
      for (let j = 0; j < 10; j++) conn.write("x".repeat(1000));
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  });
  (await t.admitted()).close();
  gone.resolve();
  assertEquals((await t.closed()).reason, "reset");
});

testOnce("serve() shouts without any options but a port", async () => {
  await using server = serve({ port: 0 });
  const { port } = server.addr as Deno.NetAddr;
  using conn = await Deno.connect({ port });
  await conn.write(new TextEncoder().encode("hello\n"));
  const buffer = new Uint8Array(100);
  assertEquals(new TextDecoder().decode(buffer.subarray(0, (await conn.read(buffer))!)), shout("hello\n"));
});

/** Waits until `count` connections have ended. */
async function closedAll(t: TestServer, count: number): Promise<TestServer> {
  await t.closed(count);
  assertLess(t.stats.active, 1);
  return t;
}

testOnce("serve() says which address it cannot listen on", () => {
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { hostname, port } = taken.addr;
  const error = assertThrows(() => serve({ hostname, port }), Deno.errors.AddrInUse);
  assertStringIncludes(error.message, `Cannot listen on 127.0.0.1:${port}: `);
  assertEquals((error as Error & { code?: string }).code, "EADDRINUSE");
});
