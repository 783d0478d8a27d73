import { assertEquals } from "@std/assert";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import type { ServerEvent } from "../../internal/api/events.ts";
import { AskingListener } from "../../ops/workers/asking_listener.ts";
import { Balance } from "../../ops/workers/balance.ts";
import type { Supervisor } from "../../ops/workers/supervisor.ts";
import type { ToMain, ToWorker } from "../../ops/workers/wire.ts";
import { WorkerAdmission } from "../../ops/workers/worker_admission.ts";
import { test } from "../kit/bounded.ts";

/** A worker as the balance sees it. */
function workerOf(load: number) {
  const sent: string[] = [];
  const worker = { state: "serving", load, send: (message: ToWorker) => void sent.push(message.type) };
  return Object.assign(worker as unknown as Supervisor, { sent });
}

function balanced(...loads: number[]) {
  const workers = loads.map(workerOf);
  const clock = new FakeClock();
  const balance = new Balance(workers, clock);
  balance.update();
  return { workers, clock, balance, enough: () => balance.enough[0] };
}

async function acceptAll(listener: AskingListener): Promise<never> {
  while (true) await listener.accept();
}

/** A worker's listener, with 20 connections that have come at once. */
async function asking(enough: number) {
  const below = new MemoryListener();
  const clock = new FakeClock();
  const cell = new Int32Array(new SharedArrayBuffer(4)).fill(enough);
  const sent: ToMain[] = [];
  const admission = new WorkerAdmission((message) => sent.push(message), cell, {}, undefined);
  const listener = new AskingListener(below, admission);
  const clients = Array.from({ length: 20 }, () => below.connect());
  acceptAll(listener).catch(() => {});
  await clock.advance(0);
  return {
    ...{ admission, cell, sent, clock },
    types: () => sent.map(({ type }) => type),
    [Symbol.dispose]: () => {
      listener.close();
      for (const client of clients) client[Symbol.dispose]();
    },
  };
}

test("Of connections that come at once, a worker accepts those for which it is not ahead of others", async () => {
  using t = await asking(3);
  assertEquals(t.types(), ["ask", "ask", "ask", "ahead"]);
  t.cell[0] = 5;
  await t.clock.advance(0);
  assertEquals(t.types().length, 4, "It goes on when it is told");
  t.admission.goOn();
  await t.clock.advance(0);
  assertEquals(t.types().slice(4), ["ask", "ask", "ahead"]);
});

test("A connection that is rejected, refused or has ended leaves its place to the next", async () => {
  using t = await asking(4);
  const keys = t.sent.flatMap((message) => message.type === "ask" ? [message.key] : []);
  t.admission.answer(keys[0], { drop: true });
  t.admission.answer(keys[1], { reason: "max-connections", limit: 1 });
  for (const id of [2, 3]) t.admission.answer(keys[id], { id });
  t.admission.goOn();
  await t.clock.advance(0);
  assertEquals(t.types().slice(5), ["ask", "ask", "ahead"]);
  t.admission.saw({ type: "closed", reason: "end" } as ServerEvent);
  t.admission.saw({ type: "rejected", reason: "refused" } as ServerEvent);
  t.admission.saw({ type: "rejected", reason: "tls-handshake" } as ServerEvent);
  t.admission.goOn();
  await t.clock.advance(0);
  assertEquals(t.types().slice(8), ["ask", "ask", "ahead"]);
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
  const { workers: [first, second], balance } = balanced(3, 0);
  balance.leaves(first);
  assertEquals([first.sent, second.sent], [[], ["ping"]]);
  second.load = 1;
  balance.update();
  assertEquals(first.sent, []);
  second.load = 2;
  balance.update();
  assertEquals([first.sent, second.sent], [["go-on"], ["ping"]]);
  second.load = 5;
  balance.update();
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
  balance.left();
  balance.close();
  assertEquals(clock.pending, 0);
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
});
