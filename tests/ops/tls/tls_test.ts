import { assertEquals, assertRejects } from "@std/assert";
import type { Transport } from "@x/shouty";
import { listenTls } from "@x/shouty/ops";
import { TestClient } from "@x/shouty/testing";
import { test, testOnce } from "../../kit/bounded.ts";
import { CANNOT_ASK, isSet } from "../../kit/sockets/socket_options.ts";
import { AUTHORITY, IDENTITY, startTls } from "../../kit/tls.ts";

const MIB = 1024 * 1024;

test("Under TLS, a server answers lines, and a half-closed client gets all its replies and a proper end", async () => {
  await using t = await startTls();
  assertEquals(await t.talkTls("Hello.\r\nIs it you?"), "HELLO.\nIS IT YOU?\n");
  const { reason, lines, bytesIn, bytesOut } = await t.closed();
  assertEquals([reason, lines, bytesIn, bytesOut], ["end", 2, 18, 18]);
});

test("Under TLS, a handler can speak first, and its end is the connection's", async () => {
  await using t = await startTls({}, {}, {
    async conversation(conn) {
      await conn.write("Welcome\n");
      for await (const line of conn.lines) if (line === "bye") return;
    },
  });
  const client = await t.connectTls();
  assertEquals(await client.readLine(), "Welcome");
  await client.write("hello\nbye\n");
  assertEquals(await client.readLine(), null);
  client.close();
  assertEquals((await t.closed()).reason, "closed");
});

test("Under TLS, megabytes go through while both sides wait for each other, and not a byte gets lost", async () => {
  await using t = await startTls();
  const client = await t.connectTls();
  const line = `${"all work and no play ".repeat(40)}\n`;
  const lines = Math.ceil(8 * MIB / line.length);
  const writing = client.write(line.repeat(lines)).then(() => client.closeWrite());
  assertEquals(await client.readAll() === line.toUpperCase().repeat(lines), true);
  await writing;
  assertEquals((await t.closed()).lines, lines);
});

testOnce("Under TLS, reads get what there is in the order in which it came, however little they ask for", async () => {
  await using t = await connected();
  const sent = crypto.getRandomValues(new Uint8Array(20_000));
  await t.client.write(sent);
  await t.client.closeWrite();
  const got: number[] = [];
  for (let size = 1;; size = size % 977 + 1) {
    const into = new Uint8Array(size);
    const count = await t.server.read(into);
    if (count === null) break;
    got.push(...into.subarray(0, count));
  }
  assertEquals(Uint8Array.from(got), sent);
  assertEquals(await t.server.read(new Uint8Array(1)), null);
});

