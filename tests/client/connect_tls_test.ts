import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { type Conn, connect, connectPool, formatAddr, type ServeOptions } from "@x/shouty";
import { listenUnix, tlsCredentials, type TlsServerCredentials } from "@x/shouty/ops";
import { TestClient } from "@x/shouty/testing";
import { test, testOnce } from "../kit/bounded.ts";
import { connectTlsOver } from "../../ops/tls/client.ts";
import { Authority, type Identity, makeIdentity } from "../kit/certificates.ts";
import { listenLoopback, startConversations, type TestServer } from "../kit/server.ts";
import { AUTHORITY, IDENTITY, startTls } from "../kit/tls.ts";

const TRUSTED = { serverName: "localhost", caCerts: AUTHORITY.cert };

/** A server with `STARTTLS` that shouts, and tells on demand what it knows of TLS. */
function startUpgrading(credentials: TlsServerCredentials, options: ServeOptions = {}): TestServer {
  return startConversations({ listener: listenLoopback(), ...options }, async (conn) => {
    for await (const line of conn.lines) {
      if (line === "WHO") {
        await conn.write(`${conn.tls?.version} ${conn.tls?.peer?.subject} ${conn.tls?.peer?.verified}\n`);
      } else if (line !== "STARTTLS") await conn.write(`${line.toUpperCase()}\n`);
      else {
        await conn.write("go ahead\n");
        await conn.startTls(credentials);
      }
    }
  });
}

/** Begins TLS with Deno's own client. */
async function upgrade(t: TestServer): Promise<TestClient> {
  const tcp = await Deno.connect({ port: t.port });
  const plain = new TestClient(tcp);
  await plain.write("STARTTLS\n");
  assertEquals(await plain.readLine(), "go ahead");
  const conn = await Deno.startTls(tcp, { hostname: "localhost", caCerts: [AUTHORITY.cert] });
  await conn.handshake().catch((error) => {
    conn.close();
    throw error;
  });
  return t.own(new TestClient(conn));
}

test("connect speaks TLS, verifies the server, and tells what was agreed on", async () => {
  await using t = await startTls({ alpnProtocols: ["shout/2", "shout/1"] });
  await using conn = await connect({ port: t.port, tls: { ...TRUSTED, alpnProtocols: ["shout/1"] } });
  await conn.write("secret\n");
  assertEquals(await conn.readLine(), "SECRET");
  const { version, serverName, alpn, peer } = conn.tls!;
  assertEquals([version, serverName, alpn, peer?.verified], ["TLSv1.3", "localhost", "shout/1", true]);
  assertMatch(peer!.fingerprint256, /^([0-9A-F]{2}:){31}[0-9A-F]{2}$/);
});

test("connect shows its own certificate to a server that asks for it", async () => {
  const clients = makeIdentity("robot", { by: AUTHORITY });
  await using t = startConversations(
    { listener: await startTlsListener({ clientCa: AUTHORITY.cert }) },
    async (conn) => void await conn.write(`${conn.tls?.peer?.subject} ${conn.tls?.peer?.verified}\n`),
  );
  await using conn = await connect({ port: t.port, tls: { ...TRUSTED, ...clients } });
  assertEquals(await conn.readLine(), "CN=robot true");
});

test("a client without the certificate that the server wants learns of it at its first read under TLS 1.3", async () => {
  await using t = startConversations({ listener: await startTlsListener({ clientCa: AUTHORITY.cert }) }, () => {});
  const conn = await connect({ port: t.port, tls: TRUSTED });
  assertEquals([conn.tls?.version, await conn.readLine()], ["TLSv1.3", null]);
  assertMatch(((await conn.closed).error as Error).message, /CertificateRequired/);
});

async function startTlsListener(options: { clientCa?: string }) {
  const { listenTls } = await import("@x/shouty/ops");
  return await listenTls({ listener: listenLoopback(), ...IDENTITY, ...options });
}

