import { assertEquals, assertLess, assertRejects } from "@std/assert";
import { AcceptRejection, type Transport } from "@x/shouty";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { type Preparation, PreparingListener } from "../../../ops/wrappers/preparing_listener.ts";
import { test } from "../../kit/bounded.ts";

/** A preparing listener in memory; a test decides when each connection is ready. */
function openListener(preparation: Partial<Preparation> = {}) {
  const inner = new MemoryListener();
  const clock = new FakeClock();
  const pending: (PromiseWithResolvers<Transport> & { transport: Transport })[] = [];
  const waitForTest = (transport: Transport) => {
    const connection = { ...Promise.withResolvers<Transport>(), transport };
    pending.push(connection);
    return connection.promise;
  };
  const { prepare = waitForTest, timeout = 500, maxPending = 100 } = preparation;
  const limits = { timeout, maxPending, clock };
  const listener = new PreparingListener(inner, { prepare, what: "password", reason: "tls-handshake", ...limits });
  return { inner, clock, pending, listener };
}

/** Calls `accept`. The promise may reject before the test awaits it, so its rejection counts as handled. */
function accept(listener: PreparingListener): Promise<Transport> {
  const accepting = listener.accept();
  accepting.catch(() => {});
  return accepting;
}

/** The error message of the next connection's rejection. */
async function rejection(accepting: Promise<Transport>): Promise<string> {
  const { reason, cause } = await assertRejects(() => accepting, AcceptRejection);
  assertEquals(reason, "tls-handshake");
  return (cause as Error).message;
}

test("A preparing listener gives connections in the order in which they get ready", async () => {
  const { inner, clock, pending, listener } = openListener();
  const accepting = accept(listener);
  inner.connect();
  inner.connect();
  await clock.advance(0);
  pending[1].resolve(pending[1].transport);
  assertEquals(await accepting, pending[1].transport);
  pending[0].resolve(pending[0].transport);
  assertEquals(await listener.accept(), pending[0].transport);
  listener.close();
});

test("A storm of connections that never get ready leaves turns to others", async () => {
  const { inner, pending, listener } = openListener({ maxPending: 2000 });
  const accepting = accept(listener);
  for (let i = 0; i < 1500; i++) inner.connect();
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertLess(pending.length, 500);
  while (pending.length < 1500) await new Promise((resolve) => setTimeout(resolve, 0));
  listener.close();
  await assertRejects(() => accepting, Deno.errors.BadResource);
});

test("A preparing listener takes no turn for a connection that the server has taken one for", async () => {
  const { inner, listener } = openListener({ prepare: (transport) => Promise.resolve(transport) });
  for (let i = 0; i < 500; i++) inner.connect();
  let over = false;
  setTimeout(() => over = true, 0);
  for (let i = 0; i < 300; i++) await listener.accept();
  assertEquals(over, false);
  listener.close();
});

test("A preparing listener accepts no more connections than the server asks for", async () => {
  const { inner, clock, pending, listener } = openListener();
  const accepting = accept(listener);
  for (let i = 0; i < 3; i++) inner.connect();
  await clock.advance(0);
  assertEquals(pending.length, 3);
  pending[0].resolve(pending[0].transport);
  await accepting;
  // The inner accept was called before the first connection got ready.
  for (let i = 0; i < 3; i++) inner.connect();
  await clock.advance(0);
  assertEquals(pending.length, 4);
  listener.close();
});

test("A preparing listener closes and rejects a connection that fails, and goes on", async () => {
  const { inner, clock, pending, listener } = openListener();
  const accepting = accept(listener);
  using client = inner.connect();
  await clock.advance(0);
  pending[0].reject(new Error("Wrong password"));
  assertEquals(await rejection(accepting), "Wrong password");
  assertEquals(await client.readAll(), "");
  const next = accept(listener);
  inner.connect();
  await clock.advance(0);
  pending[1].resolve(pending[1].transport);
  assertEquals(await next, pending[1].transport);
  listener.close();
});

test("A preparing listener closes and rejects a connection that takes too long", async () => {
  const { inner, clock, pending, listener } = openListener({ timeout: 500 });
  const accepting = accept(listener);
  using client = inner.connect();
  await clock.advance(499);
  assertEquals(pending.length, 1);
  await clock.advance(1);
  assertEquals(await rejection(accepting), "No password within 500 ms");
  assertEquals(await client.readAll(), "");
  // A connection that gets ready too late is ignored.
  pending[0].resolve(pending[0].transport);
  const next = accept(listener);
  await clock.advance(0);
  assertEquals(clock.pending, 0);
  listener.close();
  await assertRejects(() => next, Deno.errors.BadResource);
});

