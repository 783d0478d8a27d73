import { assertEquals } from "@std/assert";
import { serveAdmin, ServerMetrics } from "@x/shouty/ops";
import { ask, testEngines, TestWorkers } from "../../kit/workers/workers.ts";

/** Starts workers with an admin port, and returns what asks it. */
async function withAdmin(engine: "deno" | "epoll", data: unknown = undefined) {
  const metrics = new ServerMetrics();
  const t = await TestWorkers.start({ engine, data });
  for (const event of t.events) if ("addr" in event) metrics.onEvent(event);
  metrics.watch(t.server);
  const admin = await serveAdmin({ server: t.server, port: 0, metrics });
  const { hostname, port } = admin.addr as Deno.NetAddr;
  const fetchText = async (path: string, init?: RequestInit) => {
    const response = await fetch(`http://${hostname}:${port}${path}`, init);
    return [response.status, await response.text()] as const;
  };
  const close = async () => {
    await t[Symbol.asyncDispose]();
    await admin.close();
  };
  return { t, fetchText, [Symbol.asyncDispose]: close };
}

testEngines("One admin port shows the sum and each worker, and steers all", async (engine) => {
  await using a = await withAdmin(engine);
  const { t, fetchText } = a;
  const clients = await t.connectMany(6);
  for (const client of clients) await ask(client, "again");
  assertEquals(await fetchText("/readyz"), [200, "ready\n"]);
  const status = JSON.parse((await fetchText("/status"))[1]);
  assertEquals([status.stats.active, status.stats.lines], [6, 12]);
  const sums = { active: 0, lines: 0 };
  for (const { active, lines } of status.workers) sums.active += active, sums.lines += lines;
  assertEquals([status.workers.length, sums], [2, { active: 6, lines: 12 }]);
  const list = JSON.parse((await fetchText("/connections?sort=-id"))[1]);
  assertEquals(
    list.connections.map(({ id, lines }: Record<string, number>) => [id, lines]),
    [6, 5, 4, 3, 2, 1].map((id) => [id, 2]),
  );
  assertEquals((await fetchText("/connections/4/close", { method: "POST" }))[0], 202);
  assertEquals(await clients[3].readLine(), null);
  const [closed] = await t.untilSeen("closed");
  assertEquals([closed.conn.id, closed.detail], [4, "admin"]);
  const changed = await fetchText("/limits", { method: "PATCH", body: JSON.stringify({ maxConnections: 6 }) });
  assertEquals([changed[0], JSON.parse(changed[1]).maxConnections], [200, 6]);
  assertEquals((await fetchText("/metrics"))[1].match(/^shouty_lines_total(?:\{.*\})? (\d+)/m)?.[1], "12");
  assertEquals((await fetchText("/drain", { method: "POST" }))[0], 202);
  for (const client of clients) client[Symbol.dispose]();
  await t.server.finished;
});

testEngines("Without a worker that serves, the server is not ready", async (engine) => {
  const gate = new Int32Array(new SharedArrayBuffer(8));
  await using a = await withAdmin(engine, { gate });
  const clients = await a.t.connectMany(8);
  gate[0] = 1;
  // Clients of both workers: each has its share.
  for (const client of clients) await client.write("throw later\n").catch(() => {});
  await a.t.untilSeen("worker-crashed", 2);
  assertEquals(await a.fetchText("/readyz"), [503, "not ready: no worker serves\n"]);
  Atomics.store(gate, 0, 0);
  Atomics.notify(gate, 0);
  await a.t.untilSeen("worker-started", 4);
  assertEquals(await a.fetchText("/readyz"), [200, "ready\n"]);
});
