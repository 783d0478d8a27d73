import { type AddressInfo, createServer } from "node:net";
import { assertEquals, assertLess, assertRejects } from "@std/assert";
import { serve, serveConnections, type Server } from "@x/shouty";
import { prefixProxy, type ProxyOptions, serveProxy } from "../examples/prefix_proxy.ts";
import { exchange, LineClient, soon } from "./line_client.ts";

const LOOPBACK = { hostname: "127.0.0.1", port: 0 };
const MEBIBYTE = 1024 * 1024;

Deno.test("prefix_proxy puts its prefix before each line, and brings the replies back", async () => {
  await using upstream = serve(LOOPBACK);
  const { port } = upstream.addr as Deno.NetAddr;
  await using proxy = serveProxy({ port: 0, upstream: { port }, prefix: "to you: " });
  using ada = await LineClient.connect(proxy.addr);
  await ada.send("one\r\ntwo\n");
  assertEquals(await ada.lines(2), ["TO YOU: ONE", "TO YOU: TWO"]);
  assertEquals(await exchange(proxy.addr, "\nbob"), "TO YOU: \nTO YOU: BOB\n");
  assertEquals(upstream.stats().accepted, 2);
  await ada.send("three\n");
  assertEquals(await ada.line(), "TO YOU: THREE");
});

Deno.test("prefix_proxy brings the replies to a client that has ended its side", async () => {
  await using lab = await Lab.open();
  await lab.client.send("last words");
  await lab.client.end();
  assertEquals([await lab.upstream.line(), await lab.upstream.line()], ["> last words", undefined]);
  await lab.upstream.send("one\ntwo\n");
  assertEquals(await lab.client.lines(2), ["one", "two"]);
  await lab.upstream.send("three");
  lab.upstream.close();
  assertEquals(await lab.client.rest(), "three\n");
  assertEquals(await lab.endings(), ["end"]);
});

Deno.test("prefix_proxy ends with an upstream that has had enough", async () => {
  await using lab = await Lab.open();
  await lab.upstream.send("one\ntwo");
  await lab.upstream.end();
  assertEquals(await lab.client.rest(), "one\ntwo\n");
  assertEquals(await lab.upstream.line(), undefined);
  lab.client.close();
  assertEquals(await lab.endings(), ["closed"]);
});

Deno.test("prefix_proxy answers one error line where there is no upstream", async () => {
  await using proxy = serveProxy({ port: 0, upstream: { port: freePort() }, prefix: "> " });
  assertEquals(await exchange(proxy.addr, "one\n".repeat(10_000)), "error: upstream failed\n");
});

Deno.test("prefix_proxy answers whole lines and an error line where the upstream breaks off", async () => {
  // Deno's own close() ends the connection before it resets it.
  const upstream = createServer((socket) => {
    socket.write("whole\nhal");
    socket.once("data", () => socket.resetAndDestroy());
  });
  await new Promise<void>((resolve) => upstream.listen(0, "127.0.0.1", resolve));
  const { port } = upstream.address() as AddressInfo;
  await using proxy = serveProxy({ port: 0, upstream: { port }, prefix: "> " });
  using client = await LineClient.connect(proxy.addr);
  assertEquals(await client.line(), "whole");
  await client.send("one\n");
  assertEquals(await client.rest(), "error: upstream failed\n");
  await new Promise((resolve) => upstream.close(resolve));
});

Deno.test("prefix_proxy answers an error line where a reply is too long to be held", async () => {
  await using lab = await Lab.open();
  await lab.upstream.send("fits\n");
  assertEquals(await lab.client.line(), "fits");
  await lab.upstream.send("x".repeat(70_000));
  assertEquals(await lab.client.rest(), "error: upstream failed\n");
});

Deno.test("prefix_proxy leaves the upstream when the client is gone, whatever the upstream does", async () => {
  using listener = Deno.listen(LOOPBACK);
  const { promise: left, resolve } = Promise.withResolvers<void>();
  const handler = prefixProxy({ upstream: { port: listener.addr.port }, prefix: "> " });
  await using proxy = serveConnections({ ...LOOPBACK, idleTimeout: 50 }, async (conn) => {
    try {
      await handler(conn);
    } finally {
      resolve();
    }
  });
  using client = await LineClient.connect(proxy.addr);
  using upstream = new LineClient(await listener.accept());
  assertEquals(await client.line(), undefined);
  await soon(left, "the end of the handler");
  assertEquals(await upstream.line(), undefined);
  assertEquals(proxy.stats().closed.idle, 1);
});

Deno.test("prefix_proxy takes no more from a client than the upstream does", async () => {
  await using lab = await Lab.open({ upstreamTimeout: 300 });
  await assertRejects(() => pour(lab.client));
  assertEquals(await lab.endings(), ["closed"]);
  assertLess(lab.proxy.stats().bytesIn, 16 * MEBIBYTE);
});

Deno.test("prefix_proxy takes no more from the upstream than the client does", async () => {
  await using lab = await Lab.open({ writeTimeout: 300 });
  await assertRejects(() => pour(lab.upstream));
  assertEquals(await lab.endings(), ["write-timeout"]);
  assertLess(lab.proxy.stats().bytesOut, 16 * MEBIBYTE);
});

/** A proxy with one client, and the other end of its upstream connection in the test's own hands. */
class Lab implements AsyncDisposable {
  private constructor(readonly proxy: Server, readonly client: LineClient, readonly upstream: LineClient) {}

  static async open(options: Partial<ProxyOptions> = {}): Promise<Lab> {
    using listener = Deno.listen(LOOPBACK);
    const { port } = listener.addr;
    const proxy = serveProxy({ port: 0, upstream: { port }, prefix: "> ", ...options });
    const client = await LineClient.connect(proxy.addr);
    return new Lab(proxy, client, new LineClient(await listener.accept()));
  }

  /** Why the proxy's connections ended, once all have. */
  async endings(): Promise<string[]> {
    await this.proxy.shutdown();
    return Object.entries(this.proxy.stats().closed).filter(([, count]) => count > 0).map(([reason]) => reason);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client[Symbol.dispose]();
    this.upstream[Symbol.dispose]();
    await this.proxy.shutdown();
  }
}

/** Sends lines for ever, or until the connection ends, and counts their bytes. */
async function pour(into: LineClient): Promise<void> {
  const lines = `${"x".repeat(99)}\n`.repeat(1000);
  for (;;) await soon(into.send(lines), "sending");
}

/** A port that nobody listens on. */
function freePort(): number {
  using listener = Deno.listen(LOOPBACK);
  return listener.addr.port;
}
