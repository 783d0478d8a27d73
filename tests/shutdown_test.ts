import { assertEquals } from "@std/assert";
import { serve, type Server, type ServerEvent } from "@x/shouty";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { test } from "./bounded.ts";
import { faulty } from "./faults.ts";
import { inMemory, startServer } from "./server.ts";

test("shutdown() that is called from the hook that it calls is one shutdown", async () => {
  const clock = new FakeClock();
  const events: string[] = [];
  const server: Server = serve({
    listener: new MemoryListener(),
    clock,
    onEvent: (event) => {
      events.push(event.type);
      if (event.type === "draining") server.shutdown({ drain: "finish" });
    },
  });
  await server.shutdown();
  assertEquals([server.state, events], ["closed", ["listening", "draining", "stopped"]]);
});

test("a connection that is accepted while a shutdown begins is somebody's, or closed", async () => {
  for (let hops = 0; hops < 12; hops++) {
    const { listener, clock } = inMemory();
    await using t = startServer({ listener, clock });
    const client = await t.connect();
    for (let i = 0; i < hops; i++) await Promise.resolve();
    const stopped = t.server.shutdown({ drainTimeout: 100 });
    await clock.advance(100);
    await stopped;
    assertEquals(t.stats.active, 0);
    assertEquals(await client.read().catch(() => null), null);
  }
});

test("shutdown() cuts an acceptor's wait short, also one that begins in its own hook", async () => {
  for (const type of ["accept-error", "nothing"]) {
    const clock = new FakeClock();
    const listener = faulty(new MemoryListener(), { accepts: [new Error("EMFILE")] });
    const onEvent = (event: ServerEvent) => void (event.type === type && t.server.shutdown());
    await using t = startServer({ listener, clock, onEvent });
    await t.until("accept-error");
    await t.server.shutdown();
    assertEquals([t.server.state, clock.now(), clock.pending], ["closed", 0, 0]);
  }
});
