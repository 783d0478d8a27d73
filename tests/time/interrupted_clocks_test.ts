import { assertEquals } from "@std/assert";
import type { Conn, ConnOptions } from "@x/shouty";
import type { FakeClock } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";
import { inMemory, startConversations, type TestServer } from "../kit/server.ts";

/** Reads that are interrupted whenever the test says so; what follows each of them is the test's. */
class Interrupted {
  interrupt = () => {};

  /** Reads until it is interrupted; then `between` runs. Returns null at the end. */
  async read(conn: Conn, between: () => unknown): Promise<string | null> {
    while (true) {
      const stop = new AbortController();
      this.interrupt = () => stop.abort();
      try {
        return await conn.readLine({ signal: stop.signal });
      } catch {
        await between();
      }
    }
  }
}

/** Asserts that the input of the one connection ends after exactly this time; returns why. */
async function assertEnds(t: TestServer, clock: FakeClock, milliseconds: number): Promise<string> {
  const [{ signal }] = t.server.connections;
  await clock.advance(milliseconds - 1);
  assertEquals(signal.aborted, false);
  await clock.advance(1);
  assertEquals(signal.aborted, true);
  await clock.advance(4000);
  return (await t.closed()).reason;
}

const OFF: ConnOptions = { idleTimeout: Infinity, firstLineTimeout: Infinity };

for (
  const [name, reason, input] of [
    ["firstLineTimeout", "first-line-timeout", ""],
    ["idleTimeout", "idle", "hello\n"],
  ] as const
) {
  test(`${name} goes on in the read behind one that was interrupted, and stands still while the handler works`, async () => {
    const { listener, clock } = inMemory();
    const reads = new Interrupted();
    const worked = Promise.withResolvers<void>();
    let works = 0;
    await using t = startConversations({ listener, clock, ...OFF, [name]: 1000 }, async (conn) => {
      if (input !== "") await conn.readLine();
      await reads.read(conn, () => ++works === 2 ? worked.promise : undefined);
    });
    const client = await t.admitted();
    await client.write(input);
    for (let i = 0; i < 2; i++) await clock.advance(300), reads.interrupt();
    await clock.advance(5000);
    worked.resolve();
    await clock.advance(0);
    assertEquals(await assertEnds(t, clock, 400), reason);
  });
}

test("idleTimeout starts anew with a write between two reads, firstLineTimeout does not", async () => {
  for (const [options, left] of [[{ idleTimeout: 1000 }, 1000], [{ firstLineTimeout: 1000 }, 700]] as const) {
    const { listener, clock } = inMemory();
    const reads = new Interrupted();
    await using t = startConversations({ listener, clock, ...OFF, ...options }, async (conn) => {
      await reads.read(conn, () => conn.write("news\n"));
    });
    const client = await t.admitted();
    await clock.advance(300);
    reads.interrupt();
    assertEquals(await client.readLine(), "news");
    await clock.advance(0);
    await assertEnds(t, clock, left);
  }
});

test("what comes behind an interrupted read gives the next one its whole time", async () => {
  const { listener, clock } = inMemory();
  const reads = new Interrupted();
  await using t = startConversations({ listener, clock, ...OFF, idleTimeout: 1000 }, async (conn) => {
    while (await reads.read(conn, () => {}) !== null);
  });
  const client = await t.admitted();
  await clock.advance(900);
  reads.interrupt();
  await client.write("line\n");
  await clock.advance(0);
  assertEquals(await assertEnds(t, clock, 1000), "idle");
});

test("a line that came while the handler worked gives the next read its whole time, however it is read", async () => {
  for (const options of [undefined, {}]) {
    const { listener, clock } = inMemory();
    const reads = new Interrupted();
    const worked = Promise.withResolvers<void>();
    const lines: unknown[] = [];
    await using t = startConversations({ listener, clock, ...OFF, idleTimeout: 1000 }, async (conn) => {
      const stop = new AbortController();
      reads.interrupt = () => stop.abort();
      await conn.readLine({ signal: stop.signal }).catch(() => {});
      await worked.promise;
      lines.push(await conn.readLine(options));
      await conn.readLine();
    });
    const client = await t.admitted();
    await clock.advance(800);
    reads.interrupt();
    await clock.advance(600);
    await client.write("hello\n");
    await clock.advance(0);
    worked.resolve();
    await clock.advance(0);
    assertEquals(lines, ["hello"]);
    assertEquals(await assertEnds(t, clock, 1000), "idle");
  }
});

