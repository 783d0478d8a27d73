import { assertEquals, assertRejects } from "@std/assert";
import { type Conn, connect, connectPool, type PoolEvent } from "@x/shouty";
import { FakeClock, MemoryListener, TestClient } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";
import { inMemory, startServer } from "../kit/server.ts";

const { ConnectionRefused, ConnectionReset, TimedOut } = Deno.errors;

test("code that connects talks in memory with a server's own handler, on one clock", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, idleTimeout: 1000 });
  const conn = await connect({ dial: () => listener.dial(), clock });
  await conn.write("hello\n");
  assertEquals(await conn.readLine(), "HELLO");
  assertEquals([conn.remoteAddr, conn.localAddr], [listener.addr, t.all("accepted")[0].conn.remoteAddr]);
  await clock.advance(1000);
  assertEquals([await conn.readLine(), (await t.closed()).reason], [null, "idle"]);
  conn.close();
  await conn.closed;
});

test("a pool in memory talks with a server's own handler, and each connection has an address of its own", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock });
  const replies: (string | null)[] = [];
  const ask = async (conn: Conn) => {
    await conn.write("one\n");
    replies.push(await conn.readLine());
    await new Promise((resolve) => conn.finishing.addEventListener("abort", resolve));
  };
  const pool = connectPool({ dial: () => listener.dial(), clock, size: 2 }, ask);
  await t.until("accepted", 2);
  await clock.advance(0);
  const ports = t.all("accepted").map(({ conn }) => (conn.remoteAddr as Deno.NetAddr).port);
  assertEquals([replies, ports], [["ONE", "ONE"], [49_152, 49_153]]);
  await pool.shutdown({ drain: "finish" });
});

test("a test plays the server of code that connects: it reads, answers, is silent, and resets", async () => {
  const { listener, clock } = inMemory();
  const conn = await connect({ dial: () => listener.dial(), clock });
  const peer = new TestClient(await listener.accept());
  await conn.write("PING\n");
  assertEquals(await peer.readLine(), "PING");
  const late = assertRejects(() => conn.readLine({ timeout: 500 }), TimedOut);
  await clock.advance(500);
  await late;
  await peer.write("PONG\n");
  assertEquals(await conn.readLine(), "PONG");
  const line = conn.readLine();
  peer.reset();
  assertEquals([await line, conn.ending], [null, "reset"]);
});

test("a dial in memory waits in the backlog, and is refused or reset when the listener is closed", async () => {
  const listener = new MemoryListener();
  const accepting = listener.accept();
  const [first, second] = [await listener.dial(), await listener.dial()];
  assertEquals((await accepting).remoteAddr, first.localAddr);
  listener.close();
  await assertRejects(() => second.read(new Uint8Array(1)), ConnectionReset);
  const refused = listener.dial();
  await assertRejects(() => refused, ConnectionRefused, "the listener is closed");
  await assertRejects(() => connect({ dial: () => listener.dial() }), ConnectionRefused);
});

test("a dial that is slow counts as connecting, and one that is too slow leaves nothing open", async () => {
  const clock = new FakeClock();
  const listener = new MemoryListener();
  const dial = async (ms: number) => {
    await new Promise<void>((resolve) => clock.setTimer(resolve, ms));
    return await listener.dial();
  };
  const conn = connect({ dial: () => dial(500), clock, connectTimeout: 501 });
  await clock.advance(500);
  (await conn).close();
  new TestClient(await listener.accept()).close();
  const late = connect({ dial: () => dial(500), clock, connectTimeout: 499 }).catch((error) => error);
  await clock.advance(500);
  assertEquals((await late) instanceof TimedOut, true);
  assertEquals(await new TestClient(await listener.accept()).read(), null);
  assertEquals(clock.pending, 0);
});

test("a server that is down and up again is another listener in memory", async () => {
  const clock = new FakeClock();
  const events: PoolEvent["type"][] = [];
  let upstream = new MemoryListener();
  const options = { dial: () => upstream.dial(), clock, minBackoff: 100 };
  const pool = connectPool({ ...options, onEvent: ({ type }) => void events.push(type) }, async (conn) => {
    await conn.readLine();
  });
  await clock.advance(0);
  upstream.close();
  await clock.advance(100);
  upstream = new MemoryListener();
  await clock.advance(200);
  const peer = new TestClient(await upstream.accept());
  await peer.closeWrite();
  assertEquals(await peer.read(), null);
  await pool.shutdown();
  const wanted = ["accepted", "closed", "connect-error", "accepted", "closed", "draining", "stopped"];
  assertEquals(events, wanted as typeof events);
});
