import { assertEquals } from "@std/assert";
import type { Conn } from "@x/shouty";
import { testOnce } from "../../kit/bounded.ts";
import { inMemory, startConversations, startServer } from "../../kit/server.ts";
import { startWaiting, untilAborted } from "../../kit/working_handlers.ts";

testOnce(
  "halfCloseTimeout ends a handler that goes on after its peer's end, and each write starts it anew",
  async () => {
    const { listener, clock } = inMemory();
    const push = Promise.withResolvers<Conn>();
    await using t = startConversations(
      { listener, clock, idleTimeout: Infinity, halfCloseTimeout: 1000 },
      async (conn) => {
        for await (const _ of conn.lines);
        push.resolve(conn);
        await untilAborted(conn);
      },
    );
    const client = await t.admitted();
    await client.closeWrite();
    const conn = await push.promise;
    for (let i = 0; i < 5; i++) {
      await clock.advance(900);
      conn.write(`${i}\n`);
      assertEquals(await client.readLine(), `${i}`);
    }
    await clock.advance(999);
    assertEquals(t.all("closed"), []);
    await clock.advance(1);
    assertEquals((await t.closed()).reason, "handler-timeout");
  },
);

testOnce("halfCloseTimeout counts from the moment at which the end is noticed while a line handler works", async () => {
  const { t, clock } = startWaiting({ halfCloseTimeout: 5000 });
  await using _ = t;
  const client = await t.admitted();
  await client.write("slow\n");
  await clock.advance(20_000);
  await client.closeWrite();
  await clock.advance(4999);
  assertEquals(t.all("closed"), []);
  await clock.advance(1);
  // The handler has one more second to write.
  await clock.advance(1000);
  assertEquals((await t.closed()).reason, "handler-timeout");
});

testOnce("the shorter one of handlerTimeout and halfCloseTimeout holds once the peer has ended its side", async () => {
  for (const [handlerTimeout, halfCloseTimeout] of [[3000, 5000], [5000, 3000]]) {
    const { t, clock } = startWaiting({ handlerTimeout, halfCloseTimeout });
    await using _ = t;
    const client = await t.admitted();
    await client.write("slow\n");
    await client.closeWrite();
    // The end is noticed after a quarter of a second, and starts the clock anew.
    await clock.advance(3249);
    assertEquals([...t.server.connections].map(({ ending }) => ending), [undefined]);
    await clock.advance(1);
    assertEquals([...t.server.connections].map(({ ending }) => ending), ["handler-timeout"]);
    await clock.advance(1000);
    assertEquals((await t.closed()).reason, "handler-timeout");
  }
});

testOnce("handlerTimeout bounds a line handler's answer to each line", async () => {
  const { listener, clock } = inMemory();
  let reply = (_: string) => {};
  await using t = startServer(
    { listener, clock, idleTimeout: 100, handlerTimeout: 1000 },
    () => new Promise<string>((resolve) => reply = resolve),
  );
  const client = await t.admitted();
  for (const line of ["one", "two"]) {
    await client.write(`${line}\n`);
    await clock.advance(999);
    reply(line);
    assertEquals(await client.readLine(), line);
  }
  await client.write("three\n");
  await clock.advance(999);
  assertEquals(t.all("closed"), []);
  await clock.advance(1);
  // The handler has one more second to write.
  await clock.advance(1000);
  assertEquals((await t.closed()).reason, "handler-timeout");
});

testOnce(
  "handlerTimeout lets a conversation read and write for as long as it likes, and wait for a slow peer",
  async () => {
    const { listener, clock } = inMemory({ bufferBytes: 100 });
    let goOn = () => {};
    const pause = () => new Promise<void>((resolve) => goOn = resolve);
    const options = { listener, clock, idleTimeout: Infinity, firstLineTimeout: Infinity, handlerTimeout: 1000 };
    await using t = startConversations(options, async (conn) => {
      for (let i = 0; i < 3; i++) await pause(), conn.write("tick\n");
      await conn.lines.next();
      await conn.write("x".repeat(100_000));
      await pause();
    });
    const client = await t.admitted();
    for (let i = 0; i < 3; i++) {
      await clock.advance(999);
      goOn();
      assertEquals(await client.readLine(), "tick");
    }
    // Now the handler waits for its peer, first for a line, and then for room to write.
    await clock.advance(60_000);
    await client.write("go\n");
    for (let left = 100_000; left > 0;) {
      await clock.advance(50);
      for (let count = 0; count < 5000 && left > 0;) {
        const { length } = (await client.read())!;
        count += length;
        left -= length;
      }
    }
    await clock.advance(0);
    assertEquals(t.all("closed"), []);
    await clock.advance(1000);
    // The handler has one more second to write.
    await clock.advance(1000);
    assertEquals((await t.closed()).reason, "handler-timeout");
  },
);

testOnce("each read of what has come already restarts the clock of handlerTimeout", async () => {
  const { listener, clock } = inMemory();
  const options = { listener, clock, idleTimeout: Infinity, handlerTimeout: 1000 };
  await using t = startConversations(options, async (conn) => {
    const work = () => new Promise<void>((resolve) => clock.setTimer(resolve, 600));
    for (let i = 0; i < 3; i++) await conn.readLine(), await work();
    for (let i = 0; i < 3; i++) await conn.readExactly(2), await work();
    for (let i = 0; i < 3; i++) await conn.readUntil("\n"), await work();
    await conn.write("done\n");
  });
  const client = await t.admitted();
  await client.write("x\n".repeat(9));
  await clock.advance(9 * 600);
  assertEquals(await client.readLine(), "done");
  client.close();
  assertEquals((await t.closed()).reason, "closed");
});

testOnce("maxAge ends a connection whose handler hangs, ten seconds later", async () => {
  for (const wayIn of ["line", "conversation"]) {
    const { t, clock } = startWaiting({ maxAge: 1000 }, wayIn);
    await using _ = t;
    await (await t.admitted()).write("slow\n");
    await clock.advance(10_899);
    assertEquals(t.all("closed"), []);
    await clock.advance(202);
    assertEquals((await t.closed()).reason, "max-age");
  }
});