testOnce("Under TLS, the inner transport is not read while the server does not read", async () => {
  await using t = await connected();
  let written = 0;
  const pouring = (async () => {
    for (;;) written += await t.raw.write(new Uint8Array(64 * 1024));
  })();
  pouring.catch(() => {});
  // Writes until the kernel's buffers are full.
  let before = -1;
  while (before !== written) {
    before = written;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assertEquals(written < 32 * MIB, true, `${written}`);
  assertEquals(await t.server.read(new Uint8Array(1)), 1);
});

testOnce(
  "Under TLS, a write is done when the kernel has taken it, and one that waits ends with the connection",
  async () => {
    await using t = await connected();
    let written = 0;
    const pouring = (async () => {
      for (;;) written += await t.server.write(new Uint8Array(64 * 1024));
    })();
    const failing = assertRejects(() => pouring, Deno.errors.Interrupted);
    let before = -1;
    while (before !== written) {
      before = written;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    assertEquals(written < 32 * MIB, true, `${written}`);
    t.server.close();
    await failing;
  },
);

testOnce("Under TLS, a connection can be closed twice, and a read that waits ends with it", async () => {
  await using t = await connected();
  const failing = assertRejects(() => t.server.read(new Uint8Array(1)), Deno.errors.Interrupted);
  t.server.close();
  t.server.close();
  await failing;
  assertEquals(await t.client.readAll(), "");
  await assertRejects(() => t.server.write(new Uint8Array(1)), Deno.errors.Interrupted);
});

testOnce(
  "Under TLS, an answer that is cut off by a reset ends without close_notify, and one that is closed with it",
  async () => {
    for (const end of ["reset", "close"] as const) {
      await using t = await connected();
      await t.server.write(new TextEncoder().encode("half an ans"));
      t.server[end]!();
      // A second call is allowed, of `reset` and of `close`.
      t.server[end]!();
      const reading = t.client.readAll();
      if (end === "close") assertEquals(await reading, "half an ans");
      else await assertRejects(() => reading, Deno.errors.UnexpectedEof);
      await assertRejects(() => t.server.write(new Uint8Array(1)), Deno.errors.Interrupted);
    }
  },
);

testOnce("Under TLS, a reset ends a read and a write that wait", async () => {
  await using t = await connected();
  const { pouring } = await poured(t.server);
  const failing = [
    assertRejects(() => pouring, Deno.errors.Interrupted),
    assertRejects(() => t.server.read(new Uint8Array(1)), Deno.errors.Interrupted),
  ];
  t.server.reset!();
  await Promise.all(failing);
});

testOnce("Under TLS, heldBytes counts output that waits and input that is not read, until it is gone", async () => {
  await using t = await connected();
  assertEquals(t.server.heldBytes, 0);
  const total = 64 * MIB;
  const { pouring, written } = await poured(t.server, total);
  const held = t.server.heldBytes!;
  // Of a large write, no more than three records are encrypted in advance.
  assertEquals(held > 0 && held < 64 * 1024, true, `${held}`);
  assertEquals(written < total, true);
  for (let left = total; left > 0;) left -= (await t.client.read())!.length;
  await pouring;
  assertEquals(t.server.heldBytes, 0);
  await t.client.write(new Uint8Array(1000));
  assertEquals(await t.server.read(new Uint8Array(1)), 1);
  assertEquals(t.server.heldBytes! >= 999, true, `${t.server.heldBytes}`);
  assertEquals(await t.server.read(new Uint8Array(1000)), 999);
  // After a read that fills the buffer it grows, and after one that leaves it nearly empty it shrinks.
  for (let i = 0; i < 10 && t.server.heldBytes! > 0; i++) {
    await t.client.write("x");
    await t.server.read(new Uint8Array(1));
  }
  assertEquals(t.server.heldBytes, 0);
});

test(
  "Under TLS, the kernel has Nagle's algorithm off as soon as hands have been shaken",
  async () => {
    await using t = await startTls();
    const client = await t.connectTls();
    const { port } = client.addr as Deno.NetAddr;
    assertEquals(isSet("TCP_NODELAY", t.port, port), true);
  },
  60,
  CANNOT_ASK,
);

/** Writes until the kernel takes no more for a peer that does not read. */
async function poured(server: Transport, total = Infinity): Promise<{ pouring: Promise<void>; written: number }> {
  let written = 0;
  const pour = async () => {
    while (written < total) written += await server.write(new Uint8Array(Math.min(MIB, total - written)));
  };
  const pouring = pour();
  pouring.catch(() => {});
  for (let before = -1; before !== written;) {
    before = written;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return { pouring, written };
}

/** Both ends of a TLS connection, without a server. */
async function connected() {
  const listener = await listenTls({ hostname: "127.0.0.1", port: 0, ...IDENTITY });
  const { port } = listener.addr as Deno.NetAddr;
  const connecting = Deno.connectTls({ port, caCerts: [AUTHORITY.cert] });
  const accepting = listener.accept();
  const raw = await connecting;
  await raw.handshake();
  const server = await accepting;
  const client = new TestClient(raw);
  return {
    ...{ server, raw, client },
    async [Symbol.asyncDispose]() {
      client[Symbol.dispose]();
      server.close();
      listener.close();
      await new Promise((resolve) => setTimeout(resolve, 0));
    },
  };
}
