import { assertEquals } from "@std/assert";
import { connectPool, type ConnPool, type PoolEvent } from "@x/shouty";
import { FakeClock, MemoryListener, TestClient } from "@x/shouty/testing";
import { LONGEST_MS } from "../../internal/api/check.ts";
import { testOnce } from "../kit/bounded.ts";
import { withScript } from "../kit/sockets/epoll_peers.ts";
import { shouting, TestPool } from "../kit/pool.ts";
import { startConversations } from "../kit/server.ts";

testOnce("a shutdown leaves no connection open, at whatever moment of its opening", async () => {
  for (let steps = 0; steps < 40; steps++) {
    const t = new TestPool({ size: 3 }, shouting);
    for (let step = 0; step < steps; step++) await null;
    const stopped = t.pool.shutdown({ drainTimeout: 10 });
    await t.clock.advance(10);
    await stopped;
    await t.clock.advance(0);
    for (const peer of t.peers) {
      assertEquals(await peer.readLine().catch(() => null), null, `after ${steps} steps`);
      peer.close();
    }
    assertEquals(t.pool.stats().active, 0);
  }
});

testOnce("a shutdown with finish answers what has come, and opens nothing more", async () => {
  const t = new TestPool({ size: 2 }, shouting);
  await t.clock.advance(0);
  await t.peers[0].write("last\n");
  const stopped = t.pool.shutdown({ drain: "finish" });
  assertEquals(await t.peers[0].readAll(), "LAST!\n");
  assertEquals(await t.peers[1].readAll(), "");
  for (const peer of t.peers) peer.close();
  await t.clock.advance(0);
  assertEquals((await stopped).closed, { drained: 2 });
  await t.clock.advance(60_000);
  assertEquals([t.dialled.length, t.clock.pending], [2, 0]);
});

testOnce("a handler that waits for an answer with readUntil gets it in a shutdown with finish", async () => {
  const answers: unknown[] = [];
  const t = new TestPool({ size: 1 }, async (conn) => {
    while (!conn.finishing.aborted) {
      await conn.write("job\n");
      answers.push(new TextDecoder().decode(await conn.readUntil("\n") ?? undefined));
    }
  });
  await t.clock.advance(0);
  const stopped = t.pool.shutdown({ drain: "finish" });
  await t.clock.advance(1000);
  await t.peers[0].write("done\n");
  assertEquals(await t.peers[0].readAll(), "job\n");
  t.peers[0].close();
  await t.clock.advance(0);
  assertEquals([answers, Object.keys((await stopped).closed).length], [["done"], 1]);
});

testOnce("a shutdown ends the attempts and the pauses that are under way", async () => {
  const clock = new FakeClock();
  const dial = () => new Promise<never>(() => {});
  const types: string[] = [];
  const onEvent = ({ type }: PoolEvent) => types.push(type);
  const pool = connectPool({ dial, clock, size: 5, connectTimeout: 1000, onEvent }, shouting);
  await clock.advance(0);
  assertEquals(pool.stats().connecting, 5);
  assertEquals((await pool.shutdown()).closed, {});
  await clock.advance(0);
  assertEquals(types, ["draining", "stopped"], "What a shutdown has ended has not failed");
  const { connecting, connectErrors } = pool.stats();
  assertEquals([connecting, connectErrors, clock.pending], [0, 0, 0]);

  await using t = new TestPool({}, () => {});
  await t.clock.advance(0);
  t.failure = new Error("no");
  t.peers[0].close();
  while (t.all("connect-error").length === 0) await t.clock.advance(10);
  await t.pool.shutdown();
  await t.clock.advance(0);
  assertEquals(t.clock.pending, 0);
});

testOnce("a shutdown in onEvent, at an attempt that has failed, leaves no pause behind", async () => {
  const clock = new FakeClock();
  const dial = () => Promise.reject(new Error("no"));
  const onEvent = ({ type }: PoolEvent) => type === "connect-error" && pool.shutdown();
  const pool: ConnPool = connectPool({ dial, clock, onEvent }, shouting);
  await clock.advance(0);
  await pool.finished;
  assertEquals([pool.stats().connectErrors, clock.pending], [1, 0]);
});

testOnce("a signal shuts the pool down", async () => {
  const stop = new AbortController();
  const t = new TestPool({ signal: stop.signal }, shouting);
  await t.clock.advance(0);
  stop.abort();
  t.peers[0].close();
  await t.pool.finished;
  assertEquals(t.pool.state, "closed");
});

