import { assertEquals } from "@std/assert";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { SYSTEM_CLOCK } from "../../../internal/time/clock.ts";
import { Loads, WorkerLoads } from "../../../ops/workers/shared/loads.ts";
import { Supervisor } from "../../../ops/workers/supervision/supervisor.ts";
import { WorkerAdmission } from "../../../ops/workers/worker/worker_admission.ts";
import { test } from "../../kit/bounded.ts";

/** A worker that only asks for its setup. It is no module of the project, whose types Deno would check at its start. */
const GREETER = `import { parentPort } from "node:worker_threads"; parentPort.postMessage([{ type: "hello" }]);`;

/** A supervisor of a worker that gets no setup; `greeted` resolves when the worker asks for it. */
function supervised() {
  const { promise: greeted, resolve } = Promise.withResolvers<void>();
  let asked = 0;
  const setup = () => {
    asked++;
    resolve();
    throw new Error("No setup in this test");
  };
  const { promise: ended, resolve: end } = Promise.withResolvers<void>();
  const hooks = { setup, ready() {}, message() {}, down: () => end() };
  const module = new URL(`data:text/javascript,${encodeURIComponent(GREETER)}`);
  const supervisor = new Supervisor(0, { module, maxHeapMb: 256 }, SYSTEM_CLOCK, hooks);
  return { supervisor, greeted, ended, asked: () => asked };
}

test("A supervisor that is stopped while it starts begins no worker", async () => {
  const [stopped, other] = [supervised(), supervised()];
  const starting = stopped.supervisor.start();
  stopped.supervisor.stop();
  other.supervisor.start();
  await starting;
  // A worker that had been begun before would have come this far, too.
  await other.greeted;
  await other.ended;
  other.supervisor.stop();
  assertEquals([stopped.asked(), stopped.supervisor.state], [0, "ended"]);
});

test("A worker that serves is not taken for one that does not begin, however long it serves", async () => {
  const serves = `${GREETER} parentPort.on("message", () => parentPort.postMessage([{ type: "ready" }]));`;
  const { promise: ready, resolve } = Promise.withResolvers<void>();
  const hooks = { setup: () => ({}) as never, ready: () => resolve(), message() {}, down() {} };
  const clock = new FakeClock();
  const module = new URL(`data:text/javascript,${encodeURIComponent(serves)}`);
  const supervisor = new Supervisor(0, { module, maxHeapMb: 256 }, clock, hooks);
  supervisor.start();
  assertEquals(clock.pending, 1);
  await ready;
  assertEquals(clock.pending, 0);
  supervisor.stop();
});

test("A worker that crashes is replaced later each time, at most 30 s later, until one has lived for a minute", async () => {
  let time = 0;
  const retries: number[] = [];
  const { promise: over, resolve } = Promise.withResolvers<void>();
  // Pauses take no time here; the other timers, of a minute, bound the time to start.
  const setTimer = (callback: () => void, delay: number) => {
    if (delay !== 60_000) queueMicrotask(callback);
    return () => {};
  };
  const setup = () => {
    time += retries.length === 11 ? 60_001 : retries.length === 12 ? 60_000 : 0;
    throw new Error("No setup in this test");
  };
  const down = (supervisor: Supervisor, _error?: Error, retryMs?: number) => {
    if (retryMs !== undefined) retries.push(retryMs);
    if (retries.length === 13) supervisor.stop(), resolve();
  };
  const module = new URL(`data:text/javascript,${encodeURIComponent(GREETER)}`);
  const hooks = { setup, ready() {}, message() {}, down };
  const supervisor = new Supervisor(0, { module, maxHeapMb: 256 }, { now: () => time, setTimer }, hooks);
  supervisor.start();
  await over;
  assertEquals(retries, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 100, 200]);
  assertEquals(supervisor.crashes, 13);
});

test("A worker whose hook lastWords fails rejects a connection without a line, and counts the failure", async () => {
  for (const lastWords of [async () => await Promise.reject(new Error("Thrown later")), () => fail()]) {
    const listener = new MemoryListener();
    using client = listener.connect();
    const loads = new WorkerLoads(new Loads(1).cells, 0);
    const admission = new WorkerAdmission(() => {}, loads, { lastWords: lastWords as () => never }, undefined);
    admission.reject(await listener.accept(), { reason: "max-connections", limit: 1 });
    assertEquals(await client.readAll(), "");
    assertEquals(admission.counters.hookErrors, 1);
    admission.close();
  }
});

function fail(): never {
  throw new Error("Thrown at once");
}
