import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { type Conn, serveConnections, type TlsCredentialsHandle, type TlsInfo, type Transport } from "@x/shouty";
import { tlsCredentials } from "@x/shouty/ops";
import { FakeClock, MemoryListener, MemoryTls, type TestClient } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";
import { inMemory, startConversations, type TestServer } from "../kit/server.ts";
import { makeIdentity } from "../kit/certificates.ts";
import { AUTHORITY, IDENTITY } from "../kit/tls.ts";

const { Interrupted, UnexpectedEof } = Deno.errors;

/** A server that begins TLS at the line STARTTLS, and says what a client is to the handler at any other. */
function startUpgrading(
  credentials: TlsCredentialsHandle,
  say: (tls: TlsInfo | undefined) => unknown = (tls) => tls !== undefined,
  options: { bufferBytes?: number } = {},
): TestServer {
  return startConversations(inMemory(options), async (conn: Conn) => {
    for await (const line of conn.lines) {
      if (line === "STARTTLS") {
        conn.write("go ahead\n");
        await conn.startTls(credentials);
      } else await conn.write(`${line} ${JSON.stringify(say(conn.tls))}\n`);
    }
  });
}

/** Connects, and asks for TLS. */
async function askForTls(t: TestServer): Promise<TestClient> {
  const client = await t.connect();
  await client.write("STARTTLS\n");
  assertEquals(await client.readLine(), "go ahead");
  return client;
}

async function ask(client: TestClient, line: string): Promise<string | null> {
  await client.write(`${line}\n`);
  return await client.readLine();
}

test("TLS in memory shows the handler what the test has chosen, and nothing by default", async () => {
  const credentials = new MemoryTls();
  await using t = startUpgrading(credentials, (tls) => tls ?? null);
  const peer = { altNames: ["DNS:a.example"], verified: false };
  const client = await askForTls(t);
  const agreed = await client.startTls({ credentials, serverName: "b.example", alpn: "smtp", peer });
  const common = { version: "TLSv1.3", cipher: "MEMORY", serverName: "b.example", alpn: "smtp" } as const;
  assertEquals([agreed, client.tls], [common, common]);
  const fingerprint256 = `00${":00".repeat(31)}`;
  const seen = { ...common, peer: { subject: "CN=client", ...peer, fingerprint256 } };
  assertEquals(JSON.parse((await ask(client, "who"))!.slice(4)), seen);

  const plain = await t.connect();
  assertEquals([await ask(plain, "who"), plain.tls], ["who null", undefined]);
  const other = await askForTls(t);
  assertEquals(await other.startTls({ credentials }), { ...common, serverName: undefined, alpn: undefined });
  assertEquals(await ask(other, "who"), 'who {"version":"TLSv1.3","cipher":"MEMORY"}');
});

for (const bufferBytes of [1, 3, 65_536]) {
  test(`what follows the handshake comes whole, and unreadable on a wire of ${bufferBytes} bytes`, async () => {
    const credentials = new MemoryTls();
    await using t = startUpgrading(credentials, () => "x".repeat(100), { bufferBytes });
    const client = await askForTls(t);
    await client.startTls({ credentials });
    for (let i = 0; i < 3; i++) assertEquals(await ask(client, `line ${i}`), `line ${i} "${"x".repeat(100)}"`);
    await client.closeWrite();
    assertEquals([await client.readAll(), (await t.closed()).reason], ["", "end"]);
  });
}

test("TLS in memory masks both directions, so that plain text on the wire is seen", async () => {
  const listener = new MemoryListener();
  const credentials = new MemoryTls();
  const client = listener.connect();
  const server = await listener.accept();
  const wire: Uint8Array[] = [];
  const tapped = Object.create(server, { remoteAddr: { value: server.remoteAddr } });
  tapped.write = (bytes: Uint8Array) => (wire.push(bytes.slice()), server.write(bytes));
  tapped.read = (into: Uint8Array) => server.read(into).then((count) => (wire.push(into.slice(0, count ?? 0)), count));
  const [secure] = await Promise.all([credentials.accept(tapped, new Uint8Array()), client.startTls({ credentials })]);
  assertEquals(wire[0].subarray(0, 4), Uint8Array.of(22, 3, 3, 0));
  const handshake = wire.splice(0).map((bytes) => new TextDecoder().decode(bytes)).join("");
  assertMatch(
    handshake,
    /^[^]{5}TLS in memory, not encrypted, client [^]*TLS in memory, not encrypted, server /,
  );
  await client.write("secret");
  const buffer = new Uint8Array(10);
  assertEquals([await secure.read(buffer), new TextDecoder().decode(buffer.subarray(0, 6))], [6, "secret"]);
  await secure.write(new TextEncoder().encode("secret\n"));
  assertEquals(await client.readLine(), "secret");
  assertEquals(wire.length > 1 && wire.every((bytes) => !/[a-z]{3}/.test(new TextDecoder().decode(bytes))), true);
  server.close();
});

