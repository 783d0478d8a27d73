import { assertEquals, assertGreater, assertLess, assertMatch, assertRejects } from "@std/assert";
import { type Clock, type Conn, connect, serve, serveConnections, type Server } from "@x/shouty";
import { FakeClock, MemoryListener, TestClient } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";

function inMemory(): { clock: FakeClock; listener: MemoryListener } {
  return { clock: new FakeClock(), listener: new MemoryListener() };
}

/** Connects clients that read until the server ends its side, and then end theirs. */
function connectReaders(listener: MemoryListener, count: number): TestClient[] {
  return Array.from({ length: count }, () => {
    const client = listener.connect();
    readToEnd(client).catch(() => {}).finally(() => client[Symbol.dispose]());
    return client;
  });
}

async function readToEnd(client: TestClient): Promise<void> {
  while (await client.read() !== null);
}

/** Ends all connections, so that the server needs no time to shut down. */
async function end(server: Server, clients: TestClient[]): Promise<void> {
  for (const client of clients) client[Symbol.dispose]();
  await server.shutdown();
}

test("a FakeClock moves when all clients are accepted, although one turn accepts only some of them", async () => {
  const { clock, listener } = inMemory();
  const server = serve({ listener, clock, firstLineTimeout: 1000 });
  const clients = connectReaders(listener, 300);
  await clock.advance(1000);
  const { accepted, active, closed } = server.stats();
  await end(server, clients);
  assertEquals([accepted, active, closed["first-line-timeout"]], [300, 0, 300]);
});

test("a FakeClock moves when the server has rejected all clients for which it has no room", async () => {
  const { clock, listener } = inMemory();
  const server = serve({ listener, clock, maxConnections: 50 });
  const clients = connectReaders(listener, 100);
  await clock.advance(0);
  const { active, rejected } = server.stats();
  await end(server, clients);
  assertEquals([active, rejected], [50, 50]);
});

test("a FakeClock moves when all lines are answered, although one turn answers only some of them", async () => {
  const { clock, listener } = inMemory();
  let lines = 0;
  await using _server = serve({ listener, clock }, () => void lines++);
  using client = listener.connect();
  await client.write("x\n".repeat(20_000));
  await clock.advance(0);
  assertEquals(lines, 20_000);
});

test("a FakeClock moves when a line has passed all relays, each of which writes at the end of its round", async () => {
  const { clock, listener } = inMemory();
  const [servers, ups]: [Server[], Conn[]] = [[], []];
  let target = listener;
  for (let relays = 0; relays < 8; relays++) {
    const next = new MemoryListener();
    const up = await connect({ dial: () => next.dial(), clock });
    servers.push(serve({ listener: target, clock }, (line) => void up.write(`${line}\n`)));
    ups.push(up);
    target = next;
  }
  const [first, last] = [listener.connect(), new TestClient(await target.accept())];
  let text = "";
  const reading = (async () => {
    for (let line = await last.readLine(); line !== null; line = await last.readLine()) text += `${line} `;
  })();
  for (const line of ["one", "two", "three"]) {
    await first.write(`${line}\n`);
    await clock.advance(0);
  }
  const seen = text;
  first.close();
  for (const up of ups) up.close();
  await reading;
  last.close();
  for (const server of servers) await server.shutdown();
  assertEquals(seen, "one two three ");
});

test("a drain that is spread over a second is half done after half of it on a FakeClock", async () => {
  const { clock, listener } = inMemory();
  const server = serve({ listener, clock, drain: "finish", drainSpread: 1000 });
  connectReaders(listener, 100);
  await clock.advance(0);
  const down = server.shutdown();
  await clock.advance(500);
  const half = server.stats().active;
  await clock.advance(500);
  assertEquals([server.stats().active, await down], [0, {
    closed: { drained: 100 },
    handlersLeft: 0,
    durationMs: 1000,
  }]);
  assertGreater(half, 0);
  assertLess(half, 100);
});

test("a connection on a FakeClock ends at its maxAge, and not when the time has moved on", async () => {
  const { clock, listener } = inMemory();
  const ages: number[] = [];
  await using _server = serve({
    listener,
    clock,
    maxAge: 1000,
    onEvent: (event) => event.type === "closed" && ages.push(event.durationMs),
  });
  connectReaders(listener, 1);
  await clock.advance(20_000);
  assertEquals(ages.length, 1);
  assertLess(ages[0], 1101);
});

test("a FakeClock moves although a client writes for ever, and although a handler does", async () => {
  for (const endless of ["client", "handler"]) {
    const { clock, listener } = inMemory();
    const server = serveConnections({ listener, clock, drainTimeout: 1 }, async (conn) => {
      if (endless === "client") { for await (const _line of conn.lines); }
      for (;;) await conn.write("from the handler\n".repeat(1000));
    });
    let over = false;
    const client = listener.connect();
    const writing = (async () => {
      while (!over && endless === "client") await client.write("from the client\n".repeat(1000));
    })();
    const reading = (async () => {
      while (!over && await client.read() !== null);
    })();
    const rung: number[] = [];
    for (const at of [10, 20]) clock.setTimer(() => rung.push(clock.now()), at);
    await clock.advance(30);
    assertEquals([rung, clock.now()], [[10, 20], 30]);
    over = true;
    client.reset();
    await Promise.allSettled([writing, reading]);
    await server.shutdown();
  }
});

