import { assertEquals, assertLess, assertRejects } from "@std/assert";
import { AcceptRejection, type Transport } from "@x/shouty";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { Lobby, type Reception } from "../../ops/preparing_listener.ts";
import { test } from "../kit/bounded.ts";

/** A lobby in memory, where a test says when each connection is ready. */
function openLobby(reception: Partial<Reception> = {}) {
  const below = new MemoryListener();
  const clock = new FakeClock();
  const guests: (PromiseWithResolvers<Transport> & { transport: Transport })[] = [];
  const waitForTest = (transport: Transport) => {
    const guest = { ...Promise.withResolvers<Transport>(), transport };
    guests.push(guest);
    return guest.promise;
  };
  const { ready = waitForTest, timeout = 500, maxPending = 100 } = reception;
  const lobby = new Lobby(below, { ready, what: "password", reason: "tls-handshake", timeout, maxPending, clock });
  return { below, clock, guests, lobby };
}

/** Waits for a connection, which may be turned away before anybody looks. */
function ask(lobby: Lobby): Promise<Transport> {
  const accepting = lobby.accept();
  accepting.catch(() => {});
  return accepting;
}

/** Why the next connection was turned away. */
async function rejection(accepting: Promise<Transport>): Promise<string> {
  const { reason, cause } = await assertRejects(() => accepting, AcceptRejection);
  assertEquals(reason, "tls-handshake");
  return (cause as Error).message;
}

test("A lobby hands on connections as they get ready, not as they came", async () => {
  const { below, clock, guests, lobby } = openLobby();
  const accepting = ask(lobby);
  below.connect();
  below.connect();
  await clock.advance(0);
  guests[1].resolve(guests[1].transport);
  assertEquals(await accepting, guests[1].transport);
  guests[0].resolve(guests[0].transport);
  assertEquals(await lobby.accept(), guests[0].transport);
  lobby.close();
});

test("A lobby lets others have their turn in a storm of those who never get ready", async () => {
  const { below, guests, lobby } = openLobby({ maxPending: 2000 });
  const accepting = ask(lobby);
  for (let i = 0; i < 1500; i++) below.connect();
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertLess(guests.length, 500);
  while (guests.length < 1500) await new Promise((resolve) => setTimeout(resolve, 0));
  lobby.close();
  await assertRejects(() => accepting, Deno.errors.BadResource);
});

test("A lobby takes no turns for connections that are asked for and ready, as whoever asks has had one", async () => {
  const { below, lobby } = openLobby({ ready: (transport) => Promise.resolve(transport) });
  for (let i = 0; i < 500; i++) below.connect();
  let over = false;
  setTimeout(() => over = true, 0);
  for (let i = 0; i < 300; i++) await lobby.accept();
  assertEquals(over, false);
  lobby.close();
});

test("A lobby asks for no more connections than somebody waits for", async () => {
  const { below, clock, guests, lobby } = openLobby();
  const accepting = ask(lobby);
  for (let i = 0; i < 3; i++) below.connect();
  await clock.advance(0);
  assertEquals(guests.length, 3);
  guests[0].resolve(guests[0].transport);
  await accepting;
  // One was asked for before that one got ready.
  for (let i = 0; i < 3; i++) below.connect();
  await clock.advance(0);
  assertEquals(guests.length, 4);
  lobby.close();
});

test("A lobby closes and rejects a connection that fails, and goes on", async () => {
  const { below, clock, guests, lobby } = openLobby();
  const accepting = ask(lobby);
  using client = below.connect();
  await clock.advance(0);
  guests[0].reject(new Error("Wrong password"));
  assertEquals(await rejection(accepting), "Wrong password");
  assertEquals(await client.readAll(), "");
  const next = ask(lobby);
  below.connect();
  await clock.advance(0);
  guests[1].resolve(guests[1].transport);
  assertEquals(await next, guests[1].transport);
  lobby.close();
});

