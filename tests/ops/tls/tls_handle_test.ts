import tls from "node:tls";
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { listenTls, tlsCredentials, TlsCredentialsError } from "@x/shouty/ops";
import { TestClient } from "@x/shouty/testing";
import { testOnce as test } from "../../kit/bounded.ts";
import { Authority, makeIdentity } from "../../kit/certificates.ts";
import { AUTHORITY, IDENTITY, pipe, shakeHands, startTls, streamOf } from "../../kit/tls.ts";
import { EXAMPLE, MAIL, readFrom, startClient } from "../../kit/tls/node_client.ts";

const CLIENTS = new Authority("client authority");
const NO_BYTES = new Uint8Array();

test("The server picks its first protocol that the client names, and serves a client that names none", async () => {
  const credentials = await tlsCredentials({ ...IDENTITY, alpnProtocols: ["imap", "pop3", "é"] });
  for (
    const [named, picked] of [[["pop3", "imap"], "imap"], [["x", "pop3"], "pop3"], [["é"], "é"], [
      undefined,
      undefined,
    ]] as const
  ) {
    using both = await shakeHands(credentials, { alpnProtocols: named });
    assertEquals([both.server.tls.alpn, both.client.tls.alpn], [picked, picked]);
  }
  await assertRejects(() => shakeHands(credentials, { alpnProtocols: ["http/1.1"] }), Error);
  const without = await tlsCredentials(IDENTITY);
  using both = await shakeHands(without, { alpnProtocols: ["http/1.1"] });
  assertEquals([both.server.tls.alpn, both.client.tls.alpn], [undefined, undefined]);
});

test('With clientAuth "request", the handler learns who the client is, and whether its certificate is valid', async () => {
  const known = makeIdentity("known", { by: CLIENTS });
  const stranger = makeIdentity("stranger");
  const expired = makeIdentity("expired", { by: CLIENTS, days: [-9, -1] });
  const server = makeIdentity("known", { by: CLIENTS, usage: "server" });
  for (const clientCa of [CLIENTS.cert, undefined]) {
    const credentials = await tlsCredentials({ ...IDENTITY, clientAuth: "request", clientCa });
    for (const [identity, verified] of [[known, true], [stranger, false], [expired, false], [server, false]] as const) {
      using both = await shakeHands(credentials, identity);
      const { peer } = both.server.tls;
      assertEquals(peer?.verified, verified && clientCa !== undefined, peer?.subject);
      assertMatch(peer!.fingerprint256, /^([0-9A-F]{2}:){31}[0-9A-F]{2}$/);
    }
    // With TLS 1.2 the certificate comes records before the end of the handshake.
    const { serverEnd, close } = startClient({ ...stranger, maxVersion: "TLSv1.2" });
    const old = await credentials.accept(serverEnd, NO_BYTES);
    assertEquals([old.tls.version, old.tls.peer?.subject, old.tls.peer?.verified], ["TLSv1.2", "CN=stranger", false]);
    close();
    old.close();
    using nobody = await shakeHands(credentials);
    assertEquals("peer" in nobody.server.tls, false);
  }
});

test("A client's certificate of X.509 version 1 is refused in any case: it need not have its key", async () => {
  const old = makeIdentity("old", { version1: true });
  for (const clientAuth of ["request", "require"] as const) {
    // As an authority, it is trusted, and node:tls finds nothing wrong.
    const credentials = await tlsCredentials({ ...IDENTITY, clientAuth, clientCa: CLIENTS.cert + old.cert });
    const [serverEnd, clientEnd] = pipe();
    const accepting = credentials.accept(serverEnd, NO_BYTES);
    const socket = tls.connect({
      socket: streamOf(new TestClient(clientEnd)),
      ca: AUTHORITY.cert,
      servername: "localhost",
      ...old,
    });
    socket.on("error", () => {});
    const { message } = await assertRejects(() => accepting, Error);
    assertEquals(
      message,
      "The client's certificate is not valid (it is of X.509 version 1, and version 3 is required)",
    );
    serverEnd.close();
    socket.destroy();
  }
});

test("What is known of a handshake does not change when the connection has ended", async () => {
  const credentials = await tlsCredentials({ ...IDENTITY, clientAuth: "request" });
  using both = await shakeHands(credentials, makeIdentity("me"));
  const before = structuredClone(both.server.tls);
  both.server.close();
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(structuredClone(both.server.tls), before);
  assertEquals(before.peer?.subject, "CN=me");
  assertEquals([Object.isFrozen(both.server.tls), Object.isFrozen(both.server.tls.peer)], [true, true]);
});

test("Several listeners share credentials, and a reload of one holds for all", async () => {
  const credentials = await tlsCredentials(IDENTITY);
  await using one = await startTls({ credentials });
  await using two = await startTls({ credentials });
  assertEquals([await one.talkTls("hello"), await two.talkTls("hello")], ["HELLO\n", "HELLO\n"]);
  await one.listener.reload(makeIdentity("renewed", { by: AUTHORITY }));
  assertEquals([credentials.certificate.subject, two.listener.certificate.subject], ["CN=renewed", "CN=renewed"]);
  assertEquals(await two.talkTls("hello"), "HELLO\n");
  const both = () => listenTls({ port: 0, credentials, sni: [] });
  await assertRejects(both, TypeError, "Cannot use sni: credentials are given");
  const wrong = () => listenTls({ port: 0, credentials: {} as never });
  await assertRejects(wrong, TypeError, "Cannot use credentials: expected tlsCredentials, got an object");
});

