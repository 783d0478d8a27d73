import { assertEquals, assertRejects } from "@std/assert";
import type { Conn, ServeOptions } from "@x/shouty";
import type { FakeClock, TestClient } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";
import { inMemory, startConversations, type TestServer } from "../kit/server.ts";

/** Serves one client with a conversation, on a clock that only the test moves. */
async function play(
  options: ServeOptions,
  handler: (conn: Conn) => Promise<unknown>,
  scenario: (client: TestClient, clock: FakeClock, t: TestServer) => Promise<void>,
): Promise<void> {
  const { listener, clock } = inMemory();
  const failures: unknown[] = [];
  const converse = (conn: Conn) => handler(conn).then(() => {}, (error) => failures.push(error));
  await using t = startConversations({ ...options, listener, clock }, async (conn) => void await converse(conn));
  await scenario(await t.admitted(), clock, t);
  for (const failure of failures) throw failure;
}

/** Closes the client's side, and returns why the connection has ended. */
async function endOf(t: TestServer, client: TestClient): Promise<string> {
  await client.closeWrite();
  return (await t.closed()).reason;
}

const reasons = (t: TestServer) => t.all("closed").map(({ reason }) => reason);

/** Reads lines and answers them until there are no more. */
async function echo(conn: Conn): Promise<void> {
  for await (const line of conn.lines) await conn.write(`${line}\n`);
}

test("a read's timeout rejects it alone; what had come, and what comes later, is there for the next read", () =>
  play({}, async (conn) => {
    await assertRejects(() => conn.readLine({ timeout: 100 }), Deno.errors.TimedOut, "within 100 ms");
    await assertRejects(() => conn.readExactly(5, { timeout: 100 }), Deno.errors.TimedOut);
    await assertRejects(() => conn.readUntil(";", { timeout: 100 }), Deno.errors.TimedOut);
    await conn.write("late\n");
    assertEquals([await conn.readLine(), conn.signal.aborted, conn.ending], ["abcd", false, undefined]);
  }, async (client, clock, t) => {
    await client.write("a");
    await clock.advance(100);
    await client.write("b");
    await clock.advance(100);
    await client.write("c");
    await clock.advance(99);
    await client.write("d\n");
    await clock.advance(1);
    assertEquals([await client.readLine(), await endOf(t, client)], ["late", "closed"]);
  }));

test("the timeout of a read that has got something is over: for the next read the idle clock runs", () =>
  play({ idleTimeout: 1000 }, async (conn) => {
    assertEquals(await conn.readLine({ timeout: 500 }), "one");
    assertEquals([await conn.readLine(), conn.ending], [null, "idle"]);
  }, async (client, clock, t) => {
    await clock.advance(100);
    await client.write("one\n");
    await clock.advance(999);
    assertEquals([...t.server.connections].map(({ ending }) => ending), [undefined]);
    await clock.advance(1);
    assertEquals(await endOf(t, client), "idle");
  }));

test("an aborted signal rejects a read with its reason, at once if it has aborted before; the connection goes on", () =>
  play({}, async (conn) => {
    const aborter = new AbortController();
    const reading = conn.readLine({ signal: aborter.signal });
    await conn.write("ready\n");
    await Promise.resolve();
    aborter.abort("my reason");
    assertEquals(await reading.catch((error) => error), "my reason");
    assertEquals(await conn.readLine({ signal: aborter.signal }).catch((error) => error), "my reason");
    assertEquals(await conn.readExactly(1, { signal: aborter.signal }).catch((error) => error), "my reason");
    await echo(conn);
  }, async (client) => {
    await client.write("li");
    assertEquals(await client.readLine(), "ready");
    await client.write("ne\n");
    assertEquals(await client.readLine(), "line");
  }));

test("while a read with a timeout of its own waits, neither idleTimeout nor firstLineTimeout runs; both do afterwards", async () => {
  const options = { idleTimeout: 3000, firstLineTimeout: 1000 };
  const poll = async (conn: Conn) => {
    await assertRejects(() => conn.readLine({ timeout: 9000 }), Deno.errors.TimedOut);
    await echo(conn);
  };
  await play(options, poll, async (_, clock, t) => {
    await clock.advance(9000 + 999);
    assertEquals(reasons(t), []);
    await clock.advance(1);
    assertEquals(reasons(t), ["first-line-timeout"]);
  });
  await play(options, poll, async (client, clock, t) => {
    await clock.advance(9000);
    await client.write("x\n");
    await clock.advance(2999);
    assertEquals(reasons(t), []);
    await clock.advance(1);
    assertEquals(reasons(t), ["idle"]);
  });
});

test("reads with short timeouts do not keep a line from its lineTimeout", () =>
  play({ lineTimeout: 1000, idleTimeout: 5000 }, async (conn) => {
    while (await conn.readLine({ timeout: 90 }).catch(() => undefined) !== null);
    assertEquals(conn.ending, "line-timeout");
  }, async (client, clock, t) => {
    await clock.advance(900);
    await client.write("x");
    for (let i = 0; i < 11; i++) await client.write("x"), await clock.advance(90);
    assertEquals(reasons(t), []);
    await clock.advance(10);
    await clock.advance(1000);
    assertEquals(reasons(t), ["line-timeout"]);
  }));

