import { Buffer } from "node:buffer";
import net from "node:net";
import { duplexPair } from "node:stream";
import tls from "node:tls";
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { test } from "../../../kit/bounded.ts";
import { Authority, type Identity, makeIdentity } from "../../../kit/certificates.ts";
import { AUTHORITY, startTls } from "../../../kit/tls.ts";

/** Type of the TLS record (ChangeCipherSpec) behind which every record is encrypted. */
const CHANGE_CIPHER_SPEC = 20;

const CLIENTS = new Authority("client authority");

test("With clientCa, a client with a certificate by that authority is served", async () => {
  await using t = await startTls({ clientCa: CLIENTS.cert });
  for (const usage of [undefined, "client"] as const) {
    const client = await t.connectTls(makeIdentity("known", { by: CLIENTS, usage }));
    await client.write("hello\n");
    assertEquals(await client.readLine(), "HELLO");
  }
});

test("With several authorities in clientCa, a client of any is served", async () => {
  const others = new Authority("other clients");
  await using t = await startTls({ clientCa: others.cert + CLIENTS.cert });
  for (const by of [others, CLIENTS]) {
    const client = await t.connectTls(makeIdentity("known", { by }));
    await client.write("hello\n");
    assertEquals(await client.readLine(), "HELLO");
  }
});

/** An authority with the trusted one's name, but another key. */
const impostor = new Authority(CLIENTS.name);

const UNKNOWN = /^The client's certificate is not valid \(no authority in clientCa has signed it, UNABLE_\w+\)$/;

const REFUSED: [what: string, identity: Partial<Identity>, message: RegExp][] = [
  ["no certificate", {}, /^peer sent no certificates$/],
  ["its own certificate", makeIdentity("self"), UNKNOWN],
  ["the server's authority's certificate", makeIdentity("known", { by: AUTHORITY }), UNKNOWN],
  ["an impostor's certificate", makeIdentity("known", { by: impostor }), UNKNOWN],
  [
    "a certificate for servers alone",
    makeIdentity("known", { by: CLIENTS, usage: "server" }),
    /^The client's certificate is not valid \(its extended key usage is not client authentication\)$/,
  ],
  [
    "an expired certificate",
    makeIdentity("known", { by: CLIENTS, days: [-10, -1] }),
    /^The client's certificate is not valid \(it expired on 20/,
  ],
  [
    "a certificate from the future",
    makeIdentity("known", { by: CLIENTS, days: [1, 10] }),
    /^The client's certificate is not valid \(it is not valid before 20/,
  ],
];

for (const [what, identity, message] of REFUSED) {
  test(`With clientCa, a client with ${what} is rejected, and nothing that it sends is read`, async () => {
    await using t = await startTls({ clientCa: CLIENTS.cert });
    const client = await t.connectTls(identity);
    await client.write("hello\n").catch(() => {});
    await assertRejects(() => client.read());
    const { reason, error } = await t.until("rejected");
    assertEquals(reason, "tls-handshake");
    assertMatch((error as Error).message, message);
    assertEquals(t.stats.accepted, 0);
  });
}

test("With clientCa, a wrong certificate is refused before the handshake is finished, when there is no session yet", async () => {
  await using t = await startTls({ clientCa: CLIENTS.cert });
  // Passes on what the client sends in TLS 1.2 up to the change to encryption, and not its end of the handshake.
  const server = net.connect(t.port, "127.0.0.1");
  const [clientSide, proxySide] = duplexPair();
  server.pipe(proxySide);
  let sent = Buffer.alloc(0);
  proxySide.on("data", (bytes) => {
    sent = Buffer.concat([sent, bytes]);
    for (
      ;
      sent.length >= 5 && sent.length >= 5 + sent.readUInt16BE(3);
      sent = sent.subarray(5 + sent.readUInt16BE(3))
    ) {
      if (sent[0] === CHANGE_CIPHER_SPEC) return proxySide.removeAllListeners("data");
      server.write(sent.subarray(0, 5 + sent.readUInt16BE(3)));
    }
  });
  const stranger = makeIdentity("stranger");
  const client = tls.connect({
    socket: clientSide,
    ca: AUTHORITY.cert,
    servername: "localhost",
    maxVersion: "TLSv1.2",
    ...stranger,
  });
  client.on("error", () => {});
  const { error } = await t.until("rejected");
  assertMatch((error as Error).message, /^The client's certificate is not valid/);
  client.destroy();
  server.destroy();
});

test("A reload without clientCa keeps the one that the reload before it brings, though that is under way", async () => {
  await using t = await startTls({ clientCa: AUTHORITY.cert });
  const credentials = makeIdentity("renewed", { by: AUTHORITY });
  await Promise.all([t.listener.reload({ ...credentials, clientCa: CLIENTS.cert }), t.listener.reload(credentials)]);
  const client = await t.connectTls(makeIdentity("known", { by: CLIENTS }));
  await client.write("hello\n");
  assertEquals(await client.readLine(), "HELLO");
});

test("Without clientCa, no certificate is asked for, and one that is there is no matter", async () => {
  await using t = await startTls();
  const client = await t.connectTls(makeIdentity("anybody"));
  await client.write("hello\n");
  assertEquals(await client.readLine(), "HELLO");
});
