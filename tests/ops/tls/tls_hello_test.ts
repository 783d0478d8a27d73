import type tls from "node:tls";
import { assertEquals, assertGreater, assertLess, assertMatch, assertNotEquals, assertRejects } from "@std/assert";
import type { Transport } from "@x/shouty";
import { tlsCredentials } from "@x/shouty/ops";
import { findServerName, readHello } from "../../../ops/tls/hello.ts";
import { PeerLeft } from "../../../ops/wrappers/preparing_listener.ts";
import { testOnce as test } from "../../kit/bounded.ts";
import { countWork } from "../../kit/workers/work.ts";
import { IDENTITY, pipe, shakeHands } from "../../kit/tls.ts";
import { EXAMPLE, MAIL, readFrom, startClient } from "../../kit/tls/node_client.ts";

const NO_BYTES = new Uint8Array();

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