/** Text as it is on the wire. */
function masked(text: string): Uint8Array {
  return new TextEncoder().encode(text).map((byte) => byte ^ 0xa5);
}

test("bytes right behind either side's part of the handshake are the first that the other side reads", async () => {
  const listener = new MemoryListener();
  const credentials = new MemoryTls();
  const client = listener.connect();
  const server = await listener.accept();
  const begun = client.startTls({ credentials });
  const hello = new Uint8Array(200);
  const count = (await server.read(hello))!;
  hello.set(masked("early"), count);
  const together: Transport = Object.create(server, {
    read: { value: (into: Uint8Array) => server.read(into) },
    write: { value: (bytes: Uint8Array) => server.write(Uint8Array.of(...bytes, ...masked("greeting\n"))) },
  });
  const secure = await credentials.accept(together, hello.subarray(0, count + 5));
  await begun;
  assertEquals(await client.readLine(), "greeting");
  const buffer = new Uint8Array(3);
  const texts = [];
  for (let i = 0; i < 2; i++) texts.push(new TextDecoder().decode(buffer.subarray(0, (await secure.read(buffer))!)));
  assertEquals(texts, ["ear", "ly"]);
});

test("only a client that has the credentials of the server passes the handshake", async () => {
  const credentials = new MemoryTls();
  await using t = startUpgrading(credentials);
  const stranger = await askForTls(t);
  const failed = stranger.startTls({ credentials: new MemoryTls() });
  await assertRejects(() => failed, UnexpectedEof, "The other side has ended the connection in the handshake");
  assertEquals(await stranger.readAll(), "");
  await stranger.closeWrite();
  const { reason, error } = await t.closed();
  assertEquals([reason, (error as Error).message], [
    "tls-handshake",
    "The client has sent another hello than that of these credentials",
  ]);

  const other = await askForTls(t);
  await other.write("EHLO\n");
  await assertRejects(() => other.startTls({ credentials }), UnexpectedEof);
  await other.closeWrite();
  assertEquals(String((await t.closed(2)).error).includes("something else than a handshake"), true);
});

test("a handshake that does not come is timed out by the clock of the test", async () => {
  const { listener, clock } = inMemory();
  const credentials = new MemoryTls({ handshakeTimeout: 2000 });
  await using t = startConversations({ listener, clock }, async (conn) => void await conn.startTls(credentials));
  await t.admitted();
  await clock.advance(2000);
  assertEquals((await t.closed()).reason, "tls-handshake");
  for (const wrong of [0, NaN, "10"]) assertThrows(() => new MemoryTls({ handshakeTimeout: wrong as number }));
});

test("startTls of a client is refused with plain text unread, during a read, twice, and without credentials", async () => {
  const credentials = new MemoryTls();
  const listener = new MemoryListener();
  const client = listener.connect();
  const server = await listener.accept();
  const refuse = async (message: string, options: unknown = { credentials }) => {
    assertEquals((await assertRejects(() => client.startTls(options as never), TypeError)).message, message);
  };
  await server.write(new TextEncoder().encode("go ahead\n250 injected\n"));
  assertEquals(await client.readLine(), "go ahead");
  await refuse('Cannot begin TLS: the server has sent more in plain text, which is not read: "250 injected\\n"');
  assertEquals(await client.readLine(), "250 injected");
  const line = client.readLine();
  await refuse("Cannot begin TLS: a read has not settled");
  await server.write(new TextEncoder().encode("\n"));
  assertEquals(await line, "");
  await refuse("Cannot use credentials: expected those of new MemoryTls(), got an object", { credentials: {} });
  await refuse("Cannot use startTls options: expected an object, got null", null);
  const begun = client.startTls({ credentials });
  await refuse("Cannot begin TLS: the connection begins it already");
  await assertRejects(() => client.read(), TypeError, "Cannot read: the connection begins TLS");
  await assertRejects(() => client.write("x"), TypeError, "Cannot write: the connection begins TLS");
  await credentials.accept(server, new Uint8Array());
  await begun;
  await refuse("Cannot begin TLS: the connection is encrypted already");
});

