import { assertEquals, assertLess } from "@std/assert";
import { type PoolOptions, serve, type ServeOptions } from "@x/shouty";
import { FakeClock, MemoryListener, type TestClient } from "@x/shouty/testing";
import { Balancer, type BalancerOptions } from "../../../examples/balancer.ts";
import { turn } from "../../../internal/time/event_loop.ts";
import { test, testOnce } from "../../kit/bounded.ts";
import { refusingPort } from "../../kit/sockets/refusing_port.ts";
import { inMemory, TestServer } from "../../kit/server.ts";

/** An upstream in memory: the test itself. One connection to it is kept open. */
class Upstream {
  readonly #listener = new MemoryListener();
  readonly options: PoolOptions;
  readonly #ends: TestClient[] = [];
  readonly #opened = Promise.withResolvers<void>();
  #news = Promise.withResolvers<void>();

  constructor(clock: FakeClock) {
    const dial = async () => {
      await this.#opened.promise;
      this.#ends.push(this.#listener.connect());
      this.#news.resolve();
      this.#news = Promise.withResolvers();
      return this.#listener.accept();
    };
    this.options = { dial, clock, size: 1 };
  }

  /** Takes connections from now on. */
  open(): void {
    this.#opened.resolve();
  }

  /** Waits for its connections; returns the one of that number, from 0. */
  async end(index = 0): Promise<TestClient> {
    while (this.#ends.length <= index) await this.#news.promise;
    return this.#ends[index];
  }

  close(): void {
    for (const end of this.#ends) end[Symbol.dispose]();
  }
}

/** A balancer in memory, its upstreams, and a clock that moves them. */
class Lab implements AsyncDisposable {
  readonly clock = new FakeClock();
  readonly upstreams: Upstream[];
  readonly balancer: Balancer;
  readonly server: TestServer;

  constructor(count: number, options: Partial<BalancerOptions> = {}, serveOptions: ServeOptions = {}) {
    this.upstreams = Array.from({ length: count }, () => new Upstream(this.clock));
    this.balancer = new Balancer({ upstreams: this.upstreams.map(({ options }) => options), ...options });
    const { listener } = inMemory();
    this.server = new TestServer((rest) => this.balancer.serve(rest), { listener, clock: this.clock, ...serveOptions });
  }

  /** Connects a client, when the balancer uses a connection to each upstream. It uses them in the upstreams' order. */
  async open(): Promise<{ client: TestClient; ends: TestClient[] }> {
    const ends: TestClient[] = [];
    for (const [i, upstream] of this.upstreams.entries()) {
      upstream.open();
      ends.push(await upstream.end());
      // Each server and pool of this process waits for its turn to accept now and then.
      do await turn(); while (this.balancer.pools[i].stats().active === 0);
    }
    return { client: await this.server.connect(), ends };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const upstream of this.upstreams) upstream.close();
    await this.server[Symbol.asyncDispose]();
    const disposed = this.balancer[Symbol.asyncDispose]();
    await this.clock.advance(15_000);
    await disposed;
    for (const pool of this.balancer.pools) assertEquals(pool.stats().active, 0);
  }
}

testOnce("balancer gives a client its replies in the order of its lines, whichever comes first", async () => {
  await using lab = new Lab(2);
  const { client, ends: [one, two] } = await lab.open();
  await client.write("a\nb\nc\nd\n");
  assertEquals([await one.readLine(), await one.readLine()], ["a", "c"]);
  assertEquals([await two.readLine(), await two.readLine()], ["b", "d"]);
  await two.write("B\nD\n");
  await one.write("A\nC\n");
  for (const reply of "ABCD") assertEquals(await client.readLine(), reply);
});

testOnce("balancer says that a line is lost whose upstream breaks off, and sends it to no other", async () => {
  await using lab = new Lab(2);
  const { client, ends: [one, two] } = await lab.open();
  await client.write("a\nb\nc\n");
  assertEquals([await one.readLine(), await one.readLine(), await two.readLine()], ["a", "c", "b"]);
  await one.write("A\nhalf a rep");
  await one.closeWrite();
  await two.write("B\n");
  assertEquals([await client.readLine(), await client.readLine(), await client.readLine()], ["A", "B", "error: lost"]);
  await client.write("d\n");
  assertEquals(await two.readLine(), "d");
  await two.write("D\n");
  assertEquals(await client.readLine(), "D");
});

testOnce("balancer repeats a line with another upstream if it may, each reply once", async () => {
  await using lab = new Lab(2, { retry: true });
  const { client, ends: [one, two] } = await lab.open();
  await client.write("a\nb\nc\n");
  assertEquals([await one.readLine(), await one.readLine(), await two.readLine()], ["a", "c", "b"]);
  await one.write("A\n");
  await one.closeWrite();
  assertEquals(await two.readLine(), "c");
  await two.write("B\nC\n");
  assertEquals([await client.readLine(), await client.readLine(), await client.readLine()], ["A", "B", "C"]);
});

testOnce("balancer gives a line up after three connections have ended without a reply to it", async () => {
  await using lab = new Lab(1, { retry: true });
  const { client } = await lab.open();
  await client.write("poison\n");
  for (let tries = 0; tries < 3; tries++) {
    const end = await lab.upstreams[0].end(tries);
    assertEquals(await end.readLine(), "poison");
    end.reset();
    await lab.clock.advance(1000);
  }
  assertEquals(await client.readLine(), "error: lost");
});

testOnce("balancer waits for a reply for five seconds, however many lines follow", async () => {
  await using lab = new Lab(1);
  const { client, ends: [end] } = await lab.open();
  const clients = [client];
  for (let i = 0; i < 5; i++) {
    if (i > 0) clients.push(await lab.server.connect());
    await clients[i].write(`${i}\n`);
    assertEquals(await end.readLine(), `${i}`);
    await lab.clock.advance(i < 4 ? 1000 : 999);
  }
  assertEquals(lab.balancer.pools[0].stats().closed.deadline, 0);
  await lab.clock.advance(1);
  for (const client of clients) assertEquals(await client.readLine(), "error: lost");
});

testOnce("balancer gives each line its five seconds, if the replies before it come", async () => {
  await using lab = new Lab(1);
  const { client, ends: [end] } = await lab.open();
  await client.write("a\nb\nc\n");
  for (const line of "abc") {
    assertEquals(await end.readLine(), line);
    await lab.clock.advance(4000);
    await end.write(`${line}!\n`);
  }
  assertEquals([await client.readLine(), await client.readLine(), await client.readLine()], ["a!", "b!", "c!"]);
});

testOnce("balancer ends a connection that replies unasked, and no reply goes astray", async () => {
  await using lab = new Lab(1);
  const { client, ends: [end] } = await lab.open();
  await end.write("WHAT\n");
  assertEquals(await end.readAll(), "");
  end.close();
  await client.write("a\n");
  await lab.clock.advance(1000);
  const next = await lab.upstreams[0].end(1);
  assertEquals(await next.readLine(), "a");
  await next.write("A\n");
  assertEquals(await client.readLine(), "A");
});

testOnce("balancer renews a quiet connection before an upstream would end it", async () => {
  await using lab = new Lab(1);
  const { client, ends: [end] } = await lab.open();
  await lab.clock.advance(4999);
  assertEquals(lab.balancer.pools[0].stats().active, 1);
  await lab.clock.advance(1);
  assertEquals(await end.readAll(), "");
  await client.write("a\n");
  end.close();
  await lab.clock.advance(10);
  const next = await lab.upstreams[0].end(1);
  assertEquals(await next.readLine(), "a");
  await next.write("A\n");
  assertEquals(await client.readLine(), "A");
});

testOnce("balancer takes no more from a client than its upstreams answer", async () => {
  await using lab = new Lab(1);
  const { client, ends: [end] } = await lab.open();
  client.write("x\n".repeat(1_000_000)).catch(() => {});
  for (let i = 0; i < 64; i++) assertEquals(await end.readLine(), "x");
  await lab.clock.advance(100);
  assertLess(lab.server.stats.bytesIn, 300_000);
  assertEquals(lab.balancer.pools[0].stats().bytesOut, 128);
});

testOnce("balancer passes bytes on as they are, in both directions", async () => {
  await using lab = new Lab(1);
  const { client, ends: [end] } = await lab.open();
  const line = Uint8Array.of(0xef, 0xbb, 0xbf, 0xff, 0x00, 0x0d, 0xe2, 0x80, 0xa8, 0x0d, 0x0d, 0x0a);
  await client.write(line);
  assertEquals(await end.readBytes(line.length), line);
  await end.write(line);
  assertEquals(await client.readBytes(line.length), line);
  await client.write("\n");
  assertEquals(await end.readLine(), "");
  await end.write("\n");
  await client.write("no end");
  await client.closeWrite();
  assertEquals(await end.readLine(), "no end");
  await end.write("NO END\n");
  assertEquals(await client.readAll(), "\nNO END\n");
});

testOnce("balancer takes as many of the longest lines as a connection may owe", async () => {
  await using lab = new Lab(1);
  const { ends: [end] } = await lab.open();
  const clients = await Promise.all(Array.from({ length: 64 }, () => lab.server.connect()));
  const line = `${"x".repeat(65_536)}\n`;
  await Promise.all(clients.map((client) => client.write(line)));
  // Everything that the balancer has got waits for the upstream.
  while (lab.server.stats.lines < 64) await lab.clock.advance(1);
  for (let i = 0; i < 64; i++) assertEquals((await end.readLine())!.length, 65_536);
  const reply = "y".repeat(3 * 65_536);
  end.write(`${reply}\n`.repeat(64)).catch(() => {});
  for (const client of clients) assertEquals(await client.readLine(), reply);
});

test("balancer says so when no upstream can be reached in time, and uses one that comes later", async () => {
  const { promise: refusing, resolve } = Promise.withResolvers<void>();
  using nowhere = await refusingPort();
  await using upstream = new TestServer(serve, {});
  const dial = async () => {
    await refusing;
    return await Deno.connect({ port: upstream.port });
  };
  await using balancer = new Balancer({ upstreams: [{ port: nowhere.port }, { dial }], waitMs: 50 });
  await using t = new TestServer((options) => balancer.serve(options), {});
  const client = await t.connect();
  await client.write("one\ntwo\n");
  assertEquals([await client.readLine(), await client.readLine()], ["error: no upstream", "error: no upstream"]);
  resolve();
  for (let reply: string | null = ""; reply !== "THREE"; reply = await client.readLine()) await client.write("three\n");
});

testOnce("balancer answers what has come when it is shut down", async () => {
  await using lab = new Lab(1);
  const { client, ends: [end] } = await lab.open();
  await client.write("a\nb\n");
  assertEquals(await end.readLine(), "a");
  const stopped = lab.server.server.shutdown({ drainTimeout: Infinity });
  await end.write("A\nB\n");
  assertEquals(await client.readAll(), "A\nB\n");
  client.close();
  assertEquals((await stopped).closed, { drained: 1 });
});
