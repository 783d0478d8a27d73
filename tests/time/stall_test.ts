import { assertEquals } from "@std/assert";
import { type Clock, connect } from "@x/shouty";
import { setDeadline } from "../../internal/time/alarms.ts";
import { socketsTurn, socketsTurns } from "../../internal/time/event_loop.ts";
import { test, testOnce } from "../kit/bounded.ts";
import { proxyProtocol } from "@x/shouty/ops";
import { listenLoopback, startServer } from "../kit/server.ts";

// Found by `deno task chaos`: a process that gets no time for idleTimeout closed all of its clients at once.
test("a process that was held up reads from its clients before it takes them for silent", async () => {
  let now = 0;
  let ring = () => {};
  const clock: Clock = { now: () => now, setTimer: (callback) => (ring = callback, () => {}) };
  await using t = startServer({ clock, idleTimeout: 200 });
  const clients = await Promise.all(Array.from({ length: 20 }, () => t.admitted()));
  for (const client of clients) {
    await client.write("before\n");
    assertEquals(await client.readLine(), "BEFORE");
  }
  await Promise.all(clients.map((client) => client.write("meanwhile\n")));
  // As after ten seconds in which the process did not run: its timer expires before the sockets have been read.
  now = 10_000;
  ring();
  for (const client of clients) assertEquals(await client.readLine(), "MEANWHILE");
  now += 200;
  ring();
  await t.closed(clients.length);
  assertEquals(t.stats.closed.idle, clients.length);
});

/** What limits the time of a PROXY header. */
const LIMITS = {
  "takes its connection for late": { headerTimeout: 200 },
  "makes room for others": { headerTimeout: 60_000, maxPending: 20 },
};

for (const [what, limits] of Object.entries(LIMITS)) {
  test(`A process that was held up reads a PROXY header that has come before it ${what}`, async () => {
    let now = 0;
    const rings: (() => void)[] = [];
    const clock: Clock = { now: () => now, setTimer: (callback) => (rings.push(callback), () => {}) };
    const listener = proxyProtocol(listenLoopback(), { from: ["127.0.0.1"], clock, ...limits });
    await using t = startServer({ listener });
    const clients = await Promise.all(Array.from({ length: 20 }, () => t.connect()));
    while (t.stats.queued < clients.length) await new Promise((resolve) => setTimeout(resolve, 0));
    await socketsTurn();
    await Promise.all(clients.map((client) => client.write("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nhello\n")));
    // As after ten seconds in which the process did not run: its timers expire before the sockets have been read.
    now = 10_000;
    for (const ring of rings.splice(0)) ring();
    assertEquals(await Promise.all(clients.map((client) => client.readLine())), clients.map(() => "HELLO"));
  });
}

/** A clock whose timers all expire when the process goes on after a time in which it did not run. */
function heldUpClock(): Clock & { readonly delays: number[]; goOn(): void } {
  let now = 0;
  const rings = new Map<() => void, number>();
  return {
    now: () => now,
    setTimer: (callback, delay) => (rings.set(callback, delay), () => void rings.delete(callback)),
    get delays() {
      return [...rings.values()];
    },
    goOn() {
      now += 10_000;
      for (const ring of Array.from(rings.keys())) rings.delete(ring), ring();
    },
  };
}

test("a process that was held up sees that its connect was answered before it gives it up", async () => {
  await using t = startServer();
  const clock = heldUpClock();
  const connecting = connect({ port: t.port, connectTimeout: 200, clock });
  // Its timer is set before the event loop goes round.
  while (clock.delays.length === 0) await Promise.resolve();
  clock.goOn();
  await using conn = await connecting;
  await conn.write("hello\n");
  assertEquals(await conn.readLine(), "HELLO");
});

test("a process that was held up reads what admit waits for before it takes the decision for late", async () => {
  await using list = startServer();
  const clock = heldUpClock();
  const asked = Promise.withResolvers<void>();
  const admit = async () => {
    await using conn = await connect({ port: list.port });
    const answer = conn.readLine();
    await conn.write("yes\n");
    await conn.flushed();
    asked.resolve();
    return await answer === "YES";
  };
  await using t = startServer({ clock, admit, admitTimeout: 200 });
  const client = await t.connect();
  await client.write("hello\n");
  await asked.promise;
  clock.goOn();
  assertEquals(await client.readLine(), "HELLO");
});

test("a process that was held up reads from its clients before the deadline of a drain ends them", async () => {
  const clock = heldUpClock();
  await using t = startServer({ clock, idleTimeout: 5000 });
  const clients = await Promise.all(Array.from({ length: 20 }, () => t.admitted()));
  const stopped = t.server.shutdown({ drain: "linger", drainTimeout: 200 });
  await Promise.all(clients.map((client) => client.write("meanwhile\n")));
  clock.goOn();
  assertEquals(await Promise.all(clients.map((client) => client.readLine())), clients.map(() => "MEANWHILE"));
  assertEquals((await stopped).closed, { "drain-timeout": 20 });
});

testOnce(
  "a late deadline waits for the sockets at most as long as it was late: a busy process would take seconds",
  async () => {
    const clock = heldUpClock();
    let expired = 0;
    setDeadline(clock, () => expired++, 200);
    clock.goOn();
    assertEquals([expired, clock.delays], [0, [9800]]);
    clock.goOn();
    assertEquals([expired, clock.delays], [1, []]);
    await socketsTurns(0);
    assertEquals(expired, 1);
  },
);

testOnce(
  "a deadline that is taken back while it waits for the sockets does not expire, and leaves no timer",
  async () => {
    const clock = heldUpClock();
    let expired = 0;
    const takeBack = setDeadline(clock, () => expired++, 200);
    clock.goOn();
    takeBack();
    assertEquals(clock.delays, []);
    await socketsTurns(0);
    assertEquals(expired, 0);
  },
);
