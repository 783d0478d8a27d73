import tls from "node:tls";
import { assertEquals, assertGreater, assertLess, assertMatch, assertNotEquals, assertRejects } from "@std/assert";
import type { Transport } from "@x/shouty";
import { listenTls, tlsCredentials, TlsCredentialsError } from "@x/shouty/ops";
import { TestClient } from "@x/shouty/testing";
import { findServerName, readHello } from "../../../ops/tls/hello.ts";
import { PeerLeft } from "../../../ops/wrappers/preparing_listener.ts";
import { testOnce as test } from "../../kit/bounded.ts";
import { Authority, makeIdentity } from "../../kit/certificates.ts";
import { countWork } from "../../kit/workers/work.ts";
import { AUTHORITY, IDENTITY, pipe, shakeHands, startTls, streamOf } from "../../kit/tls.ts";

const CLIENTS = new Authority("client authority");
const NO_BYTES = new Uint8Array();

const EXAMPLE = makeIdentity("example", { by: AUTHORITY, altNames: ["DNS:*.example.org", "DNS:example.org"] });
const MAIL = makeIdentity("mail", { by: AUTHORITY, altNames: ["DNS:mail.example.org", "DNS:mail.example.net"] });

/** Starts a client of `node:tls` in memory; returns the server's end. */
function startClient(options: tls.ConnectionOptions) {
  const [serverEnd, clientEnd] = pipe();
  const stream = streamOf(new TestClient(clientEnd));
  const socket = tls.connect({ socket: stream, ca: AUTHORITY.cert, servername: "localhost", ...options });
  socket.on("error", () => {});
  return { serverEnd, socket, close: () => [socket, stream].forEach((end) => end.destroy()) };
}

async function readFrom(transport: { read(into: Uint8Array): Promise<number | null> }, count: number) {
  const bytes = new Uint8Array(count);
  for (let at = 0; at < count;) at += (await transport.read(bytes.subarray(at)))!;
  return bytes;
}

/** The number of bytes of a client's first message. */
async function helloLength(options: tls.ConnectionOptions): Promise<number> {
  const { serverEnd, close } = startClient(options);
  const [, , , high, low] = await readFrom(serverEnd, 5);
  close();
  return 5 + (high << 8 | low);
}

for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
  for (const sni of [[], [MAIL]]) {
    const how = sni.length > 0 ? "and a choice of certificates" : "and one certificate";
    test(`credentials.accept() takes the first bytes of a handshake, cut anywhere, with ${version} ${how}`, async () => {
      const credentials = await tlsCredentials({ ...IDENTITY, sni });
      const options = { minVersion: version, maxVersion: version, servername: "mail.example.net" };
      const length = await helloLength(options);
      const step = length > 400 ? 3 : 1;
      for (let cut = 0; cut <= length; cut += cut < 100 || cut > length - 20 ? 1 : step) {
        const { serverEnd, socket, close } = startClient({ ...options, checkServerIdentity: () => undefined });
        const first = await readFrom(serverEnd, cut);
        const accepting = credentials.accept(serverEnd, first);
        // The caller may use its buffer for something else.
        first.fill(0);
        const server = await accepting;
        socket.write("x");
        assertEquals(await server.read(new Uint8Array(9)), 1);
        assertEquals(server.tls.serverName, "mail.example.net");
        assertEquals(socket.getPeerX509Certificate()!.subject, sni.length > 0 ? "CN=mail" : "CN=server");
        close();
        server.close();
      }
    });
  }
}

test("the first bytes of a handshake are copied, however many there are", async () => {
  const ALPNProtocols = Array.from({ length: 10 }, (_, i) => `${i}`.repeat(200));
  const length = await helloLength({ ALPNProtocols });
  const { serverEnd, socket, close } = startClient({ ALPNProtocols });
  const first = await readFrom(serverEnd, length);
  const accepting = (await tlsCredentials(IDENTITY)).accept(serverEnd, first);
  first.fill(0);
  const server = await accepting;
  socket.write("x");
  assertEquals([length > 2000, await server.read(new Uint8Array(9))], [true, 1]);
  close();
  server.close();
});

const CHOICES: [asked: string, subject: string][] = [
  ["mail.example.org", "CN=mail"],
  ["irc.example.org", "CN=example"],
  ["IRC.Example.ORG", "CN=example"],
  ["a.irc.example.org", "CN=server"],
  ["localhost", "CN=server"],
];

test("A client gets the first certificate that is for the name it asks for, else the main one", async () => {
  const credentials = await tlsCredentials({ ...IDENTITY, sni: [MAIL, { cert: EXAMPLE.key + EXAMPLE.cert }] });
  for (const [servername, subject] of CHOICES) {
    const { serverEnd, socket, close } = startClient({ servername, checkServerIdentity: () => undefined });
    const server = await credentials.accept(serverEnd, NO_BYTES);
    assertEquals([servername, socket.getPeerX509Certificate()?.subject], [servername, subject]);
    close();
    server.close();
  }
  using nameless = await shakeHands(credentials, { serverName: "127.0.0.1" });
  assertEquals([nameless.client.tls.peer?.subject, nameless.server.tls.serverName], ["CN=server", undefined]);
});

