import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { tlsCredentials } from "@x/shouty/ops";
import type { Transport } from "../../../../internal/api/transport.ts";
import { type ClientTlsOptions, connectTlsOver } from "../../../../ops/tls/client.ts";
import { testOnce as test } from "../../../kit/bounded.ts";
import { Authority, makeIdentity } from "../../../kit/certificates.ts";
import { AUTHORITY, IDENTITY, pipe } from "../../../kit/tls.ts";
import { connectTo } from "../../../kit/tls/node_server.ts";

for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
  test(`connectTlsOver() speaks ${version}, and tells what was agreed on`, async () => {
    using client = await connectTo({ ...IDENTITY, minVersion: version, maxVersion: version, ALPNProtocols: ["imap"] }, {
      alpnProtocols: ["pop3", "imap"],
    });
    assertEquals(await client.readLine(), "hi");
    const { cipher, peer, ...rest } = client.transport.tls;
    assertMatch(cipher, /^TLS_[A-Z0-9_]+$/);
    assertEquals(rest, { version, serverName: "localhost", alpn: "imap" });
    assertEquals({ ...peer, fingerprint256: undefined }, {
      subject: "CN=server",
      altNames: ["DNS:localhost", "IP Address:127.0.0.1"],
      fingerprint256: undefined,
      verified: true,
    });
    assertMatch(peer!.fingerprint256, /^([0-9A-F]{2}:){31}[0-9A-F]{2}$/);
  });
}

const SELF = makeIdentity("self");

test("connectTlsOver() asks for the name, and not for an address", async () => {
  for (const [serverName, asked] of [["localhost", "localhost"], ["127.0.0.1", undefined]] as const) {
    const [serverEnd, clientEnd] = pipe();
    const credentials = await tlsCredentials(IDENTITY);
    const accepting = credentials.accept(serverEnd, new Uint8Array());
    const client = await connectTlsOver(clientEnd, { serverName, caCerts: AUTHORITY.cert });
    const server = await accepting;
    assertEquals([server.tls.serverName, client.tls.serverName], [asked, asked]);
    client.close();
    server.close();
  }
});

test("connectTlsOver() shows its certificate to a server that asks for one", async () => {
  const [serverEnd, clientEnd] = pipe();
  const clients = new Authority("client authority");
  const credentials = await tlsCredentials({ ...IDENTITY, clientCa: clients.cert });
  const accepting = credentials.accept(serverEnd, new Uint8Array());
  const identity = makeIdentity("me", { by: clients });
  const client = await connectTlsOver(clientEnd, { serverName: "localhost", caCerts: AUTHORITY.cert, ...identity });
  const server = await accepting;
  assertEquals([server.tls.peer?.subject, server.tls.peer?.verified], ["CN=me", true]);
  client.close();
  server.close();
});

test("connectTlsOver() gives the data that comes together with the end of the handshake", async () => {
  using client = await connectTo(IDENTITY);
  assertEquals(await client.readLine(), "hi");
  await client.write("hello\n");
  await client.closeWrite();
  assertEquals(client.transport.heldBytes, 0);
});

test("connectTlsOver() says that a server speaks plain text, or ends the connection", async () => {
  const play = async (what: (server: Transport) => Promise<unknown>) => {
    const [serverEnd, clientEnd] = pipe();
    const connecting = connectTlsOver(clientEnd, { serverName: "localhost", caCerts: AUTHORITY.cert });
    connecting.catch(() => {});
    await what(serverEnd);
    const error = await assertRejects(() => connecting, Error);
    clientEnd.close();
    serverEnd.close();
    return error;
  };
  const plain = await play((server) => server.write(new TextEncoder().encode("* OK IMAP4rev1 Service Ready\r\n")));
  assertEquals(plain.message, "The server does not speak TLS at this port");
  const gone = await play((server) => server.closeWrite());
  assertEquals(gone instanceof Deno.errors.UnexpectedEof, true, `${gone}`);
  assertEquals(gone.message, "The peer ended the connection during the TLS handshake");
  const alert = await play((server) => server.write(Uint8Array.of(21, 3, 3, 0, 2, 2, 40)));
  assertMatch(alert.message, /HandshakeFailure/);
});

