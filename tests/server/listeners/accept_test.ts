import { assertEquals, assertLess, assertRejects } from "@std/assert";
import { test, testOnce } from "../../kit/bounded.ts";
import { faulty } from "../../kit/faults.ts";
import { inMemory, startServer } from "../../kit/server.ts";
import { Acceptor } from "../../../internal/server/acceptor.ts";
import { SYSTEM_CLOCK } from "../../../internal/time/clock.ts";
import type { ServerEvent, Transport } from "@x/shouty";
import { MemoryListener } from "@x/shouty/testing";
import { setImmediate } from "node:timers";

/** Connects clients that reset at once, while this process is blocked. */
function resetMany(port: number, count: number): void {
  const script = `
    import net from "node:net";
    await Promise.all(Array.from({ length: ${count} }, () => new Promise((resolve) => {
      const socket = net.connect(${port}, "127.0.0.1", () => resolve(socket.resetAndDestroy()));
      socket.on("error", resolve);
    })));`;
  const { stderr } = new Deno.Command(Deno.execPath(), { args: ["eval", script] }).outputSync();
  assertEquals(new TextDecoder().decode(stderr), "");
}

test("clients that reset before they are accepted neither stop nor slow down accepting (deno#11599)", async () => {
  await using t = startServer();
  const early = await t.admitted();
  resetMany(t.port, 120);
  assertEquals(await t.talk("still accepting\n"), "STILL ACCEPTING\n");
  // Some clients may have been accepted before they reset.
  const unlucky = t.stats.gone + t.stats.closed.reset;
  assertEquals(unlucky >= 100, true, `${unlucky} clients were reset`);
  assertEquals(t.stats.gone > 0, true);
  assertEquals(t.all("accept-error"), []);
  await early.write("and serving\n");
  assertEquals(await early.readLine(), "AND SERVING");
});

testOnce(
  "an argument that the kernel calls invalid is a client's early reset on macOS, and an error elsewhere",
  async () => {
    const invalid = Object.assign(new TypeError("Invalid argument (os error 22)"), { code: "EINVAL" });
    const { listener, clock } = inMemory();
    await using t = startServer({ listener: faulty(listener, { accepts: [invalid] }), clock });
    await clock.advance(5);
    using client = listener.connect();
    await client.write("hello\n");
    assertEquals(await client.readLine(), "HELLO");
    const counts = Deno.build.os === "darwin" ? [1, 0] : [0, 1];
    assertEquals([t.stats.gone, t.all("accept-error").length], counts);
  },
);

testOnce("a rejected client that stays is closed after two seconds", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, maxConnections: 1 });
  await t.admitted();
  const rejected = await t.connect();
  assertEquals(await rejected.readAll(), "error: more than 1 connection\n");
  await clock.advance(1999);
  await rejected.write("still sending\n");
  await clock.advance(1);
  await assertRejects(() => rejected.write("too late\n"), Deno.errors.BrokenPipe);
});

testOnce("of many rejected clients, a hundred are closed gracefully, and the others at once", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, maxConnections: 1 });
  await t.admitted();
  const rejected = await Promise.all(Array.from({ length: 130 }, () => t.connect()));
  for (const client of rejected) await client.write("hello?\n").catch(() => {});
  await t.until("rejected", 130);
  const answers = await Promise.all(rejected.map((client) => client.readAll().catch(() => "reset")));
  assertEquals(answers.filter((text) => text === "error: more than 1 connection\n").length, 100);
});

testOnce("a rejected client whose transport takes no bytes is closed", async () => {
  const { listener, clock } = inMemory();
  const deaf = faulty(listener, { writeBytes: () => 0 });
  await using t = startServer({ listener: deaf, clock, maxConnections: 1 });
  const [, rejected] = [listener.connect(), listener.connect()];
  await t.until("rejected");
  assertEquals(await rejected.readAll(), "");
});

testOnce("a storm of new connections lets other callbacks run in between", async () => {
  const { listener } = inMemory();
  await using t = startServer({ listener });
  for (let i = 0; i < 1500; i++) listener.connect();
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertLess(t.stats.accepted, 500);
  await t.until("accepted", 1500);
});

testOnce(
  "in a storm of new connections, callbacks that are ready run after at most sixteen of them",
  async () => {
    const { listener } = inMemory();
    const transport = await (listener.connect(), listener.accept());
    const ready = Object.assign(new MemoryListener(), { accept: () => Promise.resolve(transport) });
    const acceptor = new Acceptor(ready, SYSTEM_CLOCK, { delay: () => 0, acceptFailed() {} });
    // The first turn may be partly used up; the next one begins when the loop has gone round.
    await new Promise<void>((resolve) => setImmediate(() => resolve()));
    let heard = false;
    setImmediate(() => heard = true);
    let count = 0;
    for (; !heard && count < 60; count++) await acceptor.next();
    acceptor.close();
    assertLess(count, 17);
  },
);

testOnce("a connection that is accepted after the acceptor was closed is closed, and not handed out", async () => {
  const memory = new MemoryListener();
  const client = memory.connect();
  const transport = await memory.accept();
  const [asked, late] = [Promise.withResolvers<void>(), Promise.withResolvers<Transport>()];
  const accept = () => (asked.resolve(), late.promise);
  const listener = { addr: memory.addr, accept, close() {} };
  const acceptor = new Acceptor(listener, SYSTEM_CLOCK, { delay: () => 0, acceptFailed() {} });
  const next = acceptor.next();
  await asked.promise;
  acceptor.close();
  late.resolve(transport);
  assertEquals(await next, { value: undefined, done: true });
  assertEquals(await client.read(), null);
});

testOnce("a shutdown from a hook that is told of a rejection closes the rejected connection, too", async () => {
  for (const hook of ["onEvent", "lastWords"] as const) {
    const { listener, clock } = inMemory();
    const stop = () => void t.server.shutdown();
    const lastWords = () => (hook === "lastWords" && stop(), "error: full");
    const onEvent = ({ type }: ServerEvent) => hook === "onEvent" && type === "rejected" && stop();
    await using t = startServer({ listener, clock, deny: ["127.0.0.1"], lastWords, onEvent });
    const client = await t.connect();
    await t.until("rejected");
    await t.server.shutdown();
    assertEquals([clock.pending, await client.read().catch(() => null)], [0, null]);
  }
});
