import { assert, assertEquals, assertLess, assertRejects, assertThrows } from "@std/assert";
import { isReset } from "../../../internal/api/transport.ts";
import { assertFreed } from "../../kit/sockets/freed_port.ts";
import { ask, testEngines, TestWorkers } from "../../kit/workers/workers.ts";

testEngines("A shutdown drains all workers, with one report, and frees the port", async (engine) => {
  await using t = await TestWorkers.start({ engine, drainTimeout: 60_000 });
  const clients = await t.connectMany(6);
  const report = t.server.shutdown();
  assertEquals(t.server.state, "draining");
  await assertRejects(async () => {
    // The workers close the port when they have read the message.
    for (;;) {
      const conn = await Deno.connect({ hostname: "127.0.0.1", port: t.port }).catch((error) => {
        // It had connected just before the port was closed, and perhaps has no address any more.
        if (!isReset(error)) throw error;
      });
      conn?.close();
    }
  }, Deno.errors.ConnectionRefused);
  for (const client of clients.slice(2)) assertEquals(await ask(client, "last"), "LAST");
  for (const client of clients.slice(2)) await client.closeWrite();
  await t.untilSeen("closed", 4);
  t.server.shutdown({ drainTimeout: 1 });
  const { closed, handlersLeft } = await report;
  assertEquals([closed, handlersLeft], [{ "end": 4, "drain-timeout": 2 }, 0]);
  assertEquals(t.server.state, "closed");
  await t.server.finished;
  assertEquals(t.all("stopped").map(({ report }) => report.closed), [closed]);
  await assertFreed(t.port);
});

testEngines("A drain that finishes ends the idle connections of all workers", async (engine) => {
  await using t = await TestWorkers.start({ engine, drain: "finish", drainTimeout: 60_000, drainSpread: 100 });
  await t.connectMany(10);
  assertEquals((await t.server.shutdown()).closed, { "drained": 10 });
});

testEngines("As a lame duck, all workers go on accepting until the delay is over or cut short", async (engine) => {
  await using t = await TestWorkers.start({ engine, drainTimeout: 60_000 });
  const report = t.server.shutdown({ delay: 1_000_000, drain: "finish" });
  assertEquals([t.server.state, t.all("lame-duck").length], ["lame-duck", 1]);
  await t.connectMany(4);
  t.server.shutdown({ delay: 0 });
  assertEquals((await report).closed, { "drained": 4 });
});

testEngines(
  "A later shutdown without a spread, such as that of a signal, keeps the spread of the first",
  async (engine) => {
    await using t = await TestWorkers.start({ engine });
    await t.connectMany(10);
    t.server.shutdown({ drainTimeout: 60_000, spread: 60_000 });
    const since = performance.now();
    t.server.shutdown({ drainTimeout: 10_000 });
    await t.untilSeen("closed");
    assertLess(performance.now() - since, 8000, "The first of ten connections ends after a tenth of the time");
    t.server.shutdown({ drainTimeout: 1 });
  },
);

testEngines("A shutdown with a delay ends a pause of all workers", async (engine) => {
  await using t = await TestWorkers.start({ engine, drainTimeout: 60_000 });
  t.server.pause();
  t.server.shutdown({ delay: 1_000_000, drain: "finish" });
  await t.connectMany(4);
  assertEquals([t.server.paused, t.all("resumed").length], [false, 1]);
  t.server.shutdown({ delay: 0 });
});

testEngines("A shutdown of all workers ends a pause, and none begins after it", async (engine) => {
  await using t = await TestWorkers.start({ engine });
  t.server.pause();
  await t.server.shutdown();
  assertEquals(t.server.paused, false);
  t.server.pause();
  t.server.resume();
  assertEquals([t.server.paused, t.all("paused").length, t.all("resumed").length], [false, 1, 0]);
});

testEngines("A signal that has aborted before all workers serve shuts them down at once", async (engine) => {
  const stop = new AbortController();
  const starting = TestWorkers.start({ engine, signal: stop.signal });
  stop.abort();
  await using t = await starting;
  await t.server.finished;
  assertEquals([t.server.state, t.all("stopped").length], ["closed", 1]);
});

testEngines("A worker that crashes during a drain is not replaced, and does not hold it up", async (engine) => {
  await using t = await TestWorkers.start({ engine, drainTimeout: Infinity });
  const clients = await t.connectMany(2);
  const workers = Array.from(t.server.connections, ({ worker }) => worker);
  const report = t.server.shutdown();
  await clients[0].write("throw later\n");
  const [crash] = await t.untilSeen("worker-crashed");
  assertEquals([crash.worker, crash.retryMs], [workers[0], undefined]);
  for (const client of clients) client[Symbol.dispose]();
  assert((await report).closed["transport-error"]! >= 1);
});

testEngines("A worker whose handler never returns is ended some seconds after the drain timeout", async (engine) => {
  const cell = new Int32Array(new SharedArrayBuffer(8));
  await using t = await TestWorkers.start({ engine, data: { cell }, drainTimeout: 10 });
  const [first] = await t.connectMany(1);
  await first.write("block\n");
  while (Atomics.load(cell, 1) === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  const [{ worker }] = t.server.connections;
  const { closed, handlersLeft } = await t.server.shutdown();
  assertEquals([closed, handlersLeft], [{ "transport-error": 1 }, 1]);
  const [{ error }] = t.all("closed");
  assertEquals((error as Error).message, "Worker " + worker + " was ended: it did not stop in time");
});

testEngines("A shutdown while no worker serves is over at once, and leaves no timer", async (engine) => {
  await using t = await TestWorkers.start({ engine, workers: 1, drainTimeout: 600_000 });
  const [client] = await t.connectMany(1);
  await client.write("throw later\n");
  await t.untilSeen("worker-crashed");
  assertEquals(t.server.workers[0].state, "waiting");
  // The sanitizer of the tests finds a timer that is left.
  assertEquals((await t.server.shutdown()).closed, {});
});

testEngines("A shutdown while a worker takes another's place has freed the port, too", async (engine) => {
  const late = new Int32Array(new SharedArrayBuffer(8));
  late[0] = 1;
  await using t = await TestWorkers.start({ engine, workers: 1, drainTimeout: 60_000, data: { late } });
  const [client] = await t.connectMany(1);
  late[0] = 0;
  await client.write("throw later\n");
  while (Atomics.load(late, 1) < 2) await new Promise((resolve) => setTimeout(resolve, 10));
  assertEquals(t.server.workers[0].state, "starting");
  const stopped = t.server.shutdown();
  Atomics.store(late, 0, 1);
  Atomics.notify(late, 0);
  await stopped;
  // A thread that is ended frees the port some time later. So this one has begun, and has closed its listener by itself.
  assertEquals(t.all("worker-started").length, 2);
  await assertFreed(t.port);
});

testEngines("A signal that aborts shuts all workers down", async (engine) => {
  const stop = new AbortController();
  await using t = await TestWorkers.start({ engine, signal: stop.signal });
  await t.connectMany(2);
  stop.abort();
  await t.server.finished;
  assertThrows(() => t.server.shutdown({ drainTimeout: -1 }), RangeError, "drainTimeout");
});
