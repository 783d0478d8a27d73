import { assertEquals, assertRejects } from "@std/assert";
import type { Listener } from "@x/shouty";
import { proxyProtocol } from "@x/shouty/ops";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { AcceptRejection, harmless } from "../../../internal/api/errors.ts";
import type { ServerEvent } from "../../../internal/api/events.ts";
import { closeQuietly } from "../../../internal/api/transport.ts";
import { AskingListener } from "../../../ops/workers/worker/asking_listener.ts";
import { Balance } from "../../../ops/workers/supervision/balance.ts";
import { Loads, WorkerLoads } from "../../../ops/workers/shared/loads.ts";
import type { Supervisor } from "../../../ops/workers/supervision/supervisor.ts";
import { SharedAdmission } from "../../../ops/workers/shared_admission.ts";
import { TurnListener } from "../../../ops/workers/worker/turn_listener.ts";
import type { ToMain, ToWorker } from "../../../ops/workers/shared/wire.ts";
import { WorkerAdmission } from "../../../ops/workers/worker/worker_admission.ts";
import { test } from "../../kit/bounded.ts";

/** A worker as the balance sees it. */
function workerOf(index: number) {
  const sent: string[] = [];
  const worker = { state: "serving", index, send: (message: ToWorker) => void sent.push(message.type) };
  return Object.assign(worker as unknown as Supervisor, { sent });
}

/** Workers with these numbers of connections. */
function balanced(...loads: number[]) {
  const workers = loads.map((_, index) => workerOf(index));
  const clock = new FakeClock();
  const setTimer = (callback: () => void, delay: number, keepAlive?: boolean) => {
    assertEquals(keepAlive, false, "An unref'd server lets its process end");
    return clock.setTimer(callback, delay);
  };
  const balance = new Balance(workers, { now: () => clock.now(), setTimer });
  const have = (...loads: number[]) => {
    for (const [index, load] of loads.entries()) new WorkerLoads(balance.loads.cells, index).mayHaveMore(load);
    balance.update();
  };
  have(...loads);
  return { workers, clock, balance, have, enough: () => balance.loads.cells[0] };
}

/** Accepts as a server does, which tells of the connections that were rejected while they were prepared. */
async function acceptAll(listener: AskingListener, admission: WorkerAdmission): Promise<never> {
  while (true) {
    await listener.accept().catch((error) => {
      if (!(error instanceof AcceptRejection)) throw error;
      const { reason } = error;
      admission.saw({ type: reason === "gone" ? "gone" : "rejected", reason } as ServerEvent);
    });
  }
}

/** A worker's listener, with 20 connections that have come at once. */
async function asking(enough: number, wrap: (listener: Listener) => Listener = (listener) => listener) {
  const below = new MemoryListener();
  const clock = new FakeClock();
  const loads = new Loads(1);
  loads.enough = enough;
  const sent: ToMain[] = [];
  const admission = new WorkerAdmission(
    (message) => sent.push(message),
    new WorkerLoads(loads.cells, 0),
    {},
    undefined,
  );
  const wrapped = wrap(new TurnListener(below, admission));
  admission.queued = () => wrapped.queued ?? 0;
  const listener = new AskingListener(wrapped, admission);
  const clients = Array.from({ length: 20 }, () => below.connect());
  const accepting = harmless(acceptAll(listener, admission));
  await clock.advance(0);
  return {
    ...{ admission, loads, sent, clock, listener, clients, accepting },
    types: () => sent.map(({ type }) => type),
    [Symbol.dispose]: () => {
      closeQuietly(listener as { close(): void });
      for (const client of clients) client[Symbol.dispose]();
    },
  };
}

test("Of connections that come at once, a worker accepts those for which it is not ahead of others", async () => {
  using t = await asking(3);
  assertEquals(t.types(), ["ask", "ask", "ask", "ahead"]);
  t.loads.enough = 5;
  await t.clock.advance(0);
  assertEquals(t.types().length, 4, "It goes on when it is told");
  t.admission.goOn();
  await t.clock.advance(0);
  assertEquals(t.types().slice(4), ["ask", "ask", "ahead"]);
});

