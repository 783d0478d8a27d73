import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { ask, testEngines, TestWorkers } from "../../kit/workers/workers.ts";

/** What the handler throws, by the line that makes it, and the error that the main isolate gets. */
const THROWN: readonly (readonly [line: string, error: RegExp])[] = [
  ["throw nothing", /^undefined$/],
  ["throw no text", /^Error: a value without text$/],
  ["throw a text that throws", /^Error: a value without text$/],
  ["throw an error without a message", /^Error: a value without text$/],
  ["throw an error with an odd name", /1/],
  ["throw an error of no class", /^Error$/],
];

testEngines(
  "Whatever a worker's handler throws ends its own connection, which leaves its place to others",
  async (engine) => {
    await using t = await TestWorkers.start({ engine, maxConnections: 2 });
    for (const [i, [line, error]] of THROWN.entries()) {
      const [client] = await t.connectMany(1);
      await client.write(`${line}\n`);
      assertEquals(await client.readLine(), null, line);
      client[Symbol.dispose]();
      const failed = (await t.untilSeen("handler-error", i + 1))[i];
      assert(error.test(`${failed.error}`), `${line}: ${failed.error}`);
      assertEquals((await t.untilSeen("closed", i + 1))[i].reason, "handler-error");
    }
    assertEquals([t.all("worker-crashed"), t.server.stats().active], [[], 0]);
  },
);

testEngines("A reload with what cannot be copied rejects, and the workers keep what they have", async (engine) => {
  await using t = await TestWorkers.start({ engine });
  const [client] = await t.connectMany(1);
  await assertRejects(() => t.server.reload({ prefix: () => {} }), TypeError, "could not be cloned");
  await t.server.reload({ prefix: "> " });
  assertEquals(await ask(client, "still here"), "> STILL HERE");
});

testEngines("A reload that fails late takes back nothing that a later one has given", async (engine) => {
  await using t = await TestWorkers.start({ engine });
  const fails = new Int32Array(new SharedArrayBuffer(4));
  const first = assertRejects(() => t.server.reload({ fails }), TypeError, "no prefix");
  await t.server.reload({ prefix: "> " });
  Atomics.store(fails, 0, 1);
  Atomics.notify(fails, 0);
  await first;
  const crashing = await t.connect();
  assertEquals(await ask(crashing, "hello"), "> HELLO");
  await crashing.write("throw later\n");
  const [crash] = await t.untilSeen("worker-crashed");
  await t.untilSeen("worker-started", 3);
  const clients = await Promise.all(Array.from({ length: 8 }, () => t.connect()));
  for (const client of clients) assertEquals(await ask(client, "hello"), "> HELLO");
  assert(Array.from(t.server.connections).some(({ worker }) => worker === crash.worker));
});

testEngines("Closing a worker's connection with wrong options throws, and the worker serves on", async (engine) => {
  await using t = await TestWorkers.start({ engine, framing: { encoding: "latin1" } });
  const [client] = await t.connectMany(1);
  const [conn] = t.server.connections;
  for (const wrong of [{ lastWord: 5 }, { detail: 5 }, { detail: () => {} }, { lastWord: "€" }]) {
    assertThrows(() => conn.close(wrong as { detail: string }), TypeError);
  }
  assertThrows(() => conn.close(null!), TypeError);
  assertEquals(await ask(client, "still here"), "STILL HERE");
  conn.close({ lastWord: "bye", detail: "told" });
  assertEquals(await client.readAll(), "bye\n");
  client[Symbol.dispose]();
  assertEquals((await t.untilSeen("closed"))[0].detail, "told");
});

testEngines(
  "A broadcast of no data, or that leaves out what is no connection, throws, and the workers serve on",
  async (engine) => {
    await using t = await TestWorkers.start({ engine });
    const [client] = await t.connectMany(1);
    assertThrows(() => t.server.broadcast(5 as never), TypeError, "Cannot write: expected");
    for (const except of [5, {}, { id: "1" }, { id: () => {} }]) {
      assertThrows(() => t.server.broadcast("not sent\n", { except: except as never }), TypeError, "Cannot use except");
    }
    assertEquals(await ask(client, "still here"), "STILL HERE");
  },
);

testEngines("While the server is paused, each worker has accepted one connection at most", async (engine) => {
  await using t = await TestWorkers.start({ engine });
  t.server.pause();
  // The workers know of it by then.
  await t.server.refresh();
  const clients = await Promise.all(Array.from({ length: 40 }, () => t.connect()));
  // Both have told by then how many they have.
  for (let i = 0; i < 3; i++) await t.server.refresh();
  assert(t.server.stats().queued <= 2, `${t.server.stats().queued} are queued`);
  t.server.resume();
  for (const client of clients) assertEquals(await ask(client, "hello"), "HELLO");
});
