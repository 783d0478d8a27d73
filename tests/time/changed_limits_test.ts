import { assertEquals, assertThrows } from "@std/assert";
import type { CloseReason, Conn, ConnOptions } from "@x/shouty";
import type { FakeClock } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";
import { turn } from "../../internal/time/event_loop.ts";
import { play } from "../kit/one_client.ts";
import { inMemory, startConversations, type TestServer } from "../kit/server.ts";

/** Asserts that the input of the only connection ends after exactly this time, and for this reason. */
async function assertEnds(t: TestServer, clock: FakeClock, milliseconds: number, reason: CloseReason): Promise<void> {
  const conn = the(t);
  await clock.advance(milliseconds - 1);
  assertEquals(conn.ending, undefined);
  await clock.advance(1);
  assertEquals(conn.ending, reason);
  await clock.advance(4000);
  assertEquals((await t.closed()).reason, reason);
}

const the = (t: TestServer): Conn<unknown> => [...t.server.connections][0];
const forEver = () => new Promise<void>(() => {});

/** Clocks that are changed while they run: what starts them, and the reason of the end. */
const RUNNING: readonly (readonly [keyof ConnOptions, CloseReason, string, (conn: Conn) => Promise<unknown>])[] = [
  ["idleTimeout", "idle", "x\n", async (conn) => {
    while (await conn.readLine() !== null);
  }],
  ["firstLineTimeout", "first-line-timeout", "", (conn) => conn.readLine()],
  ["lineTimeout", "line-timeout", "x", (conn) => conn.readLine()],
  ["handlerTimeout", "handler-timeout", "", forEver],
  ["maxAge", "max-age", "", (conn) => conn.readLine()],
];

for (const [name, reason, input, handler] of RUNNING) {
  test(`setLimits starts ${name} anew while it runs, and Infinity switches it off`, async () => {
    const off = { idleTimeout: 1e9, firstLineTimeout: 1e9, lineTimeout: 1e9 };
    await play({ ...off, [name]: 2000 }, handler, async (client, clock, t) => {
      await client.write(input);
      await clock.advance(1500);
      the(t).setLimits({ [name]: Infinity });
      await clock.advance(100_000);
      assertEquals(the(t).ending, undefined);
      the(t).setLimits({ [name]: 5000 });
      if (name === "maxAge") {
        const conn = the(t);
        await clock.advance(4499);
        assertEquals(conn.ending, undefined);
        await clock.advance(1001);
        while (conn.ending === undefined) await turn();
        await client.closeWrite();
        assertEquals((await t.closed()).reason, reason);
      } else {
        await clock.advance(3000);
        the(t).setLimits({ [name]: 4000, maxQueuedBytes: 10 });
        await clock.advance(1000);
        // It is the same, so it runs on.
        the(t).setLimits({ [name]: 4000, maxQueuedBytes: 20 });
        await assertEnds(t, clock, 3000, reason);
      }
    });
  });
}

test("setLimits starts the rate of a body anew", () =>
  play(
    { idleTimeout: Infinity, minBytesPerSecond: 0 },
    (conn) => conn.readExactly(9).catch(() => {}),
    async (client, clock, t) => {
      await client.write("x");
      await clock.advance(60_000);
      the(t).setLimits({ minBytesPerSecond: 100 });
      await assertEnds(t, clock, 5000, "read-rate");
    },
  ));

test("setLimits refuses what serve refuses, and changes nothing then", () =>
  play({ maxLineBytes: 5 }, async (conn) => {
    for (const wrong of [{ idleTimeout: 0 }, { idleOn: "never" }, { maxLines: 1.5 }, { minBytesPerSecond: -1 }]) {
      assertThrows(() => conn.setLimits({ maxLineBytes: 9, ...wrong as ConnOptions }));
    }
    for (const wrong of [null, 5, () => {}]) assertThrows(() => conn.setLimits(wrong as ConnOptions), TypeError);
    conn.setLimits({ maxLineBytes: undefined });
    assertEquals(await conn.readLine(), null);
    assertEquals(conn.ending, "line-too-long");
  }, async (client, _, t) => {
    await client.write("sixsix\n");
    await client.closeWrite();
    assertEquals((await t.closed()).reason, "line-too-long");
  }));