test("A listener that has its turn, and then not any more, accepts when it has it again", async () => {
  let [mayAccept, next] = [false, Promise.withResolvers<void>()];
  const turn = {
    get turn() {
      return mayAccept ? undefined : next.promise;
    },
  };
  const goOn = async () => {
    next.resolve();
    next = Promise.withResolvers();
    await new Promise((resolve) => setTimeout(resolve, 0));
  };
  const below = new MemoryListener();
  const listener = new TurnListener(below, turn);
  let accepted = false;
  const accepting = listener.accept().then((transport) => {
    accepted = true;
    closeQuietly(transport);
  });
  using _client = below.connect();
  for (let i = 0; i < 3; i++) await goOn();
  assertEquals(accepted, false);
  mayAccept = true;
  await goOn();
  await accepting;
  mayAccept = false;
  const waiting = listener.accept();
  listener.close();
  await assertRejects(() => waiting, Deno.errors.BadResource);
});

test("A connection that is rejected, refused or has ended leaves its place to the next", async () => {
  using t = await asking(4);
  const keys = t.sent.flatMap((message) => message.type === "ask" ? [message.key] : []);
  t.admission.answer(keys[0], { drop: true });
  t.admission.answer(keys[1], { reason: "max-connections", limit: 1 });
  for (const id of [2, 3]) t.admission.answer(keys[id], { id });
  await t.clock.advance(0);
  assertEquals(t.types().slice(5), ["ask", "ask", "ahead"]);
  t.admission.saw({ type: "closed", reason: "end" } as ServerEvent);
  t.admission.saw({ type: "rejected", reason: "refused" } as ServerEvent);
  t.admission.saw({ type: "rejected", reason: "tls-handshake" } as ServerEvent);
  await t.clock.advance(0);
  assertEquals(t.types().slice(8), ["ask", "ask", "ahead"]);
  assertEquals(t.loads.of(0), 4);
});

test("A worker has the connections that it prepares, too, and asks about each of them once it is prepared", async () => {
  const proxied = (listener: Listener) => proxyProtocol(listener, { from: "127.0.0.0/8" });
  using t = await asking(3, proxied);
  await t.clock.advance(0);
  assertEquals([t.types(), t.loads.of(0)], [["ahead"], 3]);
  for (const client of t.clients) await client.write("PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n");
  await t.clock.advance(0);
  await t.clock.advance(0);
  assertEquals(t.types(), ["ahead", "ask", "ask", "ask"]);
});

test("Connections that leave while a worker prepares them leave their places to the next", async () => {
  const proxied = (listener: Listener) => proxyProtocol(listener, { from: "127.0.0.0/8" });
  using t = await asking(3, proxied);
  await t.clock.advance(0);
  assertEquals([t.types(), t.loads.of(0)], [["ahead"], 3]);
  for (const client of t.clients.slice(0, 3)) client[Symbol.dispose]();
  for (let i = 0; i < 5; i++) await t.clock.advance(0);
  assertEquals([t.types(), t.loads.of(0)], [["ahead", "ahead"], 3], "It has gone on, and has three others");
  for (const client of t.clients.slice(3)) client[Symbol.dispose]();
  for (let i = 0; i < 20; i++) await t.clock.advance(0);
  assertEquals(t.loads.of(0), 0);
});

test("A listener that waits for its turn is closed at once", async () => {
  using t = await asking(0);
  t.listener.close();
  await assertRejects(() => t.accepting, Deno.errors.BadResource);
});

test("A worker may be ahead of the least loaded one by 3 connections, and a sixteenth of that one's", () => {
  assertEquals(balanced(0, 7).enough(), 3);
  assertEquals(balanced(31, 16, 50).enough(), 16 + 3 + 1);
});

test("A worker alone accepts all connections, and so does one beside which no other serves", () => {
  assertEquals(balanced(5).enough(), 0x7fff_ffff);
  const { workers, balance, enough } = balanced(5, 0);
  assertEquals(enough(), 3);
  workers[1].state = "waiting";
  balance.gone(workers[1]);
  assertEquals(enough(), 0x7fff_ffff);
});

