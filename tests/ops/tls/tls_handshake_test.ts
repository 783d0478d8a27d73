import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { formatAddr, type Transport } from "@x/shouty";
import { listenTls, proxyProtocol, tlsCredentials, type TlsServerCredentials } from "@x/shouty/ops";
import { FakeClock, MemoryListener, TestClient } from "@x/shouty/testing";
import { test, testOnce } from "../../kit/bounded.ts";
import { assertFreed } from "../../kit/sockets/freed_port.ts";
import { listenLoopback, startServer } from "../../kit/server.ts";
import { AUTHORITY, IDENTITY, startTls } from "../../kit/tls.ts";

test("A client that begins no handshake delays no other, and is rejected at the deadline", async () => {
  const clock = new FakeClock();
  await using t = await startTls({ clock, handshakeTimeout: 10_000 });
  const silent = await t.connect();
  const half = await t.connect();
  // A ClientHello's first bytes.
  await half.write(Uint8Array.of(22, 3, 1, 2, 0, 1));
  assertEquals(await t.talkTls("hello"), "HELLO\n");
  await clock.advance(9_999);
  assertEquals(t.all("rejected"), []);
  await clock.advance(1);
  const { reason, remoteAddr, error } = await t.until("rejected", 2);
  assertEquals([reason, remoteAddr], ["tls-handshake", half.addr]);
  assertEquals((error as Error).message, "No TLS handshake within 10000 ms");
  assertEquals([await silent.readAll(), await half.readAll()], ["", ""]);
  assertEquals(await t.talkTls("hello"), "HELLO\n");
});

testOnce(
  "Credentials of the caller's own that say no time for a handshake have the default, and no wrong one",
  async () => {
    const { certificate } = await tlsCredentials(IDENTITY);
    const accept = (transport: Transport) => transport.read(new Uint8Array(1)) as Promise<never>;
    const own = (handshakeTimeout: unknown) => {
      return { certificate, accept, handshakeTimeout, reload: () => Promise.resolve() } as TlsServerCredentials;
    };
    for (const wrong of [NaN, -1, "1"]) {
      await assertRejects(() => listenTls({ credentials: own(wrong) }), Error, "Cannot use handshakeTimeout");
    }
    const clock = new FakeClock();
    const memory = new MemoryListener();
    const listener = await listenTls({ listener: memory, credentials: own(undefined), clock });
    await using t = startServer({ listener, clock });
    using _client = memory.connect();
    await clock.advance(9_999);
    assertEquals(t.all("rejected"), []);
    await clock.advance(1);
    assertEquals((await t.until("rejected")).reason, "tls-handshake");
  },
);

test("Handshakes are limited in number, and a silent client makes room", async () => {
  const clock = new FakeClock();
  await using t = await startTls({ clock, maxHandshakes: 2 });
  const silent = [await t.connect(), await t.connect()];
  const talking = t.talkTls("hello");
  assertEquals(await silent[0].write(Uint8Array.of(22)), undefined);
  while (t.stats.queued < 2) await new Promise((resolve) => setTimeout(resolve, 1));
  await clock.advance(1000);
  assertEquals(await talking, "HELLO\n");
  assertEquals(await silent[0].readAll(), "");
  assertMatch((t.all("rejected")[0].error as Error).message, /^No TLS handshake while 2 connections were pending$/);
});

test("Plain text at a TLS port gets an alert, and is rejected", async () => {
  await using t = await startTls();
  const client = await t.connect();
  await client.write("hello\n");
  const [type, major, , , , level] = (await client.read())!;
  assertEquals([type, major, level], [21, 3, 2]);
  assertEquals(await client.read(), null);
  const { reason, error } = await t.until("rejected");
  assertEquals(reason, "tls-handshake");
  assertMatch((error as Error).message, /^received corrupt message/);
  assertEquals(await t.talkTls("hello"), "HELLO\n");
});

test("A client that leaves during the handshake is rejected", async () => {
  await using t = await startTls();
  const client = await t.connect();
  await client.write(Uint8Array.of(22));
  client.close();
  const { error } = await t.until("rejected");
  assertEquals((error as Error).message, "The peer ended the connection during the TLS handshake");
});

test("TLS stands behind the PROXY protocol, as it does on the wire", async () => {
  const listener = proxyProtocol(listenLoopback(), { from: "127.0.0.1" });
  await using t = await startTls({ listener });
  const conn = await Deno.connect({ port: t.port });
  await conn.write(new TextEncoder().encode("PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n"));
  const secure = await Deno.startTls(conn, { hostname: "localhost", caCerts: [AUTHORITY.cert] });
  const client = t.own(new TestClient(secure));
  await client.write("hello\n");
  assertEquals(await client.readLine(), "HELLO");
  const { remoteAddr } = t.all("accepted")[0].conn;
  assertEquals(formatAddr(remoteAddr), "192.0.2.7:56324");
  // A failed handshake is reported with the client's address, too.
  const other = await t.connect();
  await other.write("PROXY TCP4 192.0.2.8 192.0.2.1 56325 443\r\nhello\n");
  assertEquals(formatAddr((await t.until("rejected")).remoteAddr), "192.0.2.8:56325");
});

testOnce("A TLS listener that is closed frees its port, and drops handshakes", async () => {
  const listener = await listenTls({ hostname: "127.0.0.1", port: 0, ...IDENTITY });
  const { port } = listener.addr as Deno.NetAddr;
  const accepting = assertRejects(() => listener.accept(), Deno.errors.BadResource);
  using client = new TestClient(await Deno.connect({ port }));
  await client.write(Uint8Array.of(22));
  listener.close();
  await accepting;
  await assertFreed(port);
});

testOnce("listenTls() refuses wrong options, and binds nothing", async () => {
  const wrong: [string, unknown][] = [["hostname", 5], ["hostname", ""], ["port", -1], ["listener", {}], ["clock", {}]];
  for (const [name, value] of wrong) {
    const { message } = await assertRejects(() => listenTls({ ...IDENTITY, port: 0, [name]: value }), Error);
    assertMatch(message, new RegExp(`^Cannot use ${name}\\b.*: expected`));
  }
});
