import { assert, assertEquals, assertGreater, assertRejects } from "@std/assert";
import { Buffer } from "node:buffer";
import { serveInWorker, serveWorkers } from "@x/shouty/ops";
import type { TestClient } from "@x/shouty/testing";
import { test } from "../../kit/bounded.ts";
import { assertFreed } from "../../kit/sockets/freed_port.ts";
import { ask, SHOUT, testEngines, TestWorkers } from "../../kit/workers/workers.ts";

testEngines(
  "Clients that come one by one are spread evenly over the workers, and the handlers see one numbering",
  async (engine) => {
    await using t = await TestWorkers.start({ engine, workers: 3 });
    const clients = await t.connectMany(30);
    const seen = [];
    for (const client of clients) seen.push(Number(await ask(client, "id")));
    assertEquals(seen, Array.from({ length: 30 }, (_, i) => i + 1));
    await t.server.refresh();
    const { workers } = t.server;
    for (const { active, lines } of workers) {
      assert(active >= 7 && active <= 13, JSON.stringify(workers));
      assertEquals(lines, 2 * active);
    }
    const stats = t.server.stats();
    assertEquals([stats.accepted, stats.active, stats.lines], [30, 30, 60]);
    const conns = Array.from(t.server.connections);
    assertEquals(conns.map(({ id }) => id), seen);
    assertEquals(conns.map((conn) => conn.stats().lines), seen.map(() => 2));
  },
);

/** Number of groups of clients, and of those in a group, that come at once. */
const [GROUPS, IN_GROUP] = [8, 8];

testEngines("Clients that come at once are spread over the workers", async (engine) => {
  await using t = await TestWorkers.start({ engine });
  let uneven = 0;
  for (let group = 1; group <= GROUPS; group++) {
    const before = t.server.workers.map(({ active }) => active);
    await Promise.all(Array.from({ length: IN_GROUP }, () => t.connect()));
    await t.untilSeen("accepted", group * IN_GROUP);
    if (t.server.workers.some(({ active }, i) => active === before[i])) uneven++;
  }
  // A worker that a busy machine holds up for a quarter of a second gets no connections meanwhile.
  assert(uneven <= GROUPS / 4, `all clients of ${uneven} groups came to one worker`);
});

testEngines("Connections that come at once and are prepared first are all served, and spread", async (engine) => {
  await using t = await TestWorkers.start({ engine, data: { proxied: true } });
  const clients = await Promise.all(Array.from({ length: 40 }, () => t.connect()));
  const replies = await Promise.all(clients.map(async (client, i) => {
    await client.write(`PROXY TCP4 192.0.2.7 192.0.2.1 ${10_000 + i} 443\r\n`);
    return await ask(client, `hello ${i}`);
  }));
  assertEquals(replies, clients.map((_, i) => `HELLO ${i}`));
  const { workers } = t.server;
  assert(workers.every(({ active }) => active > 0), JSON.stringify(workers));
});

/** Makes worker 0 the one with fewer connections: of some, only one client of it stays, which is returned. */
async function leaveOne(t: TestWorkers): Promise<TestClient> {
  const clients = await t.connectMany(20);
  const ofFirst = Array.from(t.server.connections).filter(({ worker }) => worker === 0);
  assertGreater(ofFirst.length, 5);
  const [stays, ...go] = ofFirst.map(({ id }) => clients[id - 1]);
  for (const client of go) client[Symbol.dispose]();
  await t.untilSeen("closed", go.length);
  return stays;
}

testEngines("A worker that has fewer connections than others gets the next ones", async (engine) => {
  await using t = await TestWorkers.start({ engine });
  await leaveOne(t);
  const [, second] = t.server.workers;
  await t.connectMany(second.active - 1);
  const [first, , ...none] = t.server.workers;
  assertEquals(none, []);
  // Each worker may have been accepting one more already.
  assert(Math.abs(first.active - t.server.workers[1].active) <= 4, JSON.stringify(t.server.workers));
});

