import { once } from "node:events";
import net from "node:net";
import tls from "node:tls";
import { assert, assertEquals, assertGreaterOrEqual } from "@std/assert";
import { listenTls } from "@x/shouty/ops";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { turn } from "../../internal/time/event_loop.ts";
import { TURN_BYTES, TURNS } from "../../internal/time/turns.ts";
import { testOnce } from "../kit/bounded.ts";
import { inMemory, listenLoopback, startConversations, startServer } from "../kit/server.ts";
import { AUTHORITY, IDENTITY } from "../kit/tls.ts";
import { startWaiting } from "../kit/working_handlers.ts";

testOnce("what a peer sends while a handler works is kept for it, however much that is", async () => {
  for (const wayIn of ["line", "conversation"]) {
    for (const count of [1, 100, 20_000]) {
      const { t, clock, goOn } = startWaiting({}, wayIn);
      await using _ = t;
      const client = await t.admitted();
      const text = Array.from({ length: count }, (_, i) => `line ${i}\n`).join("");
      await client.write("first\n");
      await clock.advance(1000);
      await client.write(text);
      await clock.advance(1000);
      // The server has read only a bounded part so far.
      assert(t.stats.bytesIn <= 6 + 2 * 65_536, `${t.stats.bytesIn}`);
      goOn();
      await client.closeWrite();
      assertEquals(await client.readAll(), `first\n${text}`);
      assertEquals((await t.closed()).reason, "end");
    }
  }
});

testOnce("a peer that has sent much before it resets is noticed, too", async () => {
  const { t, clock, signals } = startWaiting({ maxLineBytes: 1000 });
  await using _ = t;
  const client = await t.admitted();
  await client.write("first\n" + "y".repeat(60_000));
  await clock.advance(1000);
  client.reset();
  assertEquals((await t.closed()).reason, "reset");
  assertEquals(signals[0].reason, "reset");
});

testOnce("a peer that has ended its side gets the reply of a handler that takes its time", async () => {
  for (const wayIn of ["line", "conversation"]) {
    const { t, clock, goOn } = startWaiting({}, wayIn);
    await using _ = t;
    const client = await t.admitted();
    await client.write("slow\n");
    await client.closeWrite();
    await clock.advance(59_000);
    goOn();
    assertEquals(await client.readAll(), "slow\n");
    assertEquals((await t.closed()).reason, "end");
  }
});

for (const wayIn of ["line", "lines", "readable"]) {
  testOnce(`a handler of ${wayIn} gets all lines that came before TLS was cut off, however long it takes`, async () => {
    const clock = new FakeClock();
    const lines: string[] = [];
    const aWhile = () => new Promise<void>((resolve) => clock.setTimer(resolve, 1000));
    const take = (line: string) => (lines.push(line), aWhile());
    const options = {
      listener: await listenTls({ listener: listenLoopback(), ...IDENTITY }),
      clock,
      idleTimeout: Infinity,
    };
    await using t = wayIn === "line" ? startServer(options, take) : startConversations(options, async (conn) => {
      if (wayIn === "lines") { for await (const line of conn.lines) await take(line); }
      else {
        await aWhile();
        for await (const bytes of conn.readable) {
          lines.push(...new TextDecoder().decode(bytes).split("\n").slice(0, -1));
        }
      }
    });
    const socket = net.connect(t.port, "127.0.0.1");
    const client = tls.connect({ socket, ca: AUTHORITY.cert, servername: "localhost" });
    client.on("error", () => {});
    await once(client, "secureConnect");
    await t.until("accepted");
    await new Promise((resolve) => client.write("one\ntwo\nthree\nfour\nfi", resolve));
    // The socket ends, and TLS does not.
    socket.end();
    const closed = t.closed();
    for (let done = false; !done; closed.then(() => done = true)) {
      await clock.advance(100);
      await turn();
    }
    assertEquals([lines, (await closed).reason], [["one", "two", "three", "four"], "reset"]);
    socket.destroy();
  });
}

testOnce("reading ahead for a handler keeps to the pace", async () => {
  const { listener, clock } = inMemory();
  const goOn = Promise.withResolvers<void>();
  const options = { listener, clock, idleTimeout: Infinity, maxBytesPerSecond: 100 };
  await using t = startServer(options, async (line) => (await goOn.promise, line));
  const client = await t.admitted();
  await client.write("first\n" + "y".repeat(10_000) + "\n");
  await clock.advance(10_000);
  const { bytesIn } = t.stats;
  assertGreaterOrEqual(1300, bytesIn);
  goOn.resolve();
});

testOnce(
  "a connection that was read ahead of its handler starts a new idle clock when it waits for the peer",
  async () => {
    const clock = new FakeClock();
    const listener = new MemoryListener();
    const goOn = Promise.withResolvers<void>();
    await using t = startServer({ listener, clock, idleTimeout: 1000 }, async (line) => (await goOn.promise, line));
    const client = await t.admitted();
    await client.write("slow\n");
    await clock.advance(60_000);
    goOn.resolve();
    assertEquals(await client.readLine(), "slow");
    await clock.advance(999);
    assertEquals(t.all("closed"), []);
    await clock.advance(1);
    assertEquals((await t.closed()).reason, "idle");
  },
);

testOnce("a peer whose first byte was read ahead of the handler meets firstLineTimeout no longer", async () => {
  const { listener, clock } = inMemory();
  const goOn = Promise.withResolvers<void>();
  const options = { listener, clock, firstLineTimeout: 1000, idleTimeout: Infinity, lineTimeout: 5000 };
  await using t = startConversations(options, async (conn) => {
    await goOn.promise;
    await conn.readLine();
  });
  const client = await t.admitted();
  await client.write("begun");
  await clock.advance(500);
  goOn.resolve();
  await clock.advance(4999);
  assertEquals(t.all("closed"), []);
  await clock.advance(1);
  assertEquals(await client.readAll(), "");
  client.close();
  assertEquals((await t.closed()).reason, "line-timeout");
});

testOnce("bytes that were read ahead while the reader waited for a turn are not read once more", async () => {
  const { listener, clock } = inMemory();
  const got: string[] = [];
  const goOn = Promise.withResolvers<void>();
  await using t = startConversations({ listener, clock, idleTimeout: Infinity }, async (conn) => {
    for await (const line of conn.lines) {
      got.push(line);
      if (got.length === 1) await goOn.promise;
      // This read has filled its buffer, so the reader waits for a turn before the next one.
      if (got.length === 128) {
        while (TURNS.take(TURN_BYTES) === undefined);
        client.write("and more\n");
      }
    }
  });
  const client = await t.admitted();
  await client.write("x\n".repeat(128));
  await clock.advance(250);
  goOn.resolve();
  for (let turns = 0; turns < 10 && got.length < 129; turns++) await turn();
  assertEquals(got.at(-1), "and more");
});
