import { assertEquals, assertRejects } from "@std/assert";
import { serve } from "@x/shouty";
import { testOnce } from "../../kit/bounded.ts";
import { faulty } from "../../kit/faults.ts";
import { memories, shoutsTo } from "../../kit/listeners.ts";
import { startServer } from "../../kit/server.ts";

testOnce("a listener that pauses after an error holds up no other", async () => {
  const { listener: [good, bad], clock } = memories(2);
  const failing = faulty(bad, { accepts: [new Error("EMFILE"), new Error("EMFILE")] });
  await using t = startServer({ listener: [failing, good], clock });
  const waiting = t.own(bad.connect());
  await waiting.write("hello\n");
  await t.until("accept-error");
  await shoutsTo(t.own(good.connect()), "hello");
  await clock.advance(5);
  await t.until("accept-error", 2);
  assertEquals(t.all("accept-error").map(({ retryMs }) => retryMs), [5, 10]);
  await shoutsTo(t.own(good.connect()), "hello");
  assertEquals(t.stats.accepted, 2);
  await clock.advance(10);
  assertEquals(await waiting.readLine(), "HELLO");
});

testOnce("a shutdown waits for the slowest listener, also for one that has failed", async () => {
  for (const [slowly, failing] of [["close", 0], ["close", 1], ["accept", 1], ["close", 2], ["accept", 2]] as const) {
    const { listener: [first, second], clock } = memories(2);
    const released = Promise.withResolvers<void>();
    const late = async (error: unknown) => {
      if (slowly === "accept") await released.promise;
      throw error;
    };
    const slow = {
      addr: first.addr,
      accept: () => failing === 0 ? first.accept() : first.accept().catch(late),
      close: () => (first.close(), slowly === "close" ? released.promise : undefined),
    };
    await using t = startServer({ listener: [slow, second], clock });
    if (failing === 0) {
      // The outstanding call gets a client, and the next one fails.
      first.accept = () => Promise.reject(new Deno.errors.BadResource("It has failed"));
      await t.own(first.connect()).closeWrite();
    } else if (failing === 1) second.close();
    if (failing < 2) await assertRejects(() => t.server.finished, Deno.errors.BadResource);
    const stopped = t.server.shutdown();
    await clock.advance(10_000);
    assertEquals(t.server.state, "draining");
    released.resolve();
    await stopped;
    assertEquals(t.server.state, "closed");
  }
});

testOnce("a listener that never closes holds a shutdown up until a second after the deadline", async () => {
  const never = new Promise<never>(() => {});
  for (const stuck of ["close", "accept"] as const) {
    const { listener: [first, second], clock } = memories(2);
    const hangs = {
      addr: first.addr,
      accept: () => first.accept().catch((error) => stuck === "accept" ? never : Promise.reject(error)),
      close: () => (first.close(), stuck === "close" ? never : undefined),
    };
    const server = serve({ listener: [hangs, second], clock, drainTimeout: 5000 });
    const stopped = server.shutdown();
    await clock.advance(5999);
    assertEquals(server.state, "draining");
    await clock.advance(1);
    assertEquals(await stopped, { closed: {}, handlersLeft: 0, listenersLeft: 1, durationMs: 6000 });
    await server.finished;
    assertEquals([server.state, clock.pending], ["closed", 0]);
  }
});

testOnce(
  "a call that asks connections to finish after the deadline holds no shutdown up that a listener does",
  async () => {
    const { listener: [first], clock } = memories(1);
    const hangs = {
      addr: first.addr,
      accept: () => first.accept(),
      close: () => (first.close(), new Promise<never>(() => {})),
    };
    const server = serve({ listener: hangs, clock, drainTimeout: 5000 });
    const stopped = server.shutdown();
    await clock.advance(5900);
    server.shutdown({ drain: "finish" });
    await clock.advance(100);
    assertEquals(server.state, "closed");
    assertEquals([(await stopped).durationMs, clock.pending], [6000, 0]);
  },
);

testOnce("a server whose listener has failed drains at once, without the delay of other shutdowns", async () => {
  const { listener: [listener], clock } = memories(1);
  await using t = startServer({ listener, clock, drainDelay: 60_000 });
  listener.close();
  await assertRejects(() => t.server.finished, Deno.errors.BadResource);
  await t.until("stopped");
  assertEquals(t.all("lame-duck"), []);
});