test("A lobby closes and rejects a connection that takes too long", async () => {
  const { below, clock, guests, lobby } = openLobby({ timeout: 500 });
  const accepting = ask(lobby);
  using client = below.connect();
  await clock.advance(499);
  assertEquals(guests.length, 1);
  await clock.advance(1);
  assertEquals(await rejection(accepting), "No password within 500 ms");
  assertEquals(await client.readAll(), "");
  // What it turns into too late is nobody's.
  guests[0].resolve(guests[0].transport);
  const next = ask(lobby);
  await clock.advance(0);
  assertEquals(clock.pending, 0);
  lobby.close();
  await assertRejects(() => next, Deno.errors.BadResource);
});

test("A lobby without a time limit sets no timer", async () => {
  const { below, clock, guests, lobby } = openLobby({ timeout: Infinity });
  const accepting = ask(lobby);
  below.connect();
  await clock.advance(1e9);
  assertEquals(clock.pending, 0);
  guests[0].resolve(guests[0].transport);
  await accepting;
  lobby.close();
});

test("A full lobby accepts nobody until there is room", async () => {
  const { below, clock, guests, lobby } = openLobby({ timeout: Infinity, maxPending: 2 });
  const accepting = ask(lobby);
  for (let i = 0; i < 3; i++) below.connect();
  await clock.advance(999);
  assertEquals(guests.length, 2);
  guests[1].reject(new Error("Wrong password"));
  await rejection(accepting);
  const next = ask(lobby);
  await clock.advance(0);
  assertEquals(guests.length, 3);
  lobby.close();
  await assertRejects(() => next, Deno.errors.BadResource);
});

test("In a full lobby, who has been there for a second makes room, the longest first", async () => {
  const { below, clock, guests, lobby } = openLobby({ timeout: Infinity, maxPending: 2 });
  const accepting = ask(lobby);
  using first = below.connect();
  await clock.advance(600);
  using _second = below.connect();
  await clock.advance(300);
  using _third = below.connect();
  await clock.advance(99);
  assertEquals(guests.length, 2);
  await clock.advance(1);
  assertEquals(await rejection(accepting), "No password while 2 were at it");
  assertEquals(await first.readAll(), "");
  const next = ask(lobby);
  await clock.advance(0);
  assertEquals(guests.length, 3);
  lobby.close();
  await assertRejects(() => next, Deno.errors.BadResource);
});

test("A lobby that closes drops everybody in it, those that nobody has asked for too", async () => {
  const { below, clock, guests, lobby } = openLobby();
  const accepting = ask(lobby);
  const clients = [below.connect(), below.connect(), below.connect()];
  await clock.advance(0);
  guests[0].resolve(guests[0].transport);
  guests[1].resolve(guests[1].transport);
  await accepting;
  await clock.advance(0);
  lobby.close();
  assertEquals(await clients[1].readAll(), "");
  assertEquals(await clients[2].readAll(), "");
  assertEquals(clock.pending, 0);
  guests[0].transport.close();
  await assertRejects(() => lobby.accept(), Deno.errors.BadResource);
});

test("A lobby that closes with somebody in it ends the outstanding accept when the one below has ended", async () => {
  const { below, clock, lobby } = openLobby();
  const release = below.close.bind(below);
  // As a port is, which is not free until then.
  below.close = () => {};
  let over = false;
  const accepting = ask(lobby);
  accepting.catch(() => over = true);
  below.connect();
  await clock.advance(0);
  const closed = lobby.close();
  await clock.advance(0);
  assertEquals(over, false);
  release();
  await assertRejects(() => accepting, Deno.errors.BadResource);
  await closed;
});

test("A lobby that closes while it is full ends the accept that waits", async () => {
  const { below, clock, lobby } = openLobby({ maxPending: 1 });
  const accepting = ask(lobby);
  below.connect();
  await clock.advance(0);
  lobby.close();
  await assertRejects(() => accepting, Deno.errors.BadResource);
  assertEquals(clock.pending, 0);
});

test("A lobby passes on what goes wrong below, and takes one accept at a time", async () => {
  const { below, lobby } = openLobby();
  const accepting = ask(lobby);
  await assertRejects(() => lobby.accept(), Deno.errors.Busy);
  below.close();
  await assertRejects(() => accepting, Deno.errors.BadResource);
});