test("connectTlsOver() rejects when the transport is closed meanwhile", async () => {
  const [serverEnd, clientEnd] = pipe();
  const connecting = connectTlsOver(clientEnd, { serverName: "localhost" });
  await serverEnd.read(new Uint8Array(10));
  clientEnd.close();
  await assertRejects(() => connecting);
  serverEnd.close();
});

test("connectTlsOver() rejects when a server speaks none of its protocols", async () => {
  const error = await assertRejects(
    () => connectTo({ ...IDENTITY, ALPNProtocols: ["imap"] }, { alpnProtocols: ["pop3"] }),
  );
  assertMatch(String(error), /ended the connection|NoApplicationProtocol/);
});

const WRONG: [options: Record<string, unknown>, message: RegExp][] = [
  [{ serverName: "" }, /^Cannot use serverName "": expected a host name or an IP address$/],
  [{ serverName: "." }, /^Cannot use serverName/],
  [{ serverName: "a..b" }, /^Cannot use serverName/],
  [{ serverName: "*.example.org" }, /^Cannot use serverName/],
  [{ serverName: "127.1" }, /^Cannot use serverName/],
  [{ serverName: "fe80::1%eth0" }, /^Cannot use serverName/],
  [{ serverName: "bücher.example" }, /^Cannot use serverName/],
  [{ serverName: "localhost\0" }, /^Cannot use serverName/],
  [{ serverName: undefined }, /^Cannot use serverName: expected a string, got undefined$/],
  [{ caCerts: "nonsense" }, /^Cannot use caCerts: there is no PEM certificate in it$/],
  [{ caCerts: [] }, /^Cannot use caCerts: expected/],
  [{ caCerts: [AUTHORITY.cert, ""] }, /^Cannot use caCerts: there is no PEM certificate in it$/],
  [{ caCerts: 5 }, /^Cannot use caCerts: expected/],
  [{ caCerts: AUTHORITY.cert.replace(/\n[^-]{64}/, "\nAAAA") }, /^Cannot use caCerts: a certificate in it is damaged$/],
  [{ cert: IDENTITY.cert }, /^Cannot use cert: there is no PEM private key in it/],
  [{ cert: IDENTITY.cert, key: SELF.key }, /^Cannot use key: it does not belong to the certificate$/],
  [{ key: SELF.key }, /^Cannot use key: there is no cert that it belongs to$/],
  [{ alpnProtocols: [] }, /^Cannot use alpnProtocols: expected at least one protocol$/],
  [{ alpnProtocols: ["x", ""] }, /^Cannot use alpnProtocols: expected names of 1 to 255 bytes, got ""$/],
  [{ alpnProtocols: ["é".repeat(128)] }, /^Cannot use alpnProtocols: expected names of 1 to 255 bytes/],
  [{ alpnProtocols: "imap" }, /^Cannot use alpnProtocols: expected an array, got "imap"$/],
  [{ alpnProtocols: [5] }, /^Cannot use alpnProtocols: expected strings, got 5$/],
];

test("connectTlsOver() refuses wrong options before it sends anything", async () => {
  for (const [options, message] of WRONG) {
    const [serverEnd, clientEnd] = pipe();
    const all = { serverName: "localhost", ...options } as unknown as ClientTlsOptions;
    const error = await assertRejects(() => connectTlsOver(clientEnd, all), Error);
    assertMatch(error.message, message);
    clientEnd.close();
    assertEquals(await serverEnd.read(new Uint8Array(1)), null);
    serverEnd.close();
  }
});

test("connectTlsOver() refuses a client's key of a kind that TLS has no use for", async () => {
  const odd = makeIdentity("odd", { curve: "secp256k1" });
  await assertRejects(() => connectTo(IDENTITY, odd), Error, "Cannot use key: it is of a kind that is not supported");
});
