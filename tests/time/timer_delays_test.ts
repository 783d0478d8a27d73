/** The timers that a server sets. */
import { assertEquals, assertGreater } from "@std/assert";
import { type Clock, serve, serveConnections } from "@x/shouty";
import { FakeClock, MemoryListener, type TestClient } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";

/** A clock that notes the delay of each timer. */
class NotingClock implements Clock {
  readonly fake: FakeClock = new FakeClock();
  readonly delays: number[] = [];

  now(): number {
    return this.fake.now();
  }

  setTimer(callback: () => void, delay: number): () => void {
    this.delays.push(delay);
    return this.fake.setTimer(callback, delay);
  }
}

test("no timer is set for ever, even if clocks are off and connections have to wait", async () => {
  const clock = new NotingClock();
  const listener = new MemoryListener();
  const off = { idleTimeout: Infinity, drainTimeout: Infinity, maxAge: Infinity, halfCloseTimeout: Infinity };
  const server = serve({ listener, clock, ...off, maxConnections: 1, atCapacity: "wait", acceptRate: 10 });
  const clients: TestClient[] = [listener.connect(), listener.connect()];
  await clients[0].write("first\n");
  assertEquals(await clients[0].readLine(), "FIRST");
  await clock.fake.advance(1000);
  clients[0].close();
  await clients[1].write("second\n");
  await clock.fake.advance(1000);
  assertEquals(await clients[1].readLine(), "SECOND");
  const stopped = server.shutdown();
  await clock.fake.advance(1000);
  clients[1].close();
  await stopped;
  assertGreater(clock.delays.length, 0);
  assertEquals(clock.delays.filter((delay) => !(delay >= 0 && delay < Infinity)), []);
});

test("no clock is asked for a longer time than one timer can wait, although a body may take months", async () => {
  const clock = new NotingClock();
  const listener = new MemoryListener();
  const limits = { idleTimeout: Infinity, firstLineTimeout: Infinity, minBytesPerSecond: 0.01, maxConnections: 1 };
  await using _server = serveConnections({ listener, clock, ...limits }, async (conn) => {
    await conn.readExactly(2 ** 20);
  });
  using client = listener.connect();
  await client.write("a".repeat(2 ** 16));
  await clock.fake.advance(10_000);
  assertGreater(Math.max(...clock.delays), 2 ** 29);
  assertEquals(clock.delays.filter((delay) => delay >= 2 ** 31), []);
});