testEngines("A worker whose handler does not return keeps no client from the others", async (engine) => {
  const cell = new Int32Array(new SharedArrayBuffer(8));
  await using t = await TestWorkers.start({ engine, data: { cell } });
  const stays = await leaveOne(t);
  await stays.write("block\n");
  // Until then it could accept some of the next clients, which would have to wait for it.
  while (Atomics.load(cell, 1) === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  const replies = await Promise.all(Array.from({ length: 8 }, async () => {
    const client = await t.connect();
    await client.write("hello\n");
    return { client, reply: client.readLine() };
  }));
  let answered = 0;
  const enough = Promise.withResolvers<void>();
  for (const { reply } of replies) reply.then(() => ++answered >= 6 && enough.resolve());
  await enough.promise;
  Atomics.store(cell, 0, 1);
  Atomics.notify(cell, 0);
  assertEquals(await stays.readLine(), "BLOCK");
  for (const { reply } of replies) assertEquals(await reply, "HELLO");
});

testEngines("Pausing and resuming hold for all workers, and for one that begins meanwhile", async (engine) => {
  await using t = await TestWorkers.start({ engine });
  const [first] = await t.connectMany(1);
  t.server.pause();
  assertEquals(t.server.paused, true);
  await first.write("throw later\n");
  await t.untilSeen("worker-started", 3);
  const waiting = await t.connect();
  await waiting.write("hello\n");
  await t.server.refresh();
  assertEquals(t.server.stats().active, 0);
  t.server.resume();
  assertEquals(await waiting.readLine(), "HELLO");
  assertEquals([t.all("paused").length, t.all("resumed").length], [1, 1]);
});

testEngines("Limits of connections are set in all workers, also in one that begins later", async (engine) => {
  await using t = await TestWorkers.start({ engine });
  const [first] = await t.connectMany(1);
  t.server.setLimits({ maxLineBytes: 4, maxConnections: 7 });
  assertEquals([t.server.limits.maxLineBytes, t.server.limits.maxConnections], [4, 7]);
  assertEquals(t.all("limits-changed").map(({ limits }) => limits), [{ maxLineBytes: 4, maxConnections: 7 }]);
  await first.write("throw later\n");
  await t.untilSeen("worker-started", 3);
  for (let i = 0; i < 6; i++) assertEquals(await ask(await t.connect(), "hello"), "error: line longer than 4 bytes");
  try {
    t.server.setLimits({ maxLineBytes: 0 });
  } catch (error) {
    assert(error instanceof RangeError);
  }
  assertEquals(t.server.limits.maxLineBytes, 4);
});

testEngines("What changes while a worker begins holds there, too", async (engine) => {
  const gate = new Int32Array(new SharedArrayBuffer(8));
  await using t = await TestWorkers.start({ engine, workers: 1, data: { gate } });
  const [first] = await t.connectMany(1);
  gate[0] = 1;
  await first.write("throw later\n");
  await t.untilSeen("worker-crashed");
  // The next worker says that it has its setup, and waits for the gate.
  while (Atomics.load(gate, 1) < 2) await new Promise((resolve) => setTimeout(resolve, 10));
  t.server.setLimits({ maxLineBytes: 4 });
  const reloaded = t.server.reload({ prefix: "> " });
  Atomics.store(gate, 0, 0);
  Atomics.notify(gate, 0);
  await reloaded;
  assertEquals(await ask(await t.connect(), "hello"), "error: line longer than 4 bytes");
  assertEquals(await ask(await t.connect(), "hi"), "> HI");
});

testEngines("The main isolate closes a connection of any worker, and writes to all", async (engine) => {
  await using t = await TestWorkers.start({ engine });
  const clients = await t.connectMany(6);
  t.server.broadcast("news\n", { except: { id: 2 } });
  assertEquals(await clients[0].readLine(), "news");
  assertEquals(await ask(clients[1], "quiet"), "QUIET");
  for (const bytes of [new TextEncoder().encode("more\n"), Buffer.from("more\n")]) {
    t.server.broadcast(bytes);
    bytes.fill(0);
  }
  for (const [i, client] of clients.entries()) {
    if (i > 1) assertEquals(await client.readLine(), "news");
    assertEquals([await client.readLine(), await client.readLine()], ["more", "more"]);
  }
  for (const conn of t.server.connections) conn.close({ detail: `the ${conn.id}th`, lastWord: "bye" });
  for (const client of clients) assertEquals((await client.readAll()).split("\n").at(-2), "bye");
  const details = (await t.untilSeen("closed", 6)).map(({ reason, detail }) => `${reason} ${detail}`);
  assertEquals(details.toSorted(), Array.from({ length: 6 }, (_, i) => `closed the ${i + 1}th`));
});

testEngines(
  "New data reaches all workers, also one that begins later; an error of one is the caller's",
  async (engine) => {
    await using t = await TestWorkers.start({ engine, data: { prefix: "" } });
    const clients = await t.connectMany(4);
    await t.server.reload({ prefix: "> " });
    for (const client of clients) assertEquals(await ask(client, "hello"), "> HELLO");
    await clients[0].write("throw later\n");
    await t.untilSeen("worker-started", 3);
    for (let i = 0; i < 4; i++) assertEquals(await ask(await t.connect(), "hello"), "> HELLO");
    await assertRejects(() => t.server.reload({}), TypeError, "no prefix");
  },
);

testEngines("Two places, each with a port of its own, are served by all workers", async (engine) => {
  const place = { hostname: "127.0.0.1", port: 0 };
  await using t = await TestWorkers.start({ engine, places: [place, place] });
  const ports = t.server.addrs.map((addr) => (addr as Deno.NetAddr).port);
  assertEquals(new Set(ports).size, 2);
  for (const port of ports) {
    using conn = await Deno.connect({ hostname: "127.0.0.1", port });
    await conn.write(new TextEncoder().encode("hello\n"));
    await conn.closeWrite();
    assertEquals(await new Response(conn.readable).text(), "HELLO\n");
  }
  await t.untilSeen("closed", 2);
});

testEngines(
  "A port that another socket has is refused, also if that would share it, and nothing stays bound",
  async (engine) => {
    using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const start = (port: number) => serveWorkers({ module: SHOUT, workers: 2, hostname: "127.0.0.1", port, engine });
    const { port } = taken.addr;
    await assertRejects(() => start(port), Deno.errors.AddrInUse, `Cannot listen on 127.0.0.1:${port}: `);
    const script = `const l = Deno.listen({ hostname: "127.0.0.1", port: 0, reusePort: true });
    console.log(l.addr.port); await Deno.stdin.read(new Uint8Array(1)); l.close();`;
    const args = ["eval", "--unstable-net", script];
    const piped = { stdin: "piped", stdout: "piped", stderr: "null" } as const;
    await using sharer = new Deno.Command(Deno.execPath(), { args, env: { NO_COLOR: "1" }, ...piped }).spawn();
    const reader = sharer.stdout.pipeThrough(new TextDecoderStream()).getReader();
    const { value } = await reader.read();
    await assertRejects(() => start(Number(value)), Deno.errors.AddrInUse);
    await sharer.stdin.close();
    await reader.cancel();
  },
);

testEngines("A worker that cannot begin ends the start with its error, and the port is free", async (engine) => {
  using finder = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = finder.addr;
  finder.close();
  await assertFreed(port);
  const options = { module: SHOUT, workers: 2, hostname: "127.0.0.1", port, engine };
  await assertRejects(() => serveWorkers({ ...options, data: { broken: true } }), RangeError, "broken on purpose");
  await assertRejects(() => serveWorkers({ ...options, data: { no: () => {} } }), Error, "could not be cloned");
  const module = new URL("../../kit/workers/work.ts", import.meta.url);
  await assertRejects(() => serveWorkers({ ...options, module }), Error, "without having called serveInWorker");
  await assertFreed(port);
  await using t = await TestWorkers.start({ ...options });
  await t.connectMany(2);
});

test("Wrong options are refused before anything is bound, and a worker's call elsewhere", async () => {
  const module = SHOUT;
  await assertRejects(() => serveWorkers({ module, workers: 0 }), RangeError, "Cannot use workers 0: expected a whole");
  await assertRejects(() => serveWorkers({ module, workers: 2.5 }), RangeError, "Cannot use workers 2.5");
  await assertRejects(() => serveWorkers({ module: "worker.ts" }), TypeError, 'Cannot use module "worker.ts"');
  await assertRejects(() => serveWorkers({ module, maxHeapMb: 1 }), RangeError, "Cannot use maxHeapMb 1");
  await assertRejects(() => serveWorkers({ module, places: [] }), TypeError, "Cannot use places");
  await assertRejects(
    () => serveWorkers({ module, places: {} as [] }),
    TypeError,
    "Cannot use places: expected an array",
  );
  await assertRejects(
    () => serveWorkers({ module, places: [null as never] }),
    TypeError,
    "Cannot use places[0]: expected",
  );
  await assertRejects(() => serveWorkers({ module, framing: 5 as never }), TypeError, "Cannot use framing: expected");
  await assertRejects(() => serveWorkers({ module, port: 70_000 }), RangeError, "Cannot use port 70000");
  await assertRejects(() => serveWorkers({ module, maxConnections: 0 }), RangeError, "Cannot use maxConnections 0");
  await assertRejects(() => serveWorkers({ module, allow: ["x"] }), RangeError, "allow");
  await assertRejects(() => serveWorkers({ module, engine: "uring" as never }), TypeError, 'Cannot use engine "uring"');
  await assertRejects(() => serveInWorker(() => ({})), TypeError, "Cannot serve in a worker: this is none");
});
