import { type AddressInfo, createServer } from "node:net";
import { assertEquals, assertLess, assertRejects } from "@std/assert";
import { serve } from "@x/shouty";
import { TestClient } from "@x/shouty/testing";
import { prefixProxy, type ProxyOptions, serveProxy } from "../../../examples/prefix_proxy.ts";
import { test } from "../../kit/bounded.ts";
import { refusingPort } from "../../kit/sockets/refusing_port.ts";
import { startConversations, TestServer } from "../../kit/server.ts";

const LOOPBACK = { hostname: "127.0.0.1", port: 0 };
const MEBIBYTE = 1024 * 1024;

test("prefix_proxy puts its prefix before each line, and brings the replies back", async () => {
  await using upstream = new TestServer(serve, {});
  await using proxy = proxyTo(upstream.port);
  const ada = await proxy.connect();
  await ada.write("one\r\ntwo\n");
  assertEquals([await ada.readLine(), await ada.readLine()], ["> ONE", "> TWO"]);
  assertEquals(await proxy.talk("\nbob"), "> \n> BOB\n");
  assertEquals(upstream.stats.accepted, 2);
  await ada.write("three\n");
  assertEquals(await ada.readLine(), "> THREE");
});

test("prefix_proxy passes the bytes of a line on as they are, in whatever encoding", async () => {
  await using lab = await Lab.open({ prefix: "é " });
  const line = Uint8Array.of(0xef, 0xbb, 0xbf, 0x63, 0x61, 0x66, 0xe9, 0x00, 0x85, 0xc3, 0xa9, 0x0a);
  await lab.client.write(line);
  assertEquals(await lab.upstream.readBytes(3 + line.length), Uint8Array.of(0xc3, 0xa9, 0x20, ...line));
  await lab.upstream.write(line);
  assertEquals(await lab.client.readBytes(line.length), line);
});

test("prefix_proxy brings the replies to a client that has ended its side", async () => {
  await using lab = await Lab.open();
  await lab.client.write("last words");
  await lab.client.closeWrite();
  assertEquals(await lab.upstream.readAll(), "> last words\n");
  await lab.upstream.write("one\ntwo\n");
  assertEquals([await lab.client.readLine(), await lab.client.readLine()], ["one", "two"]);
  await lab.upstream.write("three");
  lab.upstream.close();
  assertEquals(await lab.client.readAll(), "three\n");
  assertEquals((await lab.proxy.closed()).reason, "end");
});

test("prefix_proxy ends with an upstream that has had enough", async () => {
  await using lab = await Lab.open();
  await lab.upstream.write("one\ntwo");
  await lab.upstream.closeWrite();
  assertEquals(await lab.client.readAll(), "one\ntwo\n");
  assertEquals(await lab.upstream.readAll(), "");
  lab.client.close();
  assertEquals((await lab.proxy.closed()).reason, "closed");
});

test("prefix_proxy answers one error line where there is no upstream", async () => {
  using refusing = await refusingPort();
  await using proxy = proxyTo(refusing.port);
  assertEquals(await proxy.talk("one\n".repeat(10_000)), "error: upstream failed\n");
});

test("prefix_proxy answers whole lines and an error line where the upstream breaks off", async () => {
  // `Deno.Conn.close()` would end the connection before it resets it.
  const upstream = createServer((socket) => {
    socket.write("whole\nhal");
    socket.once("data", () => socket.resetAndDestroy());
  });
  await new Promise<void>((resolve) => upstream.listen(0, "127.0.0.1", resolve));
  await using proxy = proxyTo((upstream.address() as AddressInfo).port);
  const client = await proxy.connect();
  assertEquals(await client.readLine(), "whole");
  await client.write("one\n");
  assertEquals(await client.readAll(), "error: upstream failed\n");
  await new Promise((resolve) => upstream.close(resolve));
});

test("prefix_proxy answers an error line where a reply is too long to be held", async () => {
  await using lab = await Lab.open();
  await lab.upstream.write("fits\n");
  assertEquals(await lab.client.readLine(), "fits");
  await lab.upstream.write("x".repeat(70_000));
  assertEquals(await lab.client.readAll(), "error: upstream failed\n");
});

test("prefix_proxy leaves the upstream when the client is gone, whatever the upstream does", async () => {
  using listener = Deno.listen(LOOPBACK);
  const { promise: left, resolve } = Promise.withResolvers<void>();
  const handler = prefixProxy({ upstream: { port: listener.addr.port }, prefix: "> " });
  await using proxy = startConversations({ idleTimeout: 50 }, async (conn) => {
    try {
      await handler(conn);
    } finally {
      resolve();
    }
  });
  const client = await proxy.connect();
  using upstream = new TestClient(await listener.accept());
  assertEquals(await client.readAll(), "");
  await left;
  assertEquals(await upstream.readAll(), "");
  assertEquals((await proxy.closed()).reason, "idle");
});

test("prefix_proxy takes no more from a client than the upstream does", async () => {
  await using lab = await Lab.open({ upstreamTimeout: 300 });
  await assertRejects(() => pour(lab.client));
  const { reason, bytesIn } = await lab.proxy.closed();
  assertEquals(reason, "closed");
  assertLess(bytesIn, 16 * MEBIBYTE);
});

test("prefix_proxy takes no more from the upstream than the client does", async () => {
  await using lab = await Lab.open({ writeTimeout: 300 });
  await assertRejects(() => pour(lab.upstream));
  const { reason, bytesOut } = await lab.proxy.closed();
  assertEquals(reason, "write-timeout");
  assertLess(bytesOut, 16 * MEBIBYTE);
});

function proxyTo(port: number, options: Partial<ProxyOptions> = {}): TestServer {
  return new TestServer((rest) => serveProxy({ upstream: { port }, prefix: "> ", ...rest }), options);
}

/** A proxy with one client; the test itself is the upstream. */
class Lab implements AsyncDisposable {
  private constructor(readonly proxy: TestServer, readonly client: TestClient, readonly upstream: TestClient) {}

  static async open(options: Partial<ProxyOptions> = {}): Promise<Lab> {
    using listener = Deno.listen(LOOPBACK);
    const proxy = proxyTo(listener.addr.port, options);
    const client = await proxy.connect();
    return new Lab(proxy, client, new TestClient(await listener.accept()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.upstream[Symbol.dispose]();
    await this.proxy[Symbol.asyncDispose]();
  }
}

/** Sends lines until the connection ends. */
async function pour(into: TestClient): Promise<void> {
  const lines = `${"x".repeat(4000)}\n`.repeat(25);
  for (;;) await into.write(lines);
}