test("a line that came while no read waited leaves the next line its whole lineTimeout", () => {
  let goOn = () => {};
  return play({ lineTimeout: 1000, idleTimeout: 5000 }, async (conn) => {
    await assertRejects(() => conn.readLine({ timeout: 900 }), Deno.errors.TimedOut);
    await new Promise<void>((resolve) => goOn = resolve);
    assertEquals(await conn.readLine(), "ab");
    await conn.write("go\n");
    assertEquals(await conn.readLine(), null);
  }, async (client, clock, t) => {
    await client.write("a");
    await clock.advance(900);
    await client.write("b\nc");
    // By then the server has read ahead.
    await clock.advance(300);
    goOn();
    assertEquals(await client.readLine(), "go");
    await clock.advance(999);
    assertEquals(reasons(t), []);
    await clock.advance(1);
    await clock.advance(1000);
    assertEquals(reasons(t), ["line-timeout"]);
  });
});

test("the handler's clock runs on when bytes come after its read was interrupted", () =>
  play({ handlerTimeout: 1000 }, async (conn) => {
    await conn.readLine({ timeout: 100 }).catch(() => {});
    await new Promise((resolve) => conn.signal.addEventListener("abort", resolve));
    assertEquals(conn.signal.reason, "handler-timeout");
  }, async (client, clock, t) => {
    await clock.advance(100);
    await client.write("x\n");
    await clock.advance(999);
    assertEquals(t.all("closed"), []);
    await clock.advance(1);
    assertEquals(reasons(t), ["handler-timeout"]);
  }));

test("a reset is noticed while a handler works whose read was interrupted before", () =>
  play({}, async (conn) => {
    await conn.readLine({ timeout: 100 }).catch(() => {});
    await new Promise((resolve) => conn.signal.addEventListener("abort", resolve));
    assertEquals(conn.signal.reason, "reset");
  }, async (client, clock, t) => {
    await clock.advance(100);
    await client.write("x\n");
    await clock.advance(300);
    client.reset();
    await clock.advance(300);
    assertEquals(reasons(t), ["reset"]);
  }));

for (
  const [what, read] of Object.entries<(conn: Conn) => Promise<unknown>>({
    "readExactly": (conn) => conn.readExactly(10_000),
    "readUntil": (conn) => conn.readUntil("\0"),
    "readStream": (conn) => new Response(conn.readStream(10_000)).bytes(),
  })
) {
  test(`a body of ${what} that comes too slowly ends with read-rate, and one that comes in time does not`, async () => {
    const options = { minBytesPerSecond: 100, idleTimeout: 4000 };
    const isEof = async (conn: Conn) => {
      await assertRejects(() => read(conn), Deno.errors.UnexpectedEof);
      assertEquals(conn.ending, "read-rate");
    };
    await play(options, isEof, async (client, clock, t) => {
      // Before the first byte, idleTimeout alone holds.
      await clock.advance(3999);
      for (let i = 0; i < 5; i++) {
        assertEquals(reasons(t), []);
        await client.write("x".repeat(90));
        await clock.advance(i < 4 ? 1000 : 999);
      }
      assertEquals(reasons(t), []);
      await clock.advance(1);
      await clock.advance(1000);
      assertEquals(reasons(t), ["read-rate"]);
    });
    await play(options, read, async (client, clock, t) => {
      for (let i = 0; i < 40; i++) await client.write("x".repeat(110)), await clock.advance(1000);
      assertEquals(reasons(t), []);
      await client.write(what === "readUntil" ? "\0" : "x".repeat(10_000));
      await clock.advance(0);
      assertEquals(await endOf(t, client), "closed");
    });
    await play({ ...options, minBytesPerSecond: 0 }, (conn) => read(conn).catch(() => {}), async (client, clock, t) => {
      for (let i = 0; i < 10; i++) await client.write("x"), await clock.advance(3999);
      assertEquals(reasons(t), []);
      await clock.advance(1);
      assertEquals(reasons(t), ["idle"]);
    });
  });
}

test("minBytesPerSecond does not hold for conn.readable, and counts what a cancelled body skips", async () => {
  await play({ minBytesPerSecond: 100, idleTimeout: 6000 }, async (conn) => {
    const reader = conn.readable.getReader();
    for (let i = 0; i < 8; i++) await reader.read();
  }, async (client, clock, t) => {
    for (let i = 0; i < 8; i++) await client.write("x"), await clock.advance(5000);
    assertEquals(await endOf(t, client), "closed");
  });
  await play({ minBytesPerSecond: 100, lineTimeout: 1000 }, async (conn) => {
    await conn.readStream(10_000).cancel();
    assertEquals(await conn.readLine(), "behind");
  }, async (client, clock, t) => {
    for (let i = 0; i < 10; i++) await client.write("x".repeat(1000)), await clock.advance(900);
    await client.write("beh");
    await clock.advance(900);
    await client.write("ind\n");
    await clock.advance(0);
    assertEquals(await endOf(t, client), "closed");
  });
});