testOnce("a handler with a read pending beside its wait for a job learns that the server has ended", async () => {
  const job = Promise.withResolvers<void>();
  const seen: unknown[] = [];
  await using t = new TestPool({}, async (conn) => {
    const stop = new AbortController();
    const spoke = conn.readLine({ timeout: Infinity, signal: stop.signal }).then(() => true, () => false);
    await Promise.race([job.promise, spoke]);
    stop.abort("there is a job");
    if (await spoke) return void seen.push(conn.ending);
    await conn.write("job\n");
    seen.push(await conn.readLine());
  });
  await t.clock.advance(3_600_000);
  assertEquals([t.peers.length, t.pool.stats().active], [1, 1]);
  await t.peers[0].closeWrite();
  await t.clock.advance(2000);
  assertEquals([seen, t.peers.length, t.pool.stats().closed.end], [["end"], 2, 1]);
  job.resolve();
  assertEquals(await t.peers[1].readLine(), "job");
  await t.peers[1].write("done\n");
  await t.clock.advance(0);
  assertEquals(seen, ["end", "done"]);
});

testOnce(
  "a pool keeps the process alive until it is shut down, while its handler waits for something else",
  async () => {
    await using upstream = startConversations({}, async (conn) => void await conn.readLine());
    const script = `
    import { connectPool } from ${JSON.stringify(new URL("../../mod.ts", import.meta.url))};
    const pool = connectPool({ port: ${upstream.port} }, async () => {
      await new Promise((resolve) => Deno.unrefTimer(setTimeout(resolve, 100)));
      console.log("done");
      pool.shutdown();
    });
  `;
    await withScript(script, ["--allow-net"], async (process) => {
      assertEquals(await process.outcome(), { code: 0, stdout: "done\n", stderr: "" });
    });
  },
);

testOnce(
  "a paused pool without a connection keeps the process alive, as a server does, until it is unref'd",
  async () => {
    const clock = new CountingClock();
    const pool = connectPool({ dial: () => Promise.reject(new Error("no")), clock }, shouting);
    await clock.advance(0);
    pool.pause();
    await clock.advance(LONGEST_MS);
    assertEquals([pool.stats().connectErrors, pool.stats().connecting, clock.keepsAlive], [1, 0, true]);
    pool.unref();
    assertEquals(clock.keepsAlive, false);
    await pool.shutdown();
    assertEquals(clock.pending, 0);
  },
);

/** A clock that counts the timers that keep the process alive. */
class CountingClock extends FakeClock {
  readonly #kept = new Set<symbol>();

  get keepsAlive(): boolean {
    return this.#kept.size > 0;
  }

  override setTimer(callback: () => void, delay: number, keepAlive: boolean): () => void {
    const id = Symbol();
    if (keepAlive) this.#kept.add(id);
    const cancel = super.setTimer(() => (this.#kept.delete(id), callback()), delay);
    return () => (this.#kept.delete(id), cancel());
  }
}

testOnce(
  "unref() lets the process end while a pool waits for its next attempt, and ref() takes that back",
  async () => {
    const clock = new CountingClock();
    let attempts = 0;
    const dial = () => Promise.reject(new Error(`refused ${++attempts} times`));
    const pool = connectPool({ dial, clock }, shouting);
    await clock.advance(0);
    assertEquals([attempts, clock.keepsAlive], [1, true]);
    pool.unref();
    assertEquals(clock.keepsAlive, false);
    await clock.advance(100);
    assertEquals([attempts, clock.keepsAlive], [2, false], "It holds for later timers, too");
    pool.ref();
    assertEquals(clock.keepsAlive, true);
    await pool.shutdown();
  },
);

testOnce(
  "a shutdown of a pool ends a read with which a message begins, once those that have begun have come",
  async () => {
    const [listener, clock] = [new MemoryListener(), new FakeClock()];
    const got: string[] = [];
    const pool = connectPool({ dial: () => listener.dial(), clock }, async (conn) => {
      for (let message; (message = await conn.readUntil(";", { boundary: true })) !== null;) {
        got.push(new TextDecoder().decode(message));
      }
    });
    const peer = new TestClient(await listener.accept());
    await peer.write("one;two;thr");
    await clock.advance(0);
    const stopped = pool.shutdown({ drain: "finish" });
    await clock.advance(0);
    await peer.write("ee;");
    assertEquals(await peer.readAll(), "");
    peer.close();
    assertEquals([(await stopped).closed, got], [{ drained: 1 }, ["one", "two", "three"]]);
  },
);
