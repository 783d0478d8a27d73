import { assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import type { Listener, Transport } from "@x/shouty";
import { MemoryListener } from "@x/shouty/testing";
import { numberOf } from "../../../internal/server/numbers.ts";
import { turn } from "../../../internal/time/event_loop.ts";
import { AskingListener } from "../../../ops/workers/worker/asking_listener.ts";
import { Loads, WorkerLoads } from "../../../ops/workers/shared/loads.ts";
import type { ToMain, Verdict } from "../../../ops/workers/shared/wire.ts";
import { WorkerAdmission } from "../../../ops/workers/worker/worker_admission.ts";
import { test } from "../../kit/bounded.ts";

/** A worker's listener that asks the test, and what it has asked and rejected. */
function asking(inner: Listener, most = 64) {
  const asked: PromiseWithResolvers<Verdict>[] = [];
  const rejected: Verdict[] = [];
  const listener = new AskingListener(inner, {
    most,
    ask: () => {
      asked.push(Promise.withResolvers());
      return asked.at(-1)!.promise;
    },
    reject: (transport, verdict) => {
      rejected.push(verdict);
      transport.close();
    },
  });
  return { listener, asked, rejected };
}

async function settle(): Promise<void> {
  for (let turns = 3; turns > 0; turns--) await turn();
}

test("A worker's listener that closes closes the connections that it has, and none that was accepted", async () => {
  const memory = new MemoryListener();
  const { listener, asked, rejected } = asking(memory);
  const clients = Array.from({ length: 4 }, () => memory.connect());
  const accepted = listener.accept();
  await settle();
  // The second one waits until the server accepts again; about the others nothing is decided.
  for (const id of [0, 1]) asked[id].resolve({ id });
  await settle();
  assertEquals([asked.length, listener.queued], [4, 3]);
  listener.close();
  assertEquals(listener.queued, 0);
  for (const client of clients.slice(1)) assertEquals(await client.readAll(), "");
  await (await accepted).write(new TextEncoder().encode("served\n"));
  assertEquals(await clients[0].readLine(), "served");
  asked[2].resolve({ id: 2 });
  asked[3].resolve({ reason: "max-connections", limit: 1 });
  await settle();
  assertEquals(rejected, [], "It is closed already");
  await assertRejects(() => listener.accept(), Deno.errors.BadResource, "The listener is closed");
  for (const client of clients) client.close();
});

test("A worker's listener that is closed closes the connection that comes late, and asks nothing", async () => {
  const memory = new MemoryListener();
  const client = memory.connect();
  const late = Promise.withResolvers<Transport>();
  const { listener, asked } = asking({ addr: memory.addr, accept: () => late.promise, close() {} });
  const refused = assertRejects(() => listener.accept(), Deno.errors.BadResource);
  listener.close();
  await refused;
  late.resolve(memory.accept());
  assertEquals([await client.readAll(), asked.length], ["", 0]);
  client.close();
});

test("A worker's listener has closed when the accept that was outstanding has settled, which frees the port", async () => {
  const { addr } = new MemoryListener();
  const outstanding = Promise.withResolvers<Transport>();
  const { listener } = asking({ addr, accept: () => outstanding.promise, close() {}, queued: 5 });
  assertEquals(listener.queued, 5, "Those that the inner one prepares");
  const refused = assertRejects(() => listener.accept(), Deno.errors.BadResource);
  let isClosed = false;
  const closed = Promise.resolve(listener.close()).then(() => isClosed = true);
  await refused;
  await settle();
  assertEquals(isClosed, false);
  outstanding.reject(new Deno.errors.Interrupted("operation canceled"));
  await closed;
});

test("A worker's listener gives on what is admitted, with its number, and closes and rejects the others", async () => {
  const memory = new MemoryListener();
  const { listener, asked, rejected } = asking(memory);
  const clients = Array.from({ length: 3 }, () => memory.connect());
  const accepted = listener.accept();
  await settle();
  const rejection = { reason: "max-connections", limit: 1 } as const;
  for (const [i, verdict] of [{ drop: true } as const, rejection, { id: 7 }].entries()) asked[i].resolve(verdict);
  assertEquals(numberOf(await accepted), 7);
  for (const client of clients.slice(0, 2)) assertEquals(await client.readAll(), "");
  assertEquals([rejected, listener.queued], [[rejection], 0]);
  for (const client of clients) client.close();
  listener.close();
});

test("A worker's listener asks about no more connections at a time than it may", async () => {
  const memory = new MemoryListener();
  const { listener, asked } = asking(memory, 2);
  const clients = Array.from({ length: 4 }, () => memory.connect());
  const accepted = listener.accept();
  await settle();
  assertEquals(asked.length, 2);
  asked[0].resolve({ drop: true });
  await settle();
  assertEquals(asked.length, 3);
  asked[1].resolve({ id: 1 });
  await accepted;
  listener.accept().catch(() => {});
  await settle();
  assertEquals(asked.length, 4);
  listener.close();
  for (const client of clients) client.close();
});

test("A worker's listener closes a connection without an address, and goes on", async () => {
  const memory = new MemoryListener();
  const clients = [memory.connect(), memory.connect()];
  const gone = new Deno.errors.NotConnected("It has no address");
  const get = () => {
    throw gone;
  };
  let count = 0;
  const accept = async () => {
    const transport = await memory.accept();
    return count++ === 0 ? Object.defineProperty(transport, "remoteAddr", { get }) : transport;
  };
  const { listener, asked } = asking({ addr: memory.addr, accept, close: () => memory.close() });
  assertStrictEquals(await listener.accept().catch((error) => error), gone);
  assertEquals([await clients[0].readAll(), listener.queued], ["", 0]);
  const accepted = listener.accept();
  await settle();
  asked[0].resolve({ id: 1 });
  assertEquals(numberOf(await accepted), 1);
  for (const client of clients) client.close();
  listener.close();
});

test("A worker uses the keys of answered questions again, and settles each question with its own answer", async () => {
  const sent: ToMain[] = [];
  const loads = new WorkerLoads(new Loads(1).cells, 0);
  const admission = new WorkerAdmission((message) => sent.push(message), loads, {}, undefined);
  const addr = { transport: "tcp", hostname: "192.0.2.1", port: 1 } as const;
  const keys = () => sent.flatMap((message) => message.type === "ask" ? message.key : []);
  const answers = [1, 2, 3].map(() => admission.ask(addr));
  const [a, b, c] = keys();
  admission.answer(b, { id: 20 });
  const next = admission.ask(addr);
  assertEquals(keys().at(-1), b);
  admission.answer(c, { id: 30 });
  admission.answer(b, { id: 40 });
  admission.answer(a, { id: 10 });
  assertEquals(await Promise.all([...answers, next]), [{ id: 10 }, { id: 20 }, { id: 30 }, { id: 40 }]);
});