test("A preparing listener whose clock fails closes the connection, and nothing is left that nobody waits for", async () => {
  const inner = new MemoryListener();
  const prepare = async (transport: Transport) => {
    await transport.read(new Uint8Array(1));
    return transport;
  };
  const setTimer = () => {
    throw new Error("No timer");
  };
  const limits = { timeout: 500, maxPending: 100, clock: { now: () => 0, setTimer } };
  const listener = new PreparingListener(inner, { prepare, what: "password", reason: "tls-handshake", ...limits });
  using client = inner.connect();
  await assertRejects(() => listener.accept(), Deno.errors.NotConnected, "No timer");
  assertEquals(await client.read(), null);
  await listener.close();
});

test("A preparing listener without a time limit sets no timer", async () => {
  const { inner, clock, pending, listener } = openListener({ timeout: Infinity });
  const accepting = accept(listener);
  inner.connect();
  await clock.advance(1e9);
  assertEquals(clock.pending, 0);
  pending[0].resolve(pending[0].transport);
  await accepting;
  listener.close();
});

test("While maxPending connections are pending, no other is accepted", async () => {
  const { inner, clock, pending, listener } = openListener({ timeout: Infinity, maxPending: 2 });
  const accepting = accept(listener);
  for (let i = 0; i < 3; i++) inner.connect();
  await clock.advance(999);
  assertEquals(pending.length, 2);
  pending[1].reject(new Error("Wrong password"));
  await rejection(accepting);
  const next = accept(listener);
  await clock.advance(0);
  assertEquals(pending.length, 3);
  listener.close();
  await assertRejects(() => next, Deno.errors.BadResource);
});

test("While maxPending connections are pending, the longest is rejected after a second to make room", async () => {
  const { inner, clock, pending, listener } = openListener({ timeout: Infinity, maxPending: 2 });
  const accepting = accept(listener);
  using first = inner.connect();
  await clock.advance(600);
  using _second = inner.connect();
  await clock.advance(300);
  using _third = inner.connect();
  await clock.advance(99);
  assertEquals(pending.length, 2);
  await clock.advance(1);
  assertEquals(await rejection(accepting), "No password while 2 connections were pending");
  assertEquals(await first.readAll(), "");
  const next = accept(listener);
  await clock.advance(0);
  assertEquals(pending.length, 3);
  listener.close();
  await assertRejects(() => next, Deno.errors.BadResource);
});

test("A preparing listener that closes closes its connections, pending or ready", async () => {
  const { inner, clock, pending, listener } = openListener();
  const accepting = accept(listener);
  const clients = [inner.connect(), inner.connect(), inner.connect()];
  await clock.advance(0);
  pending[0].resolve(pending[0].transport);
  pending[1].resolve(pending[1].transport);
  await accepting;
  await clock.advance(0);
  listener.close();
  assertEquals(await clients[1].readAll(), "");
  assertEquals(await clients[2].readAll(), "");
  assertEquals(clock.pending, 0);
  pending[0].transport.close();
  await assertRejects(() => listener.accept(), Deno.errors.BadResource);
});

test("A preparing listener that closes ends the outstanding accept once the inner one has ended", async () => {
  const { inner, clock, listener } = openListener();
  const release = inner.close.bind(inner);
  // As with a port, which is free only once the accept has ended.
  inner.close = () => {};
  let over = false;
  const accepting = accept(listener);
  accepting.catch(() => over = true);
  inner.connect();
  await clock.advance(0);
  const closed = listener.close();
  await clock.advance(0);
  assertEquals(over, false);
  release();
  await assertRejects(() => accepting, Deno.errors.BadResource);
  await closed;
});

test("A preparing listener that closes ends an accept that waits for room", async () => {
  const { inner, clock, listener } = openListener({ maxPending: 1 });
  const accepting = accept(listener);
  inner.connect();
  await clock.advance(0);
  listener.close();
  await assertRejects(() => accepting, Deno.errors.BadResource);
  assertEquals(clock.pending, 0);
});

test("A preparing listener passes on the inner listener's errors, and takes one accept at a time", async () => {
  const { inner, listener } = openListener();
  const accepting = accept(listener);
  await assertRejects(() => listener.accept(), Deno.errors.Busy);
  inner.close();
  await assertRejects(() => accepting, Deno.errors.BadResource);
});