test("a FakeClock waits for connections in memory although a server on sockets is never idle", async () => {
  await using busy = serve({ hostname: "127.0.0.1", port: 0 }, () => {});
  const socket = new TestClient(await Deno.connect({ hostname: "127.0.0.1", port: (busy.addr as Deno.NetAddr).port }));
  let over = false;
  const flooding = (async () => {
    while (!over) await socket.write("x\n".repeat(20_000));
  })();
  while (busy.stats().lines < 100_000) await new Promise((resolve) => setTimeout(resolve, 0));
  const { clock, listener } = inMemory();
  const server = serve({ listener, clock, firstLineTimeout: 1000 });
  const clients = connectReaders(listener, 100);
  await clock.advance(1000);
  const { closed } = server.stats();
  over = true;
  await flooding;
  socket.close();
  await end(server, clients);
  assertEquals(closed["first-line-timeout"], 100);
});

test("the waits of one FakeClock are no work for another", async () => {
  const { clock, listener } = inMemory();
  const server = serve({ listener, clock });
  const clients = connectReaders(listener, 300);
  const others = Array.from({ length: 10 }, () => new FakeClock());
  let rounds = 0;
  let over = false;
  (async () => {
    for (; !over; rounds++) await new Promise((resolve) => setTimeout(resolve, 0));
  })();
  await Promise.all([clock, ...others].map((each) => each.advance(0)));
  over = true;
  const { accepted } = server.stats();
  await end(server, clients);
  assertEquals(accepted, 300);
  assertLess(rounds, 100);
});

test("a FakeClock is called like any Clock, with three arguments", async () => {
  const clock = new FakeClock();
  const rung: string[] = [];
  clock.setTimer(() => rung.push("for ever"), 5, true);
  const same: Clock = clock;
  same.setTimer(() => rung.push("meanwhile"), 5, false);
  await clock.advance(5);
  assertEquals(rung, ["for ever", "meanwhile"]);
});

test("FakeClock calls timers in the order of their times, even those that are set on the way", async () => {
  const clock = new FakeClock();
  const rung: string[] = [];
  const ring = (name: string) => rung.push(`${name} at ${clock.now()}`);
  clock.setTimer(() => ring("late"), 30);
  clock.setTimer(() => {
    ring("early");
    clock.setTimer(() => ring("new"), 10);
  }, 10);
  clock.setTimer(() => ring("called off"), 5)();
  assertEquals(clock.pending, 2);
  await clock.advance(25);
  assertEquals([rung, clock.now(), clock.pending], [["early at 10", "new at 20"], 25, 1]);
  await clock.advance(5);
  assertEquals(rung.at(-1), "late at 30");
});

test("FakeClock lets what is ready run before it moves", async () => {
  const clock = new FakeClock();
  let called = false;
  Promise.resolve().then(() => Promise.resolve()).then(() => clock.setTimer(() => called = true, 10));
  await clock.advance(10);
  assertEquals(called, true);
});

test("FakeClock adds up the times of calls that come side by side", async () => {
  const clock = new FakeClock();
  const rung: number[] = [];
  for (const at of [5, 15, 35]) clock.setTimer(() => rung.push(at, clock.now()), at);
  await Promise.all([clock.advance(10), clock.advance(20), clock.advance(0)]);
  assertEquals([rung, clock.now()], [[5, 5, 15, 15], 30]);
});

test("FakeClock moves on after a timer whose callback threw", async () => {
  const clock = new FakeClock();
  clock.setTimer(() => {
    throw new Error("rung in vain");
  }, 10);
  const [first] = await Promise.allSettled([clock.advance(20), clock.advance(20)]);
  assertEquals([first.status, clock.now()], ["rejected", 30]);
});

test("FakeClock does not go back", async () => {
  const clock = new FakeClock();
  await clock.advance(10);
  for (const wrong of [-5, NaN, Infinity, "10", undefined]) {
    const error = await assertRejects(() => clock.advance(wrong as number), RangeError);
    assertMatch(error.message, /^Cannot advance by .+ ms: expected a finite number of at least 0$/);
  }
  assertEquals(clock.now(), 10);
});

test("the time of a FakeClock never goes back, also for a timer that was due before it was set", async () => {
  const clock = new FakeClock();
  const seen: number[] = [];
  await clock.advance(10);
  clock.setTimer(() => seen.push(clock.now()), -5);
  await clock.advance(1);
  assertEquals([seen, clock.now()], [[10], 11]);
});
