import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { type Conn, formatAddr, type Listener, type ServeOptions } from "@x/shouty";
import { listenUnix, proxyProtocol, type ProxyProtocolOptions } from "@x/shouty/ops";
import { FakeClock, MemoryListener, TestClient } from "@x/shouty/testing";
import { test, testOnce } from "../../kit/bounded.ts";
import { assertFreed } from "../../kit/sockets/freed_port.ts";
import { bytesOf } from "../../kit/bytes.ts";
import { binary, join, LONGEST, TCP4, TCP6, value, withChecksum } from "../../kit/framing/proxy_headers.ts";
import { listenLoopback, startConversations, startServer, type TestServer } from "../../kit/server.ts";

const LINE = "PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n";

/** A server on real sockets that answers with the client's address; by default every peer is a trusted proxy. */
function startTelling(proxy: Partial<ProxyProtocolOptions> = {}, options: ServeOptions = {}): TestServer {
  return startServer({ ...options, listener: listen(proxy) }, (line, conn) => `${line} ${addresses(conn)}`);
}

function listen(proxy: Partial<ProxyProtocolOptions> = {}) {
  return proxyProtocol(listenLoopback(), { from: "127.0.0.1", ...proxy });
}

function addresses({ remoteAddr, localAddr }: Pick<Conn, "remoteAddr" | "localAddr">): string {
  return `from ${formatAddr(remoteAddr)} to ${formatAddr(localAddr)}`;
}

/** Waits for the connection's end or reset; returns what came before an end. */
async function hungUp(client: TestClient): Promise<string> {
  try {
    return await client.readAll();
  } catch (error) {
    assert(error instanceof Deno.errors.ConnectionReset, `${error}`);
    return "";
  }
}