test("a certificate for another name, or by an unknown authority, is refused before anything is sent", async () => {
  await using t = await startTls();
  for (const tls of [{ ...TRUSTED, serverName: "example.org" }, { serverName: "localhost" }, true]) {
    const error = await connect({ port: t.port, tls }).catch((error) => error);
    assertEquals(error instanceof Deno.errors.InvalidData, true, `${error}`);
    assertMatch(error.message, new RegExp(`^Cannot connect to 127\\.0\\.0\\.1:${t.port}: .*server's certificate`));
  }
  assertEquals(t.stats.bytesIn, 0);
});

test("ending this side under TLS is no error if the server ends its own just then", async () => {
  await using t = startConversations({ listener: await startTlsListener({}) }, async (conn) => {
    for await (const line of conn.lines) await conn.write(`${line}\n`);
  });
  for (let i = 0; i < 20; i++) {
    const conn = await connect({ port: t.port, tls: TRUSTED });
    await conn.write("last\n");
    const reading = Array.fromAsync(conn.lines);
    await conn.writable.close();
    assertEquals([await reading, (await conn.closed).reason], [["last"], "end"]);
  }
});

testOnce("credentials that cannot be used are an error before anything is opened", async () => {
  const dial = () => {
    throw new Error("dialled");
  };
  for (
    const [tls, message] of [
      [{ caCerts: "nonsense" }, "Cannot use caCerts: there is no PEM certificate in it"],
      [{ key: IDENTITY.key }, "Cannot use key: there is no cert that it belongs to"],
      [{ serverName: "not a name" }, 'Cannot use serverName "not a name": expected a host name or an IP address'],
      [{ alpnProtocols: [""] }, "Cannot use alpnProtocols"],
    ] as const
  ) {
    const error = await connect({ dial, tls: { ...TRUSTED, ...tls } }).catch((error) => error);
    assertEquals(error.message.slice(0, message.length), message);
  }
});

test("a server without TLS at the port, or one that leaves, is an error", async () => {
  await using t = startConversations({ listener: listenLoopback() }, async (conn) => {
    if (conn.id === 1) await conn.write("220 welcome, in plain text\n");
    else conn.close();
    await conn.readLine();
  });
  const where = `Cannot connect to 127.0.0.1:${t.port}: `;
  const attempt = () => connect({ port: t.port, tls: TRUSTED });
  await assertRejects(attempt, Error, `${where}The server does not speak TLS`);
  await assertRejects(attempt, Deno.errors.UnexpectedEof, `${where}The peer ended the connection`);
});

test("an alert, or a reset in the handshake, is an error that names the server", async () => {
  await using t = await startTls({ alpnProtocols: ["shout/2"] });
  const where = `Cannot connect to 127.0.0.1:${t.port}: `;
  const error = await connect({ port: t.port, tls: { ...TRUSTED, alpnProtocols: ["other"] } }).catch((error) => error);
  assertEquals([error.message.slice(0, where.length), error.cause.message.length > 0], [where, true]);
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const failed = connect({ port: listener.addr.port, tls: TRUSTED }).catch((error) => error);
  const server = await listener.accept();
  await server.read(new Uint8Array(1));
  // Much has come that was not read, so this sends a reset.
  server.close();
  const reset = await failed;
  assertEquals(reset.message.startsWith(`Cannot connect to 127.0.0.1:${listener.addr.port}: `), true, `${reset}`);
});

test("a client begins TLS on a connection that its dial has opened in plain text", async () => {
  const credentials = await tlsCredentials(IDENTITY);
  await using t = startUpgrading(credentials);
  const dial = async () => {
    const tcp = await Deno.connect({ port: t.port });
    const plain = new TestClient(tcp);
    await plain.write("STARTTLS\n");
    assertEquals(await plain.readLine(), "go ahead");
    return tcp;
  };
  await using conn = await connect({ dial, tls: TRUSTED });
  await conn.write("WHO\n");
  assertEquals([conn.tls?.version, await conn.readLine()], ["TLSv1.3", "TLSv1.3 undefined undefined"]);
});

test("STARTTLS works with a client that nobody here wrote, and the loop over lines goes on", async () => {
  const credentials = await tlsCredentials(IDENTITY);
  await using t = startUpgrading(credentials, { maxLineBytes: 20 });
  const client = await upgrade(t);
  await client.write("hello\nWHO\n");
  assertEquals([await client.readLine(), await client.readLine()], ["HELLO", "TLSv1.3 undefined undefined"]);
  await client.write(`${"x".repeat(21)}\n`);
  assertEquals(await client.readAll(), "error: line longer than 20 bytes\n");
  client.close();
  assertEquals((await t.closed()).reason, "line-too-long");
});