test("a server that answers the hello of another client is none of these credentials", async () => {
  const credentials = new MemoryTls();
  const listener = new MemoryListener();
  const clients = [listener.connect(), listener.connect()];
  const [first, second] = [await listener.accept(), await listener.accept()];
  const begun = clients.map((client) => client.startTls({ credentials }));
  const crossed: Transport = Object.create(first, {
    read: { value: (into: Uint8Array) => second.read(into) },
    write: { value: (bytes: Uint8Array) => first.write(bytes) },
  });
  await credentials.accept(crossed, new Uint8Array());
  const message = "The server has sent another answer than that of these credentials";
  await assertRejects(() => begun[0], Error, message);
  second.close();
  await assertRejects(() => begun[1], UnexpectedEof);
});

test("a server that answers the hello in plain text is no server of TLS in memory", async () => {
  const listener = new MemoryListener();
  const client = listener.connect();
  const server = await listener.accept();
  await server.write(new TextEncoder().encode("454 not now\n"));
  const error = await assertRejects(() => client.startTls({ credentials: new MemoryTls() }));
  assertEquals((error as Error).message.includes("something else than a handshake"), true);
  client.close();
  await assertRejects(() => client.startTls({ credentials: new MemoryTls() }), Deno.errors.BadResource);
});

test("closing a client in mid-handshake ends the handshake", async () => {
  const listener = new MemoryListener();
  const client = listener.connect();
  const begun = client.startTls({ credentials: new MemoryTls() });
  await new FakeClock().advance(0);
  client.close();
  await assertRejects(() => begun, Interrupted);
});

test("a client begins real TLS in memory, verifies the server, and shows its certificate", async () => {
  const credentials = await tlsCredentials({ ...IDENTITY, clientCa: AUTHORITY.cert, clientAuth: "request" });
  await using t = startUpgrading(credentials, (tls) => [tls?.serverName, tls?.alpn, tls?.peer?.subject]);
  const client = await askForTls(t);
  const options = { serverName: "localhost", caCerts: AUTHORITY.cert };
  const { version, cipher } = await client.startTls({ ...options, ...makeIdentity("Ada", { by: AUTHORITY }) });
  assertEquals([version, /MEMORY/.test(cipher)], ["TLSv1.3", false]);
  assertEquals(await ask(client, "who"), 'who ["localhost",null,"CN=Ada"]');
  await client.closeWrite();
  assertEquals([await client.readAll(), (await t.closed()).reason], ["", "end"]);

  const strict = await askForTls(t);
  await assertRejects(() => strict.startTls({ ...options, serverName: "example.org" }), Deno.errors.InvalidData);
  const silent = await askForTls(t);
  await assertRejects(() => silent.startTls({ ...options, serverName: "" }), RangeError, 'serverName ""');
});

test("a client that refuses the certificate of a server tells it so, and reads how the server ends", async () => {
  const credentials = await tlsCredentials(IDENTITY);
  await using t = startUpgrading(credentials);
  const client = await askForTls(t);
  const refused = client.startTls({ serverName: "example.org", caCerts: AUTHORITY.cert });
  await assertRejects(() => refused, Deno.errors.InvalidData, "not for example.org");
  assertEquals(await client.readAll(), "");
  await client.closeWrite();
  const { reason, error } = await t.closed();
  assertEquals(reason, "tls-handshake");
  assertMatch(String(error), /alert.*bad.?certificate/i);
});

test("a client in memory can be one that listenTls or proxyProtocol would have announced", async () => {
  const listener = new MemoryListener();
  await using _server = serveConnections({ listener }, (conn) => {
    const { peer, alpn } = conn.tls ?? {};
    conn.write(JSON.stringify([peer?.subject, peer?.verified, alpn, conn.proxy?.authority, conn.proxy?.tlvs.size]));
  });
  const tls = { alpn: "imap", peer: { subject: "CN=Ada" } } as const;
  using known = listener.connect(undefined, { tls, proxy: { authority: "example.org" } });
  assertEquals([await known.readAll(), known.tls], ['["CN=Ada",true,"imap","example.org",0]', undefined]);
  using unknown = listener.connect();
  assertEquals(await unknown.readAll(), "[null,null,null,null,null]");
  assertThrows(
    () => listener.connect(undefined, { tls: "yes" as never }),
    TypeError,
    "Cannot use tls: expected an object",
  );
});