/** Sends each part in its own write, so that the kernel sends it in its own segment if it can. */
async function trickle(client: TestClient, segments: Iterable<Uint8Array>): Promise<void> {
  for (const segment of segments) {
    await client.write(segment);
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
}

/** Cuts bytes into single ones, except for the middle part. */
function bytewise(bytes: Uint8Array): Uint8Array[] {
  const cuts = [...bytes.keys()].filter((at) => at < 60 || at > bytes.length - 60);
  return cuts.map((at, i) => bytes.subarray(at, cuts[i + 1]));
}

/** The error of the connection that was rejected for its header. */
async function rejection(t: TestServer, count = 1): Promise<string> {
  const { reason, error } = await t.until("rejected", count);
  assertEquals(reason, "proxy-header");
  return (error as Error).message;
}

const HEADERS: [name: string, header: Uint8Array, told: string][] = [
  ["version 1 with TCP4", bytesOf(LINE), "from 192.0.2.7:56324 to 192.0.2.1:443"],
  ["version 1 with TCP6", bytesOf("PROXY TCP6 2001:DB8::7 ::1 1 2\r\n"), "from [2001:db8::7]:1 to [::1]:2"],
  ["version 2 with TCP4", binary(0x21, 0x11, TCP4), "from 192.168.0.1:56324 to 192.168.0.11:443"],
  [
    "version 2 with values after the addresses",
    withChecksum((sum) =>
      binary(0x21, 0x21, join(TCP6, value(0x01, "h2"), value(0x03, sum), value(0x04, "x".repeat(3000))))
    ),
    "from [2001:db8::1]:56324 to [::ffff:192.0.2.7]:443",
  ],
];

for (const [name, header, told] of HEADERS) {
  test(`Behind a proxy, handlers and events see the client's address, its first line being in the header's segment: ${name}`, async () => {
    await using t = startTelling();
    assertEquals(await t.talk(join(header, bytesOf("hi\nho"))), `hi ${told}\nho ${told}\n`);
    const closed = await t.closed();
    assertEquals([closed.reason, closed.bytesIn], ["end", 5]);
    for (const { conn } of [closed, t.all("accepted")[0]]) assertEquals(addresses(conn), told);
  });

  test(`A header that comes byte by byte, and the first line so too, loses nothing: ${name}`, async () => {
    // Without timeouts: on a busy machine, each of many segments may take long.
    const timeouts = { firstLineTimeout: Infinity, idleTimeout: Infinity };
    await using t = startTelling({ headerTimeout: Infinity }, timeouts);
    const client = await t.connect();
    await trickle(client, bytewise(join(header, bytesOf("hi\n"))));
    assertEquals(await client.readLine(), `hi ${told}`);
  });
}

const UNNAMED: [name: string, header: Uint8Array][] = [
  ["UNKNOWN in version 1", bytesOf("PROXY UNKNOWN\r\n")],
  ["UNKNOWN and 107 bytes in version 1", bytesOf(LONGEST)],
  ["LOCAL in version 2", binary(0x20, 0x00, new Uint8Array(0))],
  ["LOCAL with addresses in version 2", binary(0x20, 0x11, TCP4)],
  ["an unnamed family in version 2", binary(0x21, 0x00, new Uint8Array(0))],
];

for (const [name, header] of UNNAMED) {
  test(`A proxy that names no client is served under its own address: ${name}`, async () => {
    await using t = startTelling();
    const [line] = (await t.talk(join(header, bytesOf("hi\n")))).split("\n");
    assertMatch(line, new RegExp(`^hi from 127\\.0\\.0\\.1:\\d+ to 127\\.0\\.0\\.1:${t.port}$`));
  });
}

test("What comes with the header is handed on whole, though no read takes it at once", async () => {
  const lines = Array.from({ length: 40_000 }, (_, i) => `${i}\n`).join("");
  await using t = startServer({ listener: listen() });
  assertEquals(await t.talk(`PROXY UNKNOWN\r\n${lines}`), lines);
});

testOnce(
  "A proxy on a Unix socket is believed if the list says unix, and not by any address",
  async () => {
    for (
      const [from, reason] of [["10.0.0.0/8, unix", "end"], [["unix"], "end"], [
        "0.0.0.0/0,::/0",
        "transport-error",
      ]] as const
    ) {
      const path = `${await Deno.makeTempDir()}/proxied.sock`;
      try {
        const listener = proxyProtocol(await listenUnix({ path }), { from });
        await using t = startServer({ listener }, (line, conn) => `${line} ${addresses(conn)}`);
        const client = t.own(new TestClient(await Deno.connect({ transport: "unix", path })));
        await client.write(`${LINE}hi\n`);
        await client.closeWrite();
        assertEquals(await hungUp(client), reason === "end" ? `hi ${HEADERS[0][2]}\n` : "");
        assertEquals((await t.closed()).reason, reason);
      } finally {
        await Deno.remove(path.replace(/\/[^/]*$/, ""), { recursive: true });
      }
    }
  },
  60,
  Deno.build.os === "windows" ? " (skipped: Windows has no Unix sockets in Deno)" : "",
);

test("A trusted proxy that sends no header is rejected unheard", async () => {
  await using t = startTelling();
  const client = await t.connect();
  await client.write("hello\n");
  assertEquals(await hungUp(client), "");
  assertEquals(await rejection(t), "No PROXY header: the connection begins with something else");
  assertEquals([t.stats.accepted, t.stats.rejected], [0, 1]);
  assertEquals(formatAddr(t.all("rejected")[0].remoteAddr).split(":")[0], "127.0.0.1");
});

test("A trusted proxy that leaves before its header is complete is rejected", async () => {
  await using t = startTelling();
  const client = await t.connect();
  await client.write(LINE.slice(0, 20));
  await client.closeWrite();
  await hungUp(client);
  assertEquals(await rejection(t), "No whole PROXY header before the end of input");
});

test("A header that is late ends its own connection, and holds up none of its neighbours", async () => {
  const clock = new FakeClock();
  await using t = startTelling({ clock });
  const slow = await Promise.all([t.connect(), t.connect(), t.connect()]);
  await slow[1].write(LINE.slice(0, -1));
  for (let i = 0; i < 20; i++) assertEquals(await t.talk(`${LINE}${i}\n`), `${i} ${HEADERS[0][2]}\n`);
  assertEquals(t.stats.rejected, 0);
  await clock.advance(5000);
  for (const client of slow) assertEquals(await hungUp(client), "");
  assertEquals(await rejection(t, 3), "No PROXY header within 5000 ms");
});

test("Hundreds of malformed headers end their own connections, and accepting goes on without a pause", async () => {
  await using t = startTelling();
  for (let i = 0; i < 300; i += 50) {
    const clients = await Promise.all(Array.from({ length: 50 }, () => t.connect()));
    for (const client of clients) await client.write("PROXY TCP4 1.2.3.4 5.6.7.8 080 443\r\nhello\n");
    await Promise.all(clients.map(hungUp));
  }
  assertEquals(await rejection(t, 300), `Malformed PROXY header: port "080"`);
  assertEquals(await t.talk(`${LINE}hi\n`), `hi ${HEADERS[0][2]}\n`);
  assertEquals(t.all("accept-error"), []);
});

test("A peer that is not trusted is served without a header, and at once, as the handler may send first", async () => {
  await using t = startConversations({ listener: listen({ from: "10.0.0.0/8" }) }, async (conn) => {
    await conn.write("Welcome\n");
    for await (const line of conn.lines) await conn.write(`${line} ${addresses(conn)}\n`);
  });
  const client = await t.connect();
  assertEquals(await client.readLine(), "Welcome");
  await client.write("hi\n");
  assertMatch(`${await client.readLine()}`, /^hi from 127\.0\.0\.1:\d+ to 127\.0\.0\.1:\d+$/);
});

test("A peer that is not trusted may send text that begins like a header", async () => {
  await using t = startServer({ listener: listen({ from: "10.0.0.0/8" }) });
  for (const text of ["PROXY WAR\n", "PROXY TCP7 1.2.3.4\n", "PROXY\n", "P\n", "\n\n\0\n", "P", "PROXY TCP4"]) {
    assertEquals(await t.talk(text), text.replace(/[^\n]$/, "$&\n"));
  }
  const client = await t.connect();
  for (let i = 0; i < 3; i++) {
    await client.write("\r\n");
    assertEquals(await client.readLine(), "", "An empty line is answered when it comes");
  }
  assertEquals(await t.talk("hello\nPROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), "HELLO\nPROXY TCP4 1.2.3.4 5.6.7.8 1 2\n");
});

for (const [name, header] of [...HEADERS, ...UNNAMED]) {
  test(`A peer that is not trusted and sends a header is closed without a reply: ${name}`, async () => {
    await using t = startServer({ listener: listen({ from: "10.0.0.0/8" }) });
    const client = await t.admitted();
    await client.write(join(header, bytesOf("hi\n")));
    assertEquals(await hungUp(client), "");
    const slow = await t.admitted();
    await trickle(slow, [header.subarray(0, 3), header.subarray(3)]);
    // A header of version 2 begins with CRLF, which is an empty line until more has come.
    assertMatch(await hungUp(slow), /^\n?$/);
    const { reason, error } = await t.closed(2);
    assertEquals(reason, "transport-error");
    assertEquals((error as Error).message, "A PROXY header from a peer that may not send one");
  });
}

test("The limits' rejections name the client, not the proxy", async () => {
  await using t = startTelling({}, { maxConnections: 1 });
  const first = await t.connect();
  await first.write(LINE);
  await t.until("accepted");
  assertEquals(await t.talk(binary(0x21, 0x11, TCP4)), "error: more than 1 connection\n");
  assertEquals(formatAddr((await t.until("rejected")).remoteAddr), "192.168.0.1:56324");
});

test("A shutdown ends the connections whose headers are still awaited, and frees the port", async () => {
  for (const start of ["", LINE.slice(0, 5), LINE]) {
    const t = startTelling();
    const client = await t.connect();
    await client.write(start);
    // That a later client is served shows that the first has been accepted.
    assertEquals(await t.talk(`${LINE}hi\n`), `hi ${HEADERS[0][2]}\n`);
    await t.server.shutdown({ drainTimeout: 1 });
    await assertFreed(t.port);
    await hungUp(client);
    await t[Symbol.asyncDispose]();
  }
});

test("A shutdown frees the port though the listener may be accepting below when nothing is awaited above", async () => {
  const stopping = Promise.withResolvers<void>();
  const t = startTelling({}, {
    onEvent: ({ type }) => type === "rejected" && stopping.resolve(t.server.shutdown().then(() => {})),
  });
  const client = await t.connect();
  await client.write("hello\n");
  await stopping.promise;
  await assertFreed(t.port);
  await t[Symbol.asyncDispose]();
});

testOnce("A wrong option is refused, by its name", () => {
  const below: Listener = new MemoryListener();
  // deno-lint-ignore no-explicit-any
  const use = (options: any) => () => proxyProtocol(below, options);
  assertThrows(use(undefined), TypeError, "Cannot use proxyProtocol options");
  assertThrows(use({}), TypeError, "Cannot use from undefined");
  assertThrows(use({ from: "10.0.0.0/33" }), RangeError, `Cannot use from "10.0.0.0/33"`);
  assertThrows(use({ from: "::1", headerTimeout: 0 }), RangeError, "Cannot use headerTimeout 0");
  assertThrows(use({ from: "::1", maxPending: 0 }), RangeError, "Cannot use maxPending 0");
});
