import { assertEquals, assertGreater, assertLess, assertRejects, assertThrows } from "@std/assert";
import { connect, connectPool, type ConnHandler, type ConnPool, type PoolEvent, type PoolOptions } from "@x/shouty";
import { FakeClock, MemoryListener, TestClient } from "@x/shouty/testing";
import { test, testOnce } from "../kit/bounded.ts";
import { withScript } from "../kit/sockets/epoll_peers.ts";
import { fakeCredentials } from "../kit/fakes/fake_tls.ts";
import { listenLoopback, startConversations, startServer } from "../kit/server.ts";

/** A pool whose connections are in memory, and what happened to it. */
class TestPool implements AsyncDisposable {
  readonly clock = new FakeClock();
  readonly #listener = new MemoryListener();
  readonly events: PoolEvent[] = [];
  /** The servers' ends of the connections, in the order in which they were opened. */
  readonly peers: TestClient[] = [];
  /** When each was asked for, in milliseconds. */
  readonly dialled: number[] = [];
  readonly pool: ConnPool;
  /** What the next attempts fail with. */
  failure: Error | undefined;

  constructor(options: PoolOptions, handler: ConnHandler) {
    const dial = async () => {
      this.dialled.push(this.clock.now());
      if (this.failure !== undefined) throw this.failure;
      const transport = await this.#listener.dial();
      this.peers.push(new TestClient(await this.#listener.accept()));
      return transport;
    };
    this.pool = connectPool(
      { dial, clock: this.clock, onEvent: (event) => this.events.push(event), ...options },
      handler,
    );
  }

  all<Type extends PoolEvent["type"]>(type: Type): Extract<PoolEvent, { type: Type }>[] {
    return this.events.filter((event) => event.type === type) as never;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const peer of this.peers) peer[Symbol.dispose]();
    const stopped = this.pool.shutdown({ drainTimeout: 10 });
    await this.clock.advance(2100);
    await stopped;
    const { accepted, active, closed, connecting } = this.pool.stats();
    assertEquals([active, connecting], [0, 0]);
    assertEquals(accepted, Object.values(closed).reduce((sum, count) => sum + count));
    assertEquals(this.all("accepted").length, this.all("closed").length);
  }
}

const NONSENSE = "Cannot use caCerts: there is no PEM certificate in it";

/** Shouts at the other side, until that ends. */
const shouting: ConnHandler = async (conn) => {
  for await (const line of conn.lines) await conn.write(`${line.toUpperCase()}!\n`);
};

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
