/** Peers that reset or end while a handler works on, although its input is over. */
import { assertEquals, assertGreaterOrEqual } from "@std/assert";
import type { ServeOptions } from "@x/shouty";
import type { FakeClock } from "@x/shouty/testing";
import { test } from "../../kit/bounded.ts";
import { faulty } from "../../kit/faults.ts";
import { inMemory, startConversations, startServer, type TestServer } from "../../kit/server.ts";

const HALF_CLOSE_MS = 5000;
const never = new Promise<never>(() => {});
const sleep = (clock: FakeClock, ms: number) => new Promise<void>((resolve) => clock.setTimer(resolve, ms, true));

/** Handlers that get one line, and never end. */
const HANDLERS: Readonly<Record<string, (options: ServeOptions & { clock: FakeClock }) => TestServer>> = {
  "a line handler that has called conn.close": (options) =>
    startServer(options, (_, conn) => {
      conn.close();
      return never;
    }),
  // By then, the server reads ahead.
  "a line handler that has called conn.close late": (options) =>
    startServer(options, async (_, conn) => {
      await sleep(options.clock, 500);
      conn.close();
      await never;
    }),
  "handler.block that has called conn.close": (options) => {
    const block = (_: string, conn: { close(): void }) => {
      conn.close();
      return never;
    };
    return startServer(options, Object.assign((line: string) => line, { block }));
  },
  "a conversation that maxLines has ended": (options) =>
    startConversations({ ...options, maxLines: 1 }, async (conn) => {
      await conn.readLine();
      assertEquals([await conn.readLine(), conn.ending], [null, "max-lines"]);
      await never;
    }),
};

for (const [what, start] of Object.entries(HANDLERS)) {
  test(`a peer that resets while ${what} works is gone at once, also if it has sent much`, async () => {
    for (const more of [0, 1, 300]) {
      const { listener, clock } = inMemory();
      await using t = start({ listener, clock, idleTimeout: Infinity });
      const client = await t.admitted();
      await client.write("line\n");
      await clock.advance(1000);
      const sent = client.write("more\n".repeat(1000 * more)).catch(() => {});
      await clock.advance(10_000);
      client.reset();
      await clock.advance(1000);
      await sent;
      assertEquals(t.all("closed").map(({ reason }) => reason), ["reset"]);
    }
  });

  test(`a peer that ends its side while ${what} works keeps its place for halfCloseTimeout`, async () => {
    const { listener, clock } = inMemory();
    await using t = start({ listener, clock, idleTimeout: Infinity, halfCloseTimeout: HALF_CLOSE_MS });
    const client = await t.admitted();
    await client.write("line\n");
    await clock.advance(1000);
    await client.write("more\n".repeat(1000));
    await client.closeWrite();
    await clock.advance(HALF_CLOSE_MS - 500);
    assertEquals(t.stats.active, 1);
    await clock.advance(5000);
    assertEquals(t.all("closed").map(({ reason }) => reason), ["handler-timeout"]);
  });
}

test("a peer that resets is gone although as much as fits was read ahead before conn.close", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 1 << 20 });
  const start = HANDLERS["a line handler that has called conn.close late"];
  await using t = start({ listener, clock, idleTimeout: Infinity });
  const client = await t.admitted();
  await client.write("line\n" + "more\n".repeat(40_000));
  await clock.advance(400);
  assertGreaterOrEqual(t.stats.bytesIn, 65_536);
  await clock.advance(1000);
  client.reset();
  await clock.advance(1000);
  assertEquals(t.all("closed").map(({ reason }) => reason), ["reset"]);
});

test("a peer's end bounds a handler past the end of its input once, though it reads on, and the limit is told", async () => {
  const { listener, clock } = inMemory();
  const told: unknown[] = [];
  const lastWords = (...args: unknown[]) => (told.push(args), null);
  const timeouts = { idleTimeout: Infinity, handlerTimeout: 9000, halfCloseTimeout: HALF_CLOSE_MS };
  await using t = startConversations({ listener, clock, ...timeouts, maxLines: 1, lastWords }, async (conn) => {
    for (;;) {
      await conn.readLine();
      await sleep(clock, 600);
    }
  });
  const client = await t.admitted();
  await client.write("line\n");
  await clock.advance(2000);
  await client.closeWrite();
  for (let ms = 0; ms < HALF_CLOSE_MS + 2000; ms += 100) await clock.advance(100);
  client.close();
  assertEquals((await t.closed()).reason, "handler-timeout");
  assertEquals(told, [["handler-timeout", HALF_CLOSE_MS]]);
});

test("conn.setLimits asks a connection that is closing for no end", async () => {
  let aborted: boolean | undefined;
  await using t = startServer(inMemory(), (_, conn) => {
    conn.close();
    conn.setLimits({ maxLines: 1 });
    aborted = conn.finishing.aborted;
  });
  await t.talk("one\ntwo\n");
  assertEquals([(await t.closed()).reason, aborted], ["closed", false]);
});

test("a connection that gives way to itself past the end of its input reads nothing into the memory it gave up", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 1 << 20 });
  const misuse: string[] = [];
  const options = { listener: faulty(listener, { misuse }), clock, maxBufferedBytes: 40_000, idleTimeout: Infinity };
  await using t = startServer(options, (_, conn) => {
    conn.close();
    return never;
  });
  const client = t.own(listener.connect());
  // Only a connection that holds input gives way.
  await client.write("line\nbegun");
  await clock.advance(1000);
  const sent = client.write("x".repeat(300_000)).catch(() => {});
  for (let ms = 0; ms < 5000; ms += 250) await clock.advance(250);
  client.close();
  await sent;
  assertEquals([(await t.closed()).reason, misuse], ["memory", []]);
});

test("what comes after maxLines has ended the input is no line, neither then nor when the peer ends its side", async () => {
  const { listener, clock } = inMemory();
  const lines: (string | null)[] = [];
  await using t = startConversations({ listener, clock, maxLines: 1, idleTimeout: Infinity }, async (conn) => {
    for (let wait = 0; wait < 4; wait++) {
      lines.push(await conn.readLine(), await conn.readLine());
      await sleep(clock, 1000);
    }
  });
  const client = await t.admitted();
  await client.write("line\n");
  await clock.advance(500);
  await client.write("more\nbegun");
  await clock.advance(1000);
  await client.closeWrite();
  await clock.advance(5000);
  assertEquals(lines, ["line", ...Array(7).fill(null)]);
  assertEquals(t.all("closed").map(({ reason }) => reason), ["max-lines"]);
});