test("A worker that is ahead goes on when others have caught up", () => {
  const { workers: [first, second], balance, have } = balanced(3, 0);
  balance.leaves(first);
  assertEquals([first.sent, second.sent], [[], ["ping"]]);
  have(3, 1);
  assertEquals(first.sent, []);
  have(3, 2);
  assertEquals([first.sent, second.sent], [["go-on"], ["ping"]]);
  have(3, 5);
  assertEquals(first.sent, ["go-on"], "It is told once");
});

test("Where connections come and go, workers wait less for each other, until that is over", async () => {
  const { clock, balance, enough } = balanced(0, 0);
  for (let i = 0; i < 160; i++) balance.left();
  assertEquals(enough(), 3 + 10);
  await clock.advance(50);
  assertEquals(enough(), 3 + 5);
  await clock.advance(350);
  assertEquals([enough(), clock.pending], [3, 0]);
});

test("A balance that is closed has no timer, whatever happens after that", () => {
  const { workers: [first], clock, balance } = balanced(3, 0);
  balance.left();
  assertEquals(clock.pending, 1);
  balance.leaves(first);
  assertEquals(clock.pending, 2);
  balance.close();
  assertEquals(clock.pending, 0);
  const { workers: [other], clock: still, balance: closed } = balanced(3, 0);
  closed.close();
  closed.left();
  closed.leaves(other);
  assertEquals(still.pending, 0);
});

test("A worker that takes the place of another begins without its connections, its lead and its delay", async () => {
  const { workers: [first, second, third], clock, balance, enough } = balanced(5, 1, 5);
  third.state = "waiting";
  balance.leaves(first);
  assertEquals([second.sent, third.sent], [["ping"], []], "One that does not serve is not asked");
  await clock.advance(250);
  assertEquals([first.sent, enough()], [["go-on"], 0x7fff_ffff], "The second has not answered");
  balance.gone(second);
  assertEquals([balance.loads.of(1), enough()], [0, 3]);
  balance.leaves(first);
  balance.gone(first);
  await clock.advance(500);
  assertEquals([first.sent, clock.pending], [["go-on"], 0]);
});

test("A worker that does not answer gets no connections left, until it answers", async () => {
  const { workers: [first, second], clock, balance, enough } = balanced(3, 0);
  balance.leaves(first);
  await clock.advance(249);
  assertEquals([first.sent, enough()], [[], 3]);
  await clock.advance(1);
  assertEquals([first.sent, enough()], [["go-on"], 0x7fff_ffff]);
  balance.answered(second);
  assertEquals(enough(), 3);
  balance.leaves(first);
  await clock.advance(250);
  assertEquals(enough(), 0x7fff_ffff, "It has to answer each time");
});

test("A worker that has answered in time, or was replaced meanwhile, is waited for as before", async () => {
  for (const event of ["answered", "gone"] as const) {
    const { workers: [first, second], clock, balance, enough } = balanced(3, 0);
    balance.leaves(first);
    assertEquals(second.sent, ["ping"]);
    balance[event](second);
    await clock.advance(250);
    assertEquals([first.sent, enough()], [[], 3], event);
  }
});

test("A hook that is told of a rejection and changes the limits leaves no timer behind", () => {
  const clock = new FakeClock();
  const limits = { maxConnections: 9, maxConnectionsPerIp: 9, acceptRatePerIp: 9, maxPenaltyMs: 0 };
  const rules = { ...limits, acceptRate: 1, atCapacity: "reject", allowed: () => false } as const;
  const admission = new SharedAdmission(rules, clock, () => admission.setRules({ ...rules, maxConnections: 8 }, []));
  const addr = { transport: "tcp", hostname: "192.0.2.1", port: 1 } as const;
  for (let i = 0; i < 3; i++) admission.ask({ addr, asker: undefined, admit: () => 0, answer: () => {} });
  admission.open();
  assertEquals(clock.pending, 1, "The second question waits for the rate");
  admission.close();
  assertEquals(clock.pending, 0);
});
