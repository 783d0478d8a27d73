import { assert, assertEquals, assertMatch } from "@std/assert";
import { test } from "../../kit/bounded.ts";
import { ask, testEngines, TestWorkers } from "../../kit/workers/workers.ts";

/** What crashes a worker, and the error that is told. */
const CRASHES: readonly [line: string, error: RegExp][] = [
  ["throw later", /^RangeError: thrown on purpose$/],
  ["reject", /^TypeError: rejected on purpose$/],
  ["end", /^Error: It ended by itself$/],
];

for (const [line, message] of CRASHES) {
  testEngines(`A worker that crashes by ${line} loses its own connections alone, and is replaced`, async (engine) => {
    await using t = await TestWorkers.start({ engine, maxConnections: 8 });
    const clients = await t.connectMany(8);
    const { worker } = Array.from(t.server.connections)[3];
    const lost = t.server.workers[worker].active;
    await clients[3].write(`${line}\n`);
    const [crash] = await t.untilSeen("worker-crashed");
    assertEquals([crash.worker, crash.lost, crash.retryMs], [worker, lost, 100]);
    assertMatch(`${crash.error.name}: ${crash.error.message}`, message);
    const ends = t.all("closed");
    assertEquals([ends.length, new Set(ends.map(({ reason }) => reason))], [lost, new Set(["transport-error"])]);
    assertMatch((ends[0].error as Error).message, new RegExp(`^Worker ${worker} has crashed: `));
    const gone = new Set(ends.map(({ conn }) => conn.id));
    for (const [i, client] of clients.entries()) {
      if (!gone.has(i + 1)) assertEquals(await ask(client, "still here"), "STILL HERE");
    }
    // The places of the lost connections are free again, also before another worker has begun.
    await t.connectMany(lost);
    assertEquals(t.server.stats().active, 8);
    const started = await t.untilSeen("worker-started", 3);
    assertEquals([started[2].worker, started[2].crashes], [worker, 1]);
    assertEquals(t.server.workers.map(({ state }) => state), ["serving", "serving"]);
  });
}

for (const line of ["fill memory", "fill memory at once"]) {
  testEngines(`A worker whose heap is full by "${line}" ends alone, and the process goes on`, async (engine) => {
    await using t = await TestWorkers.start({ engine, maxHeapMb: 48 });
    const [first] = await t.connectMany(1);
    await first.write(`${line}\n`);
    const [crash] = await t.untilSeen("worker-crashed");
    assertMatch(crash.error.message, /memory/);
    await t.connectMany(4);
    await t.untilSeen("worker-started", 3);
    await t.connectMany(4);
  }, 180);
}

testEngines(
  "A worker that crashes again and again is replaced after pauses that double, and others serve",
  async (engine) => {
    await using t = await TestWorkers.start({ engine });
    for (let i = 1; i <= 3; i++) {
      const [client] = await t.connectMany(1);
      const worker = Array.from(t.server.connections).at(-1)!.worker;
      await client.write("throw later\n");
      await t.untilSeen("worker-crashed", i);
      const pauses = t.all("worker-crashed").filter((crash) => crash.worker === worker).map(({ retryMs }) => retryMs);
      assertEquals(pauses, [100, 200, 400].slice(0, pauses.length));
      await t.connectMany(1);
      await t.untilSeen("worker-started", 2 + i);
    }
  },
);

testEngines("What has connected while no worker is there waits for the next", async (engine) => {
  await using t = await TestWorkers.start({ engine, workers: 1 });
  const [first] = await t.connectMany(1);
  await first.write("throw later\n");
  await t.untilSeen("worker-crashed");
  assertEquals(t.server.workers[0].state, "waiting");
  const waiting = await t.connect();
  assertEquals(await ask(waiting, "hello"), "HELLO");
});

testEngines("The figures of a worker that has crashed stay in the sums", async (engine) => {
  await using t = await TestWorkers.start({ engine });
  const clients = await t.connectMany(6);
  await t.server.refresh();
  assertEquals(t.server.stats().lines, 6);
  await clients[0].write("throw later\n");
  await t.untilSeen("worker-started", 3);
  const { lines, bytesIn } = t.server.stats();
  assert(lines >= 6 && bytesIn >= 36, `${lines} ${bytesIn}`);
  await t.server.refresh();
  assert(t.server.stats().lines >= 6);
});

testEngines("While workers crash under load, the limit is never passed, and no place is lost", async (engine) => {
  const maxConnections = 8;
  await using t = await TestWorkers.start({ engine, maxConnections });
  let over = false;
  const client = async () => {
    while (!over) {
      const conn = await t.connect();
      // A crash resets what its worker had, and a full server says so.
      await ask(conn, "hello").catch(() => null);
      conn[Symbol.dispose]();
    }
  };
  const clients = Array.from({ length: 16 }, client);
  for (let crashes = 1; crashes <= 4; crashes++) {
    while (t.all("worker-crashed").length < crashes) {
      const conn = await t.connect();
      await conn.write("throw later\n").catch(() => {});
      await conn.readLine().catch(() => null);
      conn[Symbol.dispose]();
    }
    await t.untilSeen("worker-started", 2 + crashes);
  }
  over = true;
  await Promise.all(clients);
  let open = 0;
  for (const { type } of t.events) {
    open += type === "accepted" ? 1 : type === "closed" ? -1 : 0;
    assert(open >= 0 && open <= maxConnections, `${open} connections at a time`);
  }
  await t.until(() => t.server.stats().active === 0);
  await t.connectMany(maxConnections);
});

test("A worker that replaces another keeps the process alive no more than the server does", async () => {
  const args = ["run", "--allow-all", "--no-prompt", new URL("../../kit/workers/unref.ts", import.meta.url).href];
  const piped = { stdout: "piped", stderr: "piped" } as const;
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, ...piped }).output();
  const text = new TextDecoder();
  assertEquals([code, text.decode(stdout)], [0, "replaced\n"], text.decode(stderr));
});