test("after STARTTLS the handler knows who the client is", async () => {
  const clients = new Authority("client authority");
  const credentials = await tlsCredentials({ ...IDENTITY, clientCa: clients.cert, clientAuth: "request" });
  await using t = startUpgrading(credentials);
  for (const [shown, expected] of [[makeIdentity("me", { by: clients }), "CN=me true"], [{}, "undefined undefined"]]) {
    const tcp = await Deno.connect({ port: t.port });
    const plain = new TestClient(tcp);
    await plain.write("STARTTLS\n");
    assertEquals(await plain.readLine(), "go ahead");
    const client = t.own(new TestClient(await connectTlsOver(tcp, { ...TRUSTED, ...shown as Partial<Identity> })));
    await client.write("WHO\n");
    assertEquals(await client.readLine(), `TLSv1.3 ${expected}`);
  }
});

test("a reload of the credentials holds for the next STARTTLS", async () => {
  const credentials = await tlsCredentials(IDENTITY);
  await using t = startUpgrading(credentials);
  const before = await upgrade(t);
  await credentials.reload(makeIdentity("unknown"));
  await assertRejects(() => upgrade(t), Deno.errors.InvalidData, "UnknownIssuer");
  await before.write("still here\n");
  assertEquals(await before.readLine(), "STILL HERE");
});

test("many lines in both directions survive STARTTLS, in order", async () => {
  const credentials = await tlsCredentials(IDENTITY);
  await using t = startUpgrading(credentials);
  const client = await upgrade(t);
  const count = 20_000;
  const lines = Array.from({ length: count }, (_, i) => `line ${i}`);
  const sending = client.write(lines.map((line) => `${line}\n`).join(""));
  for (const line of lines) assertEquals(await client.readLine(), line.toUpperCase());
  await sending;
});

test("a client that breaks off the handshake of STARTTLS costs its own connection", async () => {
  const credentials = await tlsCredentials(IDENTITY);
  await using t = startUpgrading(credentials);
  const good = await upgrade(t);
  for (const [bytes, what] of [["", "nothing"], ["\x16\x03\x01", "a part"], ["GET / HTTP/1.1\r\n\r\n", "HTTP"]]) {
    const client = await t.connect();
    await client.write("STARTTLS\n");
    assertEquals(await client.readLine(), "go ahead", what);
    await client.write(bytes);
    await client.closeWrite();
    await client.readAll().catch(() => {});
  }
  const reasons = [(await t.closed(1)).reason, (await t.closed(2)).reason, (await t.closed(3)).reason];
  assertEquals(reasons, ["tls-handshake", "tls-handshake", "tls-handshake"]);
  await good.write("still here\n");
  assertEquals(await good.readLine(), "STILL HERE");
});

testOnce("TLS in both directions works over a Unix socket too", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/s`;
  {
    const { listenTls } = await import("@x/shouty/ops");
    const listener = await listenTls({ listener: await listenUnix({ path }), ...IDENTITY });
    await using t = startConversations({ listener }, async (conn) => {
      for await (const line of conn.lines) await conn.write(`${line} ${formatAddr(t.server.addr)}\n`);
    });
    await using conn = await connect({ path, tls: TRUSTED });
    await conn.write("at\n");
    assertEquals(await conn.readLine(), `at unix:${path}`);
  }
  await Deno.remove(folder, { recursive: true });
});

test("a pool speaks TLS", async () => {
  await using t = await startTls();
  const seen = Promise.withResolvers<[string | null, Conn["tls"]]>();
  await using _pool = connectPool({ port: t.port, tls: TRUSTED, drainTimeout: 50 }, async (conn) => {
    await conn.write("pooled\n");
    seen.resolve([await conn.readLine(), conn.tls]);
    await conn.readLine();
  });
  const [line, tls] = await seen.promise;
  assertEquals([line, tls?.peer?.verified], ["POOLED", true]);
});
