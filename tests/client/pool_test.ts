import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { connect, connectPool, type PoolEvent, type PoolOptions } from "@x/shouty";
import { FakeClock, MemoryListener, TestClient } from "@x/shouty/testing";
import { test, testOnce } from "../kit/bounded.ts";
import { fakeCredentials } from "../kit/fakes/fake_tls.ts";
import { shouting, TestPool } from "../kit/pool.ts";
import { startConversations, startServer } from "../kit/server.ts";

test("a pool keeps as many connections open as it was told, and opens each again that has ended", async () => {
  await using upstream = startConversations({}, async (conn) => {
    await conn.write("hello\n");
    await conn.readLine();
    await conn.readLine();
  });
  let opened = 0;
  const again = Promise.withResolvers<void>();
  const onEvent = ({ type }: PoolEvent) => type === "accepted" && ++opened === 4 && again.resolve();
  const options = { port: upstream.port, size: 3, minBackoff: 5, drainTimeout: 50, onEvent };
  await using pool = connectPool(options, shouting);
  await upstream.until("accepted", 3);
  const [first] = upstream.server.connections;
  await first.write("bye\n");
  first.close();
  await again.promise;
  assertEquals([pool.stats().active, pool.state], [3, "listening"]);
});

testOnce("a handler that throws ends its connection alone, and nothing is told to the other side", async () => {
  await using t = new TestPool({ size: 2 }, async (conn) => {
    if (await conn.readLine() === "fail") throw new Error("on purpose");
    await conn.readLine();
  });
  await t.clock.advance(0);
  await t.peers[0].write("fail\n");
  assertEquals(await t.peers[0].readAll(), "");
  t.peers[0].close();
  await t.clock.advance(200);
  assertEquals([t.all("handler-error").length, t.pool.stats().active, t.peers.length], [1, 2, 3]);
  assertEquals(t.all("closed").map(({ reason }) => reason), ["handler-error"]);
});

testOnce("at a limit nothing is told to the other side, and a handler cannot begin TLS as a server", async () => {
  const refused = Promise.withResolvers<unknown>();
  await using t = new TestPool({ maxLineBytes: 5 }, async (conn) => {
    refused.resolve(await conn.startTls(fakeCredentials()).catch((error) => error));
    await conn.readLine();
  });
  await t.clock.advance(0);
  assertEquals(
    `${await refused.promise}`,
    "TypeError: Cannot begin TLS: this side is the client, which has the option tls",
  );
  await t.peers[0].write("too long\n");
  assertEquals(await t.peers[0].readAll(), "");
  t.peers[0].close();
  while (t.all("closed").length === 0) await t.clock.advance(10);
  assertEquals(t.all("closed")[0].reason, "line-too-long");
});

testOnce("events are those of a server, without one for listening", async () => {
  const t = new TestPool({}, shouting);
  await t.clock.advance(0);
  t.peers[0].close();
  const stopped = t.pool.shutdown();
  await t.clock.advance(10_000);
  await stopped;
  assertEquals(t.events.map(({ type }) => type), ["accepted", "draining", "closed", "stopped"]);
  assertEquals(t.pool.state, "closed");
  await t.pool.finished;
});

testOnce("a paused pool opens no connection, and counts one that was being opened as queued", async () => {
  await using t = new TestPool({ size: 2 }, shouting);
  await t.clock.advance(0);
  t.pool.pause();
  t.pool.pause();
  for (const peer of t.peers) peer.close();
  await t.clock.advance(60_000);
  assertEquals([t.dialled.length, t.pool.stats().active, t.pool.stats().queued], [2, 0, 0]);
  t.pool.resume();
  await t.clock.advance(0);
  assertEquals([t.dialled.length, t.pool.stats().active], [4, 2]);
  t.pool.pause();
  for (const peer of t.peers.slice(2)) peer.close();
  await t.clock.advance(0);
  const stopped = t.pool.shutdown();
  await t.clock.advance(0);
  assertEquals((await stopped).closed, {});
});

testOnce("connections of a pool for which there is no room any more are queued", async () => {
  await using t = new TestPool({ size: 2 }, shouting);
  await t.clock.advance(0);
  t.pool.setLimits({ maxConnections: 1 });
  for (const peer of t.peers) peer.close();
  await t.clock.advance(500);
  const { active, queued, connecting } = t.pool.stats();
  assertEquals([t.dialled.length, active, queued, connecting], [4, 1, 1, 0]);
});

