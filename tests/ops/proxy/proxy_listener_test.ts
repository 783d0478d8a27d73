import { assertEquals, assertInstanceOf, assertRejects, assertThrows } from "@std/assert";
import { AcceptRejection, formatAddr, type Listener, serve, type Transport } from "@x/shouty";
import { proxyProtocol } from "@x/shouty/ops";
import { type FakeClock, MemoryListener } from "@x/shouty/testing";
import { test } from "../../kit/bounded.ts";
import { addr, HEADER, make, OTHER, PROXY, settle } from "../../kit/figures/proxy_memory.ts";
import { startServer } from "../../kit/server.ts";

test("A header has five seconds from the connection's start, however its bytes come", async () => {
  const { below, clock, listener, misuse } = make();
  await using t = startServer({ listener, clock });
  using late = below.connect(PROXY);
  for (const byte of HEADER.slice(0, 4)) {
    await late.write(byte);
    await clock.advance(1249);
  }
  using prompt = below.connect(PROXY);
  await clock.advance(3);
  assertEquals(t.all("rejected"), []);
  await clock.advance(1);
  const [{ remoteAddr, reason, error }] = t.all("rejected");
  assertEquals([remoteAddr, reason], [PROXY, "proxy-header"]);
  assertEquals((error as Error).message, "No PROXY header within 5000 ms");
  await prompt.write(HEADER + "hello\n");
  assertEquals(await prompt.readLine(), "HELLO");
  assertEquals(t.all("rejected").length, 1);
  assertEquals(misuse, []);
});

test("A header that is there has no deadline any more, nor has one whose deadline is off", async () => {
  const { below, clock, listener } = make();
  const accepted = listener.accept();
  using client = below.connect(PROXY);
  await settle(clock);
  assertEquals(clock.pending, 1);
  await client.write(HEADER);
  await accepted;
  assertEquals(clock.pending, 0);
  listener.close();

  const endless = make({ headerTimeout: Infinity });
  const waiting = endless.listener.accept();
  using patient = endless.below.connect(PROXY);
  await endless.clock.advance(1e12);
  assertEquals(endless.clock.pending, 0);
  await patient.write(HEADER);
  assertEquals((await waiting).remoteAddr, { ...addr("192.0.2.7"), port: 56_324 });
  endless.listener.close();
});

test("When too many headers are awaited, the connection that waited longest goes, after a second", async () => {
  const { below, clock, listener, misuse } = make({ maxPending: 3 });
  await using t = startServer({ listener, clock });
  const clients = Array.from({ length: 5 }, (_, i) => below.connect({ ...PROXY, port: i }));
  using other = below.connect(OTHER);
  await other.write("hello\n");
  await clock.advance(999);
  assertEquals([t.all("rejected"), t.all("accepted")], [[], []]);
  await clock.advance(1);
  assertEquals(await other.readLine(), "HELLO");
  assertEquals(t.all("rejected").map(({ remoteAddr }) => (remoteAddr as Deno.NetAddr).port), [0, 1, 2]);
  assertEquals((t.all("rejected")[0].error as Error).message, "No PROXY header while 3 connections were pending");
  for (const client of clients.slice(3)) {
    await client.write(HEADER + "hello\n");
    assertEquals(await client.readLine(), "HELLO");
  }
  assertEquals(t.stats.rejected, 3);
  for (const client of clients) client[Symbol.dispose]();
  assertEquals(misuse, []);
});

test("Connections come in the order in which their headers are complete", async () => {
  const { below, clock, listener } = make();
  const clients = [1, 2, 3].map((port) => below.connect({ ...PROXY, port }));
  const first = listener.accept();
  await settle(clock);
  for (const at of [1, 0, 2]) await clients[at].write(`PROXY TCP4 1.1.1.1 2.2.2.2 ${at} 1\r\n`);
  await settle(clock);
  const transports = [await first, await listener.accept(), await listener.accept()];
  assertEquals(transports.map(({ remoteAddr }) => (remoteAddr as Deno.NetAddr).port), [1, 0, 2]);
  for (const transport of transports) transport.close();
  for (const client of clients) client.close();
  listener.close();
});

test("While the server does not accept, the inner listener does not either", async () => {
  const { below, clock, listener } = make();
  using silent = below.connect(PROXY);
  const accepted = listener.accept();
  await assertRejects(() => listener.accept(), Deno.errors.Busy, "another accept is outstanding");
  const clients = Array.from({ length: 5 }, () => below.connect(OTHER));
  (await accepted).close();
  await settle(clock);
  const { asked } = below;
  assertEquals(asked, 3, "The silent one, the one that was given, and one that was asked for meanwhile");
  (await listener.accept()).close();
  await silent.write(HEADER);
  await settle(clock);
  (await listener.accept()).close();
  assertEquals(below.asked, asked, "What there is is enough");
  listener.close();
  for (const client of clients) client[Symbol.dispose]();
});

test("An inner accept that fails makes an outer one fail, even if the outer one comes later", async () => {
  const { below, clock, listener } = make();
  const emfile = Object.assign(new Error("Too many open files"), { code: "EMFILE" });
  below.errors.push(emfile);
  await using t = startServer({ listener, clock });
  await settle(clock);
  assertEquals(t.all("accept-error").map(({ error, retryMs }) => [error, retryMs]), [[emfile, 5]]);
  using client = below.connect(PROXY);
  await client.write(HEADER + "hello\n");
  await clock.advance(5);
  assertEquals(await client.readLine(), "HELLO");
});

