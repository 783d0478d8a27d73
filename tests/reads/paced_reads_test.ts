import { assertEquals, assertGreaterOrEqual, assertLessOrEqual } from "@std/assert";
import type { Conn, ServeOptions } from "@x/shouty";
import type { FakeClock, TestClient } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";
import { numbered } from "../kit/replies.ts";
import { inMemory, startConversations, startServer, type TestServer } from "../kit/server.ts";

/** Serves one client with a conversation, on a clock that only the test moves. */
async function play(
  options: ServeOptions,
  handler: (conn: Conn) => Promise<void>,
  scenario: (client: TestClient, clock: FakeClock, t: TestServer) => Promise<void>,
): Promise<void> {
  const { listener, clock } = inMemory();
  await using t = startConversations({ ...options, listener, clock }, handler);
  await scenario(await t.admitted(), clock, t);
}

const WAYS: Readonly<Record<string, (conn: Conn, got: (line: string) => void) => Promise<void>>> = {
  "readLine": async (conn, got) => {
    for (let line = await conn.readLine(); line !== null; line = await conn.readLine()) got(line);
  },
  "reads with short timeouts": async (conn, got) => {
    let line: string | null | undefined;
    do {
      line = await conn.readLine({ timeout: 10 }).catch(() => undefined);
      if (typeof line === "string") got(line);
    } while (line !== null);
  },
  "batches": async (conn, got) => {
    for await (const batch of conn.batches) batch.forEach(got);
  },
  "lines between readExactly": async (conn, got) => {
    for (let line = await conn.readLine(); line !== null; line = await conn.readLine()) {
      got(line);
      await conn.readExactly(1).catch(() => {});
    }
  },
};

for (const [how, handler] of Object.entries(WAYS)) {
  test(`maxLinesPerSecond holds for ${how}, and is not charged for reads that gave no line`, async () => {
    const times: number[] = [];
    let now = () => 0;
    await play({ maxLinesPerSecond: 4 }, (conn) => handler(conn, () => times.push(now())), async (client, clock) => {
      now = () => clock.now();
      await client.write(numbered(16));
      for (let i = 0; i < 600; i++) await clock.advance(10);
      assertEquals(times.length, 16);
      for (const [i, time] of times.entries()) {
        assertGreaterOrEqual(time, (i - 4) * 250);
        assertLessOrEqual(time, Math.max(0, i - 3) * 250 + 120);
      }
    });
  });
}

test("maxBytesPerSecond holds for bodies, also while reads with short timeouts wait, and leaves no timer behind", async () => {
  for (const timeout of [undefined, 10]) {
    let done = -1;
    let now = () => 0;
    await play({ maxBytesPerSecond: 100 }, async (conn) => {
      while (await conn.readExactly(400, { timeout }).catch(() => undefined) === undefined);
      done = now();
      while (await conn.readLine({ timeout }).catch(() => undefined) !== null);
    }, async (client, clock, t) => {
      now = () => clock.now();
      await client.write("x".repeat(500));
      for (let i = 0; i < 350; i++) await clock.advance(10);
      assertGreaterOrEqual(done, 3000);
      assertLessOrEqual(done, 3150);
      client.close();
      for (let i = 0; i < 100 && t.all("closed").length === 0; i++) await clock.advance(50);
      await t.closed();
      assertEquals(clock.pending, 0);
    });
  }
});

test("limits on rates that are set, changed and taken back hold from the next read", async () => {
  const times: number[] = [];
  let now = () => 0;
  await play({}, async (conn) => {
    for (let line = await conn.readLine(); line !== null; line = await conn.readLine()) {
      times.push(now());
      if (times.length === 2) conn.setLimits({ maxLinesPerSecond: 1 });
      if (times.length === 5) conn.setLimits({ maxLinesPerSecond: Infinity });
    }
  }, async (client, clock) => {
    now = () => clock.now();
    await client.write(numbered(10));
    for (let i = 0; i < 400; i++) await clock.advance(10);
    assertEquals(times.length, 10);
    assertEquals(times.slice(0, 3), [0, 0, 0]);
    assertGreaterOrEqual(times[4], 1990);
    assertEquals(times.slice(5), Array(5).fill(times[4]));
  });
});

test("a line that waits for its turn at a rate is not handled once its connection has ended", async () => {
  const { listener, clock } = inMemory();
  const handled: string[] = [];
  await using t = startServer({ listener, clock, maxLinesPerSecond: 1 }, (line) => void handled.push(line));
  const client = await t.admitted();
  await client.write("one\ntwo\nthree\n");
  await clock.advance(0);
  const stopped = t.server.shutdown({ drainTimeout: 100 });
  await clock.advance(100);
  assertEquals((await stopped).closed, { "drain-timeout": 1 });
  await clock.advance(5000);
  assertEquals(handled, ["one"]);
});

test("a read that is given up while it waits for its turn does not wait for the pace of lines", async () => {
  let givenUp = 0;
  await play({ maxLinesPerSecond: 1 }, async (conn) => {
    await conn.readLine();
    // Enough reads for one of them to wait for its turn.
    for (; givenUp < 3000; givenUp++) {
      const aborter = new AbortController();
      const read = conn.readLine({ signal: aborter.signal });
      aborter.abort();
      await read.catch(() => {});
    }
  }, async (client, clock) => {
    await client.write("one\ntwo\n");
    for (let i = 0; i < 10; i++) await clock.advance(0);
    assertEquals(givenUp, 3000);
  });
});