test("A reload keeps what it leaves out, and replaces or takes away what it names", async () => {
  const credentials = await tlsCredentials({
    ...{ ...IDENTITY, sni: [MAIL], alpnProtocols: ["imap"] },
    ...{ clientCa: CLIENTS.cert, clientAuth: "request" as const, handshakeTimeout: 1234 },
  });
  const known = {
    ...makeIdentity("known", { by: CLIENTS }),
    serverName: "mail.example.org",
    alpnProtocols: ["imap", "x"],
  };
  const asked = async () => {
    using both = await shakeHands(credentials, known);
    const { alpn, peer } = both.server.tls;
    return [both.client.tls.peer?.subject, alpn, peer?.verified];
  };
  assertEquals(await asked(), ["CN=mail", "imap", true]);
  await credentials.reload({ ...IDENTITY, handshakeTimeout: 9 });
  assertEquals(await asked(), ["CN=mail", "imap", true]);
  assertEquals(credentials.handshakeTimeout, 1234);
  await credentials.reload({ ...EXAMPLE, sni: [], alpnProtocols: ["x"], clientCa: AUTHORITY.cert });
  assertEquals(await asked(), ["CN=example", "x", false]);
  await credentials.reload({ ...EXAMPLE, clientAuth: "require" });
  await assertRejects(asked, Error, "The client's certificate is not valid");
});

test("To change the list of protocols that credentials were made with changes nothing", async () => {
  const alpnProtocols = ["imap"];
  const credentials = await tlsCredentials({ ...IDENTITY, alpnProtocols });
  alpnProtocols[0] = "other";
  using both = await shakeHands(credentials, { alpnProtocols: ["other", "imap"] });
  assertEquals(both.server.tls.alpn, "imap");
});

test("A reload does not disturb handshakes that have begun, also while a name is awaited", async () => {
  for (const sni of [undefined, [MAIL]]) {
    const credentials = await tlsCredentials({ ...IDENTITY, sni });
    const { serverEnd, socket, close } = startClient({});
    const length = await readFrom(serverEnd, 7);
    const accepting = credentials.accept(serverEnd, length);
    await credentials.reload(makeIdentity("renewed", { by: AUTHORITY }));
    const server = await accepting;
    assertEquals(socket.getPeerX509Certificate()?.subject, "CN=server");
    close();
    server.close();
  }
});

const expired = makeIdentity("expired", { by: AUTHORITY, days: [-9, -1] });

const WRONG: [options: Record<string, unknown>, message: RegExp, option?: string][] = [
  [
    { sni: [MAIL, { cert: "x" }] },
    /^Cannot use sni: in its element 1, cert: there is no PEM certificate in it$/,
    "sni",
  ],
  [{ sni: [{ ...MAIL, key: EXAMPLE.key }] }, /^Cannot use sni: in its element 0, key: it does not belong/, "sni"],
  [{ sni: [5] }, /^Cannot use sni: in its element 0: /],
  [{ sni: [undefined] }, /^Cannot use sni: in its element 0: /],
  [{ sni: MAIL }, /^Cannot use sni: expected an array, got object$/],
  [{ clientAuth: "require" }, /^Cannot use clientAuth: "require" needs clientCa$/, "clientAuth"],
  [{ clientAuth: "ask" }, /^Cannot use clientAuth "ask": expected "require" or "request"$/],
  [{ alpnProtocols: [] }, /^Cannot use alpnProtocols: expected at least one protocol$/],
  [{ alpnProtocols: ["x".repeat(256)] }, /^Cannot use alpnProtocols: expected names of 1 to 255 bytes, got /],
  [{ alpnProtocols: ["\ud800"] }, /^Cannot use alpnProtocols: expected names of 1 to 255 bytes, got /],
];

test("tlsCredentials() and reload() refuse wrong options, and say which", async () => {
  const credentials = await tlsCredentials(IDENTITY);
  for (const [options, message, option] of WRONG) {
    for (const load of [tlsCredentials, (all: never) => credentials.reload(all)]) {
      const error = await assertRejects(() => load({ ...IDENTITY, ...options } as never), Error);
      assertMatch(error.message, message);
      assertEquals((error as Partial<TlsCredentialsError>).option, option);
    }
  }
  await assertRejects(() => tlsCredentials({ ...IDENTITY, handshakeTimeout: 0 }), RangeError, "handshakeTimeout");
  await assertRejects(() => tlsCredentials(undefined as never), TypeError, "Cannot use tlsCredentials options");
  await tlsCredentials({ ...IDENTITY, sni: [expired], handshakeTimeout: Infinity });
  const error = await assertRejects(() => credentials.reload({ ...IDENTITY, sni: [expired] }), TlsCredentialsError);
  assertMatch(error.message, /^Cannot use sni: in its element 0, cert: it expired on 20/);
});
