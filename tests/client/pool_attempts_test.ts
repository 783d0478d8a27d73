import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { connectPool, type PoolEvent } from "@x/shouty";
import { FakeClock } from "@x/shouty/testing";
import { test, testOnce } from "../kit/bounded.ts";
import { shouting, TestPool } from "../kit/pool.ts";
import { listenLoopback } from "../kit/server.ts";

const NONSENSE = "Cannot use caCerts: there is no PEM certificate in it";

testOnce("a target that accepts and closes at once is dialled with pauses that double up to the longest", async () => {
  await using t = new TestPool({ minBackoff: 100, maxBackoff: 800 }, () => {});
  for (let part = 0; part < 600; part++) {
    await t.clock.advance(50);
    for (const peer of t.peers.splice(0)) peer[Symbol.dispose]();
  }
  const pauses = t.dialled.slice(1).map((at, i) => at - t.dialled[i]);
  assertGreater(pauses.length, 25);
  const longest = [100, 200, 400, ...Array(pauses.length).fill(800)];
  for (const [i, pause] of pauses.entries()) {
    assertEquals(pause >= longest[i] / 2 && pause <= longest[i] + 150, true, `pause ${i} is ${pause} ms`);
  }
});

testOnce("a server that is first asked after a while has the whole time for its answer", async () => {
  await using t = new TestPool({ idleTimeout: 1000 }, shouting);
  await t.clock.advance(900);
  const [conn] = t.pool.connections;
  await conn.write("question\n");
  await t.clock.advance(900);
  assertEquals([t.pool.stats().active, t.dialled.length], [1, 1]);
});

testOnce("a connection that has lived for a second makes the pause the shortest again", async () => {
  await using t = new TestPool({ minBackoff: 100, maxBackoff: 10_000 }, shouting);
  const endAfter = async (life: number) => {
    const count = t.dialled.length;
    await t.clock.advance(life);
    const since = t.clock.now();
    t.peers.at(-1)!.close();
    while (t.dialled.length === count) await t.clock.advance(10);
    return t.clock.now() - since;
  };
  await t.clock.advance(0);
  for (let i = 0; i < 4; i++) await endAfter(10);
  assertGreater(await endAfter(900), 700);
  assertLess(await endAfter(1000), 130);
  assertLess(await endAfter(10), 230);
});

testOnce("a certificate that cannot be used is the error of the first attempt, which opens nothing", async () => {
  const failed = Promise.withResolvers<PoolEvent>();
  const tls = { serverName: "localhost", caCerts: "nonsense" };
  await using t = new TestPool({ tls, onEvent: failed.resolve }, shouting);
  const event = await failed.promise;
  assertEquals(event.type === "connect-error" && `${event.error}`, `TlsCredentialsError: ${NONSENSE}`);
  assertEquals(t.dialled, []);
});

testOnce("a failed attempt is an event and a number, and the pool tries again", async () => {
  await using t = new TestPool({ minBackoff: 100 }, shouting);
  t.failure = new Deno.errors.ConnectionRefused("nobody there");
  await t.clock.advance(0);
  t.peers[0]?.close();
  await t.clock.advance(400);
  const errors = t.all("connect-error");
  assertGreater(errors.length, 1);
  assertEquals([errors[0].error, errors[0].addr], [t.failure, undefined]);
  assertEquals(errors[0].retryMs > 0 && errors[0].retryMs <= 200, true);
  assertEquals(t.pool.stats().connectErrors, errors.length);
  t.failure = undefined;
  await t.clock.advance(10_000);
  assertEquals(t.pool.stats().active, 1);
});

testOnce("a dial that rejects with nothing is a failed attempt like any other", async () => {
  const clock = new FakeClock();
  const events: PoolEvent[] = [];
  const dial = () => Promise.reject<never>();
  const pool = connectPool({ dial, clock, onEvent: (event) => events.push(event) }, shouting);
  while (pool.stats().connectErrors === 0) await clock.advance(1);
  assertEquals(events.map(({ type }) => type), ["connect-error"]);
  await pool.shutdown();
});

test("a target that cannot be reached is named in the event", async () => {
  const listener = listenLoopback();
  const { port } = listener.addr as Deno.NetAddr;
  await listener.close();
  const failed = Promise.withResolvers<PoolEvent>();
  await using _pool = connectPool({ port, onEvent: failed.resolve }, shouting);
  const event = await failed.promise;
  if (event.type !== "connect-error") throw new Error(event.type);
  assertEquals([event.addr, event.error instanceof Deno.errors.ConnectionRefused], [
    { transport: "tcp", hostname: "127.0.0.1", port },
    true,
  ]);
});

testOnce("connections that end together are not all opened again together", async () => {
  await using t = new TestPool({ size: 20 }, shouting);
  await t.clock.advance(0);
  for (const peer of t.peers) peer.close();
  await t.clock.advance(200);
  const again = t.dialled.slice(20);
  assertEquals([again.length >= 20, new Set(again).size > 1], [true, true]);
});

testOnce("a connection that is aborted is opened again, too", async () => {
  await using t = new TestPool({}, async (conn) => {
    if (t.peers.length > 1) return void await conn.readLine();
    // What waits to be written makes the end a reset.
    conn.write(new Uint8Array(500_000));
    await conn.writable.abort();
  });
  await t.clock.advance(1000);
  assertEquals([t.all("closed").length, t.peers.length, t.pool.stats().active], [1, 2, 1]);
});