test("writeTimeout that is changed while nothing is written does not run", async () => {
  await play({ idleTimeout: Infinity, firstLineTimeout: Infinity }, forEver, async (client, clock, t) => {
    the(t).setLimits({ writeTimeout: 1000 });
    await the(t).write("hello\n");
    assertEquals(await client.readLine(), "hello");
    the(t).setLimits({ writeTimeout: 2000 });
    await clock.advance(100_000);
    assertEquals([the(t).ending, the(t).stats().waitsFor], [undefined, "handler"]);
  });
});

test("writeTimeout that is changed while a block waits has its whole time, and no more", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 16 });
  await using t = startConversations({ listener, clock, writeTimeout: 1000, idleTimeout: Infinity }, async (conn) => {
    await conn.write("x".repeat(1000)).catch(() => {});
    await conn.flushed().catch(() => {});
  });
  await t.admitted();
  await clock.advance(900);
  the(t).setLimits({ writeTimeout: 800 });
  await clock.advance(799);
  assertEquals(t.all("closed"), []);
  await clock.advance(1);
  assertEquals((await t.closed()).reason, "write-timeout");
});

test("a line that waits for the pace passes no earlier when another limit is changed", async () => {
  const times: number[] = [];
  let now = () => 0;
  await play(
    { maxLinesPerSecond: 4 },
    async (conn) => {
      for await (const _ of conn.lines) times.push(now());
    },
    async (client, clock, t) => {
      now = () => clock.now();
      await client.write("line\n".repeat(8));
      for (let i = 0; i < 200; i++) await clock.advance(10), the(t).setLimits({ maxLineBytes: 100 + i });
      assertEquals(times.length, 8);
      for (const [i, time] of times.entries()) assertEquals(time >= (i - 4) * 250, true, `${times}`);
    },
  );
});

test("idleOn read lets only what is read restart the idle clock", async () => {
  for (const idleOn of ["read", "both"] as const) {
    await play(
      { idleTimeout: 1000, firstLineTimeout: Infinity, idleOn },
      (conn) => conn.readLine(),
      async (client, clock, t) => {
        const { signal } = the(t);
        for (let i = 0; i < 3; i++) await clock.advance(400), the(t)?.write("news\n");
        await clock.advance(0);
        assertEquals(signal.aborted, idleOn === "read");
        assertEquals(await client.readLine(), "news");
      },
    );
  }
});

test("idleOn read counts the silence of a peer over reads that the handler interrupts to write", async () => {
  const { listener, clock } = inMemory();
  const options = { listener, clock, idleTimeout: 1000, firstLineTimeout: Infinity, idleOn: "read" } as const;
  let push = () => {};
  await using t = startConversations(options, async (conn) => {
    for (let line; (line = await next(conn)) !== null;) await conn.write(`${line}\n`);
  });
  const next = async (conn: Conn) => {
    const news = new AbortController();
    push = () => news.abort();
    return await conn.readLine({ signal: news.signal }).catch(() => "news");
  };
  const client = await t.admitted();
  for (let i = 0; i < 2; i++) await clock.advance(400), push(), await client.readLine();
  await clock.advance(199);
  assertEquals(t.all("closed"), []);
  await clock.advance(1);
  assertEquals((await t.closed()).reason, "idle");
});

test("the limits of a connection that is closed can be changed without starting a clock", async () => {
  const { listener, clock } = inMemory();
  let conn: Conn;
  await using t = startConversations({ listener, clock }, (it) => void (conn = it));
  assertEquals(await t.talk(""), "");
  await t.closed();
  conn!.setLimits({ maxAge: 1000, writeTimeout: 1000, idleTimeout: 1000, maxLinesPerSecond: 1 });
  conn!.setDeadline(1000);
  await conn!.readLine({ timeout: 1000 });
  assertEquals(clock.pending, 0);
});

test("maxAge ends a connection that reads bytes and never comes to a line boundary, 10 s later at most", async () => {
  for (
    const handler of [
      async (conn: Conn) => {
        while (await conn.readExactly(1).catch(() => undefined));
      },
      (conn: Conn) => new Response(conn.readStream(1e9)).bytes().catch(() => {}),
    ]
  ) {
    await play({ maxAge: 1000, minBytesPerSecond: 1 }, handler, async (client, clock, t) => {
      for (let i = 0; i < 110; i++) await clock.advance(100), await client.write("x").catch(() => {});
      await clock.advance(100);
      assertEquals((await t.closed()).reason, "max-age");
    });
  }
});
