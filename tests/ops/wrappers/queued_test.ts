import { assertEquals, assertRejects } from "@std/assert";
import { type Listener, serve } from "@x/shouty";
import { listenTls, proxyProtocol, ServerMetrics, withTelnet, withTrace } from "@x/shouty/ops";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { test } from "../../kit/bounded.ts";
import { values } from "../../kit/figures/figures.ts";
import { inMemory, startServer } from "../../kit/server.ts";
import { IDENTITY } from "../../kit/tls.ts";

const addr = { transport: "tcp", hostname: "127.0.0.1", port: 1 } as const;

test(
  "Connections are queued while they wait for a PROXY header or a handshake, through every wrapper",
  async () => {
    const clock = new FakeClock();
    const below = new MemoryListener();
    const proxied = proxyProtocol(below, { from: "127.0.0.0/8", clock });
    const secure = await listenTls({ ...IDENTITY, listener: proxied, clock });
    const listener = withTelnet(withTrace(secure, { write() {} }));
    const metrics = new ServerMetrics();
    await using t = startServer({ listener, clock, onEvent: metrics.onEvent });
    metrics.watch(t.server);
    assertEquals(metrics.snapshot().queued, 0);
    using waiting = below.connect(addr);
    using proxy = below.connect(addr);
    await clock.advance(1);
    assertEquals([metrics.snapshot().queued, t.server.stats().queued], [2, 2]);
    await proxy.write("PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n");
    await clock.advance(1);
    assertEquals(metrics.snapshot().queued, 2);
    waiting.close();
    await proxy.write("no TLS at all\n");
    await t.until("rejected");
    await t.until("gone");
    assertEquals(metrics.snapshot().queued, 0);
    const { shouty_gone_connections_total: gone, ...figures } = values(metrics);
    assertEquals([gone, figures["shouty_rejected_connections_total tls-handshake"]], [1, 1]);
  },
);

test("A listener that was closed while the server did not wait for a connection has none queued", async () => {
  const below = new MemoryListener();
  const listener = proxyProtocol(below, { from: "127.0.0.0/8", clock: new FakeClock() });
  const accepting = listener.accept();
  using proxy = below.connect(addr);
  await proxy.write("PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n");
  (await accepting).close();
  await listener.close();
  assertEquals(listener.queued, 0);
  await assertRejects(() => listener.accept(), Deno.errors.BadResource);
});

test("Connections are queued while admit decides", async () => {
  const { listener, clock } = inMemory();
  const admitted = Promise.withResolvers<void>();
  const metrics = new ServerMetrics();
  await using t = startServer({ listener, clock, admit: () => admitted.promise, onEvent: metrics.onEvent });
  metrics.watch(t.server);
  const client = await t.connect();
  await clock.advance(1);
  assertEquals([metrics.snapshot().queued, metrics.snapshot().active], [1, 0]);
  admitted.resolve();
  await client.write("hello\n");
  assertEquals(await client.readLine(), "HELLO");
  assertEquals([metrics.snapshot().queued, metrics.snapshot().active], [0, 1]);
});

function proxied(listener: Listener): Listener {
  return proxyProtocol(listener, { from: "127.0.0.0/8" });
}

test("A custom listener that says nothing of use about its queue counts as one without, through every wrapper", async () => {
  const wrong: unknown[] = [undefined, -1, 0.5, NaN, Infinity, "2", 2n, {}, Promise.resolve(2)];
  for (const value of [...wrong, new Error("Not known")]) {
    const get = () => {
      if (value instanceof Error) throw value;
      return value;
    };
    for (
      const wrap of [(odd: Listener) => odd, proxied, (odd: Listener) => withTelnet(withTrace(odd, { write() {} }))]
    ) {
      const odd = Object.defineProperty(new MemoryListener(), "queued", { get });
      await using server = serve({ listener: wrap(odd) });
      assertEquals(server.stats().queued, 0, String(value));
    }
  }
});