test("readers of conn.readable that are released while they wait for others do not restart idleTimeout", async () => {
  const { listener, clock } = inMemory();
  const reads = new Interrupted();
  await using t = startConversations({ listener, clock, ...OFF, idleTimeout: 1000 }, async (conn) => {
    conn.readable.getReader().releaseLock();
    while (true) {
      const stop = new AbortController();
      reads.interrupt = () => {
        stop.abort();
        const reader = conn.readable.getReader();
        reader.read().catch(() => {});
        reader.releaseLock();
      };
      if (await conn.readLine({ signal: stop.signal }).catch(() => undefined) === null) break;
    }
  });
  await t.admitted();
  await clock.advance(0);
  for (let i = 0; i < 4; i++) await clock.advance(200), reads.interrupt();
  await clock.advance(0);
  assertEquals(await assertEnds(t, clock, 200), "idle");
});

test("lineTimeout goes on over a read whose signal has aborted before", async () => {
  const { listener, clock } = inMemory();
  const reads = new Interrupted();
  await using t = startConversations({ listener, clock, ...OFF, lineTimeout: 1000 }, async (conn) => {
    await reads.read(conn, () => conn.readLine({ signal: AbortSignal.abort() }).catch(() => {}));
  });
  const client = await t.admitted();
  await client.write("partial");
  await clock.advance(0);
  for (let i = 0; i < 4; i++) await clock.advance(200), reads.interrupt();
  await clock.advance(0);
  assertEquals(await assertEnds(t, clock, 200), "line-timeout");
});

test("a changed idleTimeout or firstLineTimeout starts anew behind an interrupted read", async () => {
  for (const [name, reason] of [["firstLineTimeout", "first-line-timeout"], ["idleTimeout", "idle"]] as const) {
    const { listener, clock } = inMemory();
    const reads = new Interrupted();
    await using t = startConversations({ listener, clock, ...OFF, [name]: 1000 }, async (conn) => {
      await reads.read(conn, () => conn.setLimits({ [name]: 500 }));
    });
    await t.admitted();
    await clock.advance(900);
    reads.interrupt();
    await clock.advance(0);
    assertEquals(await assertEnds(t, clock, 500), reason);
  }
});

test("after the peer's end, a read that gives nothing does not restart halfCloseTimeout; one that gives something does", async () => {
  const { listener, clock } = inMemory();
  const seen: unknown[] = [];
  await using t = startConversations({ listener, clock, halfCloseTimeout: 1000 }, async (conn) => {
    for (let i = 0; i < 9; i++) {
      seen.push(await conn.readLine({ timeout: 60_000 }));
      await new Promise<void>((resolve) => clock.setTimer(resolve, 600));
    }
  });
  const client = await t.admitted();
  await client.write("one\ntwo\n");
  await client.closeWrite();
  assertEquals(await assertEnds(t, clock, 1600), "handler-timeout");
  assertEquals(seen.slice(0, 3), ["one", "two", null]);
  await clock.advance(6000);
});

test("handlerTimeout starts anew with a read that was interrupted", async () => {
  const { listener, clock } = inMemory();
  const reads = new Interrupted();
  await using t = startConversations({ listener, clock, ...OFF, handlerTimeout: 1000 }, async (conn) => {
    await new Promise<void>((resolve) => clock.setTimer(resolve, 900));
    await reads.read(conn, () => new Promise(() => {}));
  });
  await t.admitted();
  await clock.advance(900);
  reads.interrupt();
  await clock.advance(0);
  assertEquals(await assertEnds(t, clock, 1000), "handler-timeout");
});