testOnce("a pool broadcasts over its connections, and lists them", async () => {
  await using t = new TestPool({ size: 2 }, shouting);
  await t.clock.advance(0);
  const [one] = t.pool.connections;
  one.write("to one\n");
  t.pool.broadcast("to all others\n", { except: one });
  const lines = await Promise.all(t.peers.map((peer) => peer.readLine()));
  assertEquals(lines.toSorted(), ["to all others", "to one"]);
  assertEquals([...t.pool.connections].length, 2);
});

testOnce("wrong options of a pool are named, and nothing is opened", () => {
  const dial = () => {
    throw new Error("dialled");
  };
  const wrong: [PoolOptions, string][] = [
    [{ dial, size: 0 }, "Cannot use size 0: expected a whole number from 1 to 10000"],
    [{ dial, minBackoff: 0 }, "Cannot use minBackoff 0: expected more than 0"],
    [{ dial, minBackoff: 5n as never }, "Cannot use minBackoff 5n: expected a number"],
    [{ dial, maxBackoff: Infinity }, "Cannot use maxBackoff Infinity: expected a number of milliseconds"],
    [
      { dial, minBackoff: 50, maxBackoff: 10 },
      "Cannot use maxBackoff 10: expected at least minBackoff, which is 50 ms",
    ],
    [{ dial, drain: "never" as never }, 'Cannot use drain "never"'],
    [{ dial, onEvent: 1 as never }, "Cannot use onEvent: expected a function, got 1"],
    [{ port: 1, tls: { alpnProtocols: "h2" as never } }, 'Cannot use alpnProtocols: expected an array, got "h2"'],
    [{ port: 1, tls: { alpnProtocols: [] } }, "Cannot use alpnProtocols: expected at least one protocol"],
    [
      { port: 1, tls: { caCerts: 3 as never } },
      "Cannot use caCerts: expected text in PEM, or an array of such texts, got 3",
    ],
    [{ port: 1, tls: { caCerts: [] } }, "Cannot use caCerts: expected text in PEM, or an array of such texts"],
    [{ port: 1, tls: { cert: 5 as never } }, "Cannot use tls.cert: expected a string, got 5"],
    [{ port: 1, tls: { key: 5 as never } }, "Cannot use tls.key: expected a string, got 5"],
    [{}, "Cannot connect: expected one of port, path and dial, got none of them"],
  ];
  for (const [options, message] of wrong) {
    const error = assertThrows(() => connectPool(options, shouting)) as Error;
    assertEquals(error.message.slice(0, message.length), message);
  }
  assertThrows(() => connectPool({ dial }, undefined as never), TypeError, "Cannot use handler");
  assertThrows(() => connectPool(undefined as never, shouting), TypeError, "Cannot use connectPool options");
});

test("lines go over a pool to a server and back", async () => {
  await using upstream = startServer();
  const jobs = Array.from({ length: 100 }, (_, i) => `job ${i}`);
  const results: string[] = [];
  const done = Promise.withResolvers<void>();
  await using _pool = connectPool({ port: upstream.port, size: 4, drainTimeout: 50 }, async (conn) => {
    for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) {
      await conn.write(`${job}\n`);
      results.push((await conn.readLine())!);
    }
    if (results.length === 100) done.resolve();
  });
  await done.promise;
  assertEquals(new Set(results).size, 100);
});

testOnce("what dial returns has to be a transport", async () => {
  const dial = () => ({}) as never;
  const message = "Cannot use what dial returned: expected a transport, got an object without the method read";
  await assertRejects(() => connect({ dial }), TypeError, message);
  const clock = new FakeClock();
  const events: PoolEvent[] = [];
  const pool = connectPool({ dial, clock, onEvent: (event) => events.push(event) }, shouting);
  await clock.advance(0);
  assertEquals(events.map((event) => event.type === "connect-error" && (event.error as Error).message), [message]);
  await pool.shutdown();
});

testOnce("maxAge of a pool loses no answer that is waited for as a part of a message", async () => {
  const [listener, clock] = [new MemoryListener(), new FakeClock()];
  const answers: (string | null)[] = [];
  const pool = connectPool({ dial: () => listener.dial(), clock, maxAge: 5000 }, async (conn) => {
    await conn.write("question\n");
    answers.push(await conn.readLine({ boundary: false }));
    assertEquals(conn.finishing.reason, "max-age");
  });
  const peer = new TestClient(await listener.accept());
  assertEquals(await peer.readLine(), "question");
  await clock.advance(6000);
  await peer.write("answer\n");
  assertEquals(await peer.readAll(), "");
  peer.close();
  await pool.shutdown();
  assertEquals(answers, ["answer"]);
});