test("A listener that is closed from below ends the server's accepting", async () => {
  const { below, clock, listener } = make();
  const server = serve({ listener, clock });
  below.close();
  await assertRejects(() => server.finished, Deno.errors.BadResource);
  await server.shutdown();
});

test("Closing ends the connections that wait for their headers, and those not accepted yet", async () => {
  const { below, clock, listener, misuse } = make();
  const [first, ready, silent] = [1, 2, 3].map(() => below.connect(PROXY));
  const accepted = listener.accept();
  await settle(clock);
  await first.write(HEADER);
  await ready.write(HEADER);
  (await accepted).close();
  await settle(clock);
  listener.close();
  for (const client of [ready, silent]) {
    // The connection ends with a reset or an end of input; both show that the server has closed it.
    assertEquals(await client.readAll().catch(() => ""), "");
    await assertRejects(() => client.write("x"));
  }
  assertEquals(clock.pending, 0);
  await assertRejects(() => listener.accept(), Deno.errors.BadResource);
  assertEquals(misuse, []);
});

test("Whether connections keep the process alive follows the listener, header or not", async () => {
  const { below, clock } = make();
  const listener = proxyProtocol(below, { from: "10.0.0.1", clock });
  const [, second, third] = Array.from({ length: 3 }, () => below.connect(PROXY));
  const accepted = listener.accept();
  await settle(clock);
  listener.unref?.();
  assertEquals(below.kept.splice(0), ["unref listener", "unref", "unref", "unref"]);
  below.connect(PROXY);
  await settle(clock);
  assertEquals(below.kept.splice(0), ["unref"]);
  await second.write(HEADER);
  const transport = await accepted;
  await third.write(HEADER);
  await settle(clock);
  listener.ref?.();
  assertEquals(below.kept.splice(0), ["ref listener", "ref", "ref", "ref"], "The accepted one is another's");
  const next = await listener.accept();
  listener.accept().catch(() => {});
  below.connect(PROXY);
  await settle(clock);
  assertEquals(below.kept.splice(0), []);
  transport.ref?.();
  transport.unref?.();
  assertEquals(below.kept.splice(0), ["ref", "unref"]);
  transport.close();
  next.close();
  listener.close();
  listener.unref?.();
  assertEquals(below.kept.splice(0), ["unref listener"], "Those that are closed are forgotten");
});

test("A connection that comes when the listener is closed is closed too", async () => {
  const { below, clock } = make();
  const late = Promise.withResolvers<Transport>();
  const client = below.connect(PROXY);
  const transport = await below.accept();
  below.accept = () => late.promise;
  const listener = proxyProtocol(below, { from: "10.0.0.1", clock });
  listener.accept().catch(() => {});
  await settle(clock);
  listener.close();
  below.accept = () => Promise.reject(new Deno.errors.BadResource("Closed"));
  late.resolve(transport);
  assertEquals(await client.readAll(), "");
});

test("A transport that lacks what is optional does as well behind a proxy", async () => {
  const { below, listener } = make();
  for (const peer of [PROXY, OTHER]) {
    using client = below.connect(peer);
    const accepted = listener.accept();
    await client.write(HEADER);
    const transport = await accepted;
    transport.setNoDelay?.(true);
    transport.close();
  }
  listener.close();
});

test("A connection that is reset while its header is awaited is rejected, with the error", async () => {
  const { below, clock, listener, misuse } = make();
  const accepted = listener.accept();
  const client = below.connect(PROXY);
  await client.write(HEADER.slice(0, 9));
  await settle(clock);
  client.reset();
  const { reason, remoteAddr, cause } = await assertRejects(() => accepted, AcceptRejection);
  assertEquals([reason, remoteAddr], ["proxy-header", PROXY]);
  assertInstanceOf(cause, Deno.errors.ConnectionReset);
  assertEquals(clock.pending, 0);
  listener.close();
  assertEquals(misuse, []);
});

test("Segments may be cut anywhere, in the header and after it", async () => {
  const bytes = new TextEncoder().encode(`${HEADER}hello\nworld`);
  for (let cut = 1; cut < bytes.length; cut++) {
    const { below, clock, listener, misuse } = make({}, { readBytes: (call) => call === 1 ? cut : bytes.length });
    await using t = startServer({ listener, clock });
    using client = below.connect(PROXY);
    await client.write(bytes);
    await client.closeWrite();
    assertEquals(await client.readAll(), "HELLO\nWORLD\n", `${cut}`);
    assertEquals(formatAddr(t.all("accepted")[0].conn.remoteAddr), "192.0.2.7:56324");
    assertEquals(misuse, []);
  }
});

test("proxyProtocol() refuses what is no listener or clock", () => {
  const from = "127.0.0.1";
  for (const wrong of [undefined, {}, "tcp"] as unknown as Listener[]) {
    assertThrows(() => proxyProtocol(wrong, { from }), TypeError, "Cannot use listener: expected a listener");
  }
  const clock = {} as FakeClock;
  assertThrows(() => proxyProtocol(new MemoryListener(), { from, clock }), TypeError, "Cannot use clock");
});