test("The name is found in a first message of ten kilobytes", async () => {
  const credentials = await tlsCredentials({ ...IDENTITY, sni: [MAIL] });
  const ALPNProtocols = Array.from({ length: 50 }, (_, i) => `${i}`.padStart(200, "x"));
  const options = { servername: "mail.example.net", ALPNProtocols, checkServerIdentity: () => undefined };
  assertGreater(await helloLength(options), 10_000);
  const { serverEnd, socket, close } = startClient(options);
  const server = await credentials.accept(serverEnd, NO_BYTES);
  assertEquals(socket.getPeerX509Certificate()!.subject, "CN=mail");
  close();
  server.close();
});

test("With a choice of certificates, damaged first messages get an alert, and leaving early is no failure", async () => {
  const credentials = await tlsCredentials({ ...IDENTITY, sni: [MAIL] });
  const play = async (bytes: Uint8Array, alert = new Uint8Array(0)) => {
    const [serverEnd, clientEnd] = pipe();
    await clientEnd.write(bytes);
    await clientEnd.closeWrite();
    const error = await assertRejects(() => credentials.accept(serverEnd, NO_BYTES), Error);
    serverEnd.close();
    // Only where all input has been read: what is unread makes the close a reset, which may destroy an alert.
    if (alert.length > 0) await clientEnd.read(alert);
    clientEnd.close();
    return { error, alert: [...alert] };
  };
  const alert = () => new Uint8Array(2);
  assertEquals((await play(new TextEncoder().encode("hello\n"), alert())).alert, [21, 3]);
  assertEquals((await play(Uint8Array.of(22, 3, 1, 0, 5, 1, 0, 0, 1, 9), alert())).alert, [21, 3]);
  // A message that announces more than any that is searched for a name.
  const long = new Uint8Array(20_000);
  for (let at = 0; at < 20_000; at += 5000) long.set([22, 3, 1, 5000 - 5 >> 8, 5000 - 5 & 255], at);
  long.set([1, 1, 0, 0], 5);
  assertEquals((await play(long)).error instanceof PeerLeft, false);
  assertEquals((await play(NO_BYTES)).error instanceof PeerLeft, true);
  const [resetEnd, clientEnd] = pipe();
  clientEnd.reset!();
  await assertRejects(() => credentials.accept(resetEnd, NO_BYTES), PeerLeft);
  resetEnd.close();
  assertMatch(
    (await play(Uint8Array.of(22))).error.message,
    /^The peer ended the connection during the TLS handshake$/,
  );
});

test("The name is found in a first message however it is spread over records, and not in a damaged one", async () => {
  const { serverEnd, close } = startClient({ servername: "mail.example.org" });
  const head = await readFrom(serverEnd, 5);
  const message = await readFrom(serverEnd, head[3] << 8 | head[4]);
  close();
  for (const size of [1, 2, 7, 100, message.length]) {
    const records: number[] = [];
    for (let at = 0; at < message.length; at += size) {
      const part = message.subarray(at, at + size);
      records.push(22, 3, 1, part.length >> 8, part.length & 255, ...part);
    }
    assertEquals(findServerName(Uint8Array.from(records)), "mail.example.org");
    assertEquals(findServerName(Uint8Array.from(records.slice(0, -1))), 1);
  }
  // What is no ClientHello is known as such at once: the client gets its alert without a wait for more.
  for (const [type, kind] of [[22, 2], [23, 1]]) {
    assertEquals(findServerName(Uint8Array.of(type, 3, 1, 0, 5, kind, 0, 0, 9, 9)), undefined);
  }
  for (let at = 4; at < message.length; at++) {
    // Whatever is damaged, it ends with a name, or without one.
    const found = findServerName(Uint8Array.from([...head, ...message.with(at, 0xff)]));
    assertNotEquals(typeof found, "number");
  }
});

test("A first message that comes byte by byte, in records of a byte, is looked at a few times, and no empty record", async () => {
  const most = 16 * 1024;
  const records = new Uint8Array(6 * Math.ceil(most / 6));
  // A ClientHello that is longer than all of them.
  for (let i = 0; 6 * i < most; i++) records.set([22, 3, 1, 0, 1, [1, 0, 255][i] ?? 0], 6 * i);
  let at = 0;
  const read = (into: Uint8Array) => {
    into[0] = records[at++];
    return Promise.resolve(1);
  };
  using work = countWork();
  const { bytes, serverName } = await readHello({ read } as Transport, NO_BYTES);
  assertEquals([bytes.length, serverName], [most, undefined]);
  assertLess(work.moved + work.copied, 20 * most);
  assertEquals(findServerName(Uint8Array.of(22, 3, 1, 0, 0)), undefined);
});

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
