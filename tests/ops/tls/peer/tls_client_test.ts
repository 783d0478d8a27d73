import { Buffer } from "node:buffer";
import tls from "node:tls";
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { tlsCredentials } from "@x/shouty/ops";
import { TestClient } from "@x/shouty/testing";
import type { Transport } from "../../../../internal/api/transport.ts";
import { type ClientTlsOptions, connectTlsOver } from "../../../../ops/tls/client.ts";
import { testOnce as test } from "../../../kit/bounded.ts";
import { Authority, type Identity, makeIdentity, signWith } from "../../../kit/certificates.ts";
import { AUTHORITY, IDENTITY, pipe, streamOf } from "../../../kit/tls.ts";

const OTHERS = new Authority("another authority");
const MIDDLE = new Authority("intermediate authority", AUTHORITY);
/** An authority with the trusted one's name, but another key. */
const IMPOSTOR = new Authority(AUTHORITY.name);

type Options = Partial<ClientTlsOptions>;

/** What a server of `node:tls` has seen of a handshake. */
interface Seen {
  /** The application's bytes. */
  data: string;
  /** Whether the handshake has ended, for the server. */
  secure: boolean;
}

/** Connects to a server of `node:tls` in memory, which says "hi" as soon as it can. */
async function connectTo(identity: tls.TLSSocketOptions & tls.SecureContextOptions, options: Options = {}) {
  const [serverEnd, clientEnd] = pipe();
  const stream = streamOf(new TestClient(serverEnd));
  const server = new tls.TLSSocket(stream, { isServer: true, ...identity });
  const seen: Seen = { data: "", secure: false };
  server.on("error", () => {});
  server.on("secure", () => seen.secure = true);
  server.on("data", (bytes: Uint8Array) => seen.data += Buffer.from(bytes).toString());
  server.write("hi\n");
  const close = () => {
    server.destroy();
    stream.destroy();
    clientEnd.close();
  };
  try {
    const all = { serverName: "localhost", caCerts: AUTHORITY.cert, ...options };
    const transport = await connectTlsOver(clientEnd, all);
    return Object.assign(new TestClient(transport), { transport, seen, [Symbol.dispose]: close });
  } catch (error) {
    close();
    throw Object.assign(error as Error, { seen });
  }
}

/** Checks that a client refuses a server, and that the server has got nothing of what it should not have. */
async function refused(identity: tls.SecureContextOptions, options: Options, problem: RegExp) {
  const error = await assertRejects(() => connectTo(identity, options), Deno.errors.InvalidData);
  assertMatch(/^The server's certificate is not valid \((.*)\)$/s.exec(error.message)![1], problem);
  assertEquals((error as unknown as { seen: Seen }).seen, { data: "", secure: false });
}

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

const V6 = makeIdentity("server", { by: AUTHORITY, altNames: ["IP Address:2001:db8:0:0:0:0:0:1"] });
const WILDCARD = makeIdentity("server", { by: AUTHORITY, altNames: ["DNS:*.Example.org"] });
const CHAIN = (() => {
  const own = makeIdentity("server", { by: MIDDLE });
  return { ...own, cert: own.cert + MIDDLE.cert };
})();

const ACCEPTED: [what: string, identity: Identity, options: Options][] = [
  ["that is for the address", IDENTITY, { serverName: "127.0.0.1" }],
  ["that is for the IPv6 address, however it is written", V6, { serverName: "2001:DB8::1" }],
  ["that is for the name, with a dot at its end and in capitals", IDENTITY, { serverName: "LocalHost." }],
  ["with a wildcard for one label", WILDCARD, { serverName: "irc.example.org" }],
  ["of an intermediate authority", CHAIN, {}],
  ["of one of several authorities", IDENTITY, { caCerts: [OTHERS.cert, MIDDLE.cert + AUTHORITY.cert] }],
  ["that is for servers", makeIdentity("server", { by: AUTHORITY, usage: "server" }), {}],
];

for (const [what, identity, options] of ACCEPTED) {
  test(`connectTlsOver() accepts a certificate ${what}`, async () => {
    using client = await connectTo(identity, options);
    assertEquals(await client.readLine(), "hi");
  });
}

const SELF = makeIdentity("self");
const NO_CHAIN = makeIdentity("server", { by: MIDDLE });
/** A valid certificate of one server that signs another. */
const LEAF_AS_AUTHORITY = (() => {
  const leaf = makeIdentity("leaf", { by: AUTHORITY, altNames: ["DNS:example.org"] });
  const forged = makeIdentity("server", { by: signWith("leaf", leaf) });
  return { ...forged, cert: forged.cert + leaf.cert };
})();
const BELOW_EXPIRED = (() => {
  const middle = new Authority("old authority", AUTHORITY, [-30, -1]);
  const own = makeIdentity("server", { by: middle });
  return { ...own, cert: own.cert + middle.cert };
})();

const REFUSED: [what: string, identity: Identity, options: Options, problem: RegExp][] = [
  ["that is self-signed", SELF, {}, /^it is self-signed, and not one of the authorities in caCerts$/],
  [
    "of another authority",
    IDENTITY,
    { caCerts: OTHERS.cert },
    /^none of the authorities in caCerts has signed it, UNABLE/,
  ],
  ["that Deno's own authorities do not know", IDENTITY, { caCerts: undefined }, /^none of the authorities that Deno/],
  ["of an impostor", makeIdentity("server", { by: IMPOSTOR }), {}, /^none of the authorities in caCerts has signed it/],
  ["without the one above it", NO_CHAIN, {}, /^none of the authorities in caCerts has signed it/],
  ["that a server's certificate has signed", LEAF_AS_AUTHORITY, {}, /^none of the authorities in caCerts/],
  ["that has expired", makeIdentity("s", { by: AUTHORITY, days: [-9, -1] }), {}, /^it expired on 20/],
  ["that is not valid yet", makeIdentity("s", { by: AUTHORITY, days: [1, 9] }), {}, /^it is not valid before 20/],
  ["below an expired one", BELOW_EXPIRED, {}, /^a certificate above its own expired on 20/],
  ["for clients", makeIdentity("s", { by: AUTHORITY, usage: "client" }), {}, /^its extended key usage is not server/],
  ["of X.509 version 1", makeIdentity("localhost", { by: AUTHORITY, version1: true }), {}, /^it is of X.509 version 1/],
  [
    "of X.509 version 1 with the authority's name, which another has signed",
    makeIdentity("localhost", { by: IMPOSTOR, version1: true }),
    {},
    /^it is of X.509 version 1/,
  ],
  [
    "for another name",
    IDENTITY,
    { serverName: "example.org" },
    /^it is for DNS:localhost, IP Address:127.0.0.1, and not for example.org$/,
  ],
  ["for another address", IDENTITY, { serverName: "127.0.0.2" }, /and not for 127.0.0.2$/],
  ["with a wildcard, for two labels", WILDCARD, { serverName: "a.b.example.org" }, /and not for a.b.example.org$/],
  ["with a wildcard, for no label", WILDCARD, { serverName: "example.org" }, /and not for example.org$/],
  [
    "with a wildcard for a whole top-level domain",
    makeIdentity("s", { by: AUTHORITY, altNames: ["DNS:*.org"] }),
    { serverName: "example.org" },
    /and not for example.org$/,
  ],
  [
    "with an address as a host name",
    makeIdentity("s", { by: AUTHORITY, altNames: ["DNS:127.0.0.1"] }),
    { serverName: "127.0.0.1" },
    /and not for 127.0.0.1$/,
  ],
  [
    "with the name only in its subject",
    makeIdentity("localhost", { by: AUTHORITY, altNames: [] }),
    {},
    /^it is for no name, and not for localhost$/,
  ],
  [
    "with the name only before a NUL",
    makeIdentity("s", { by: AUTHORITY, altNames: ["DNS:localhost\0.example.org"] }),
    {},
    /^it is for DNS:localhost\\u0000.example.org, and not for localhost$/,
  ],
];

for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
  for (const [what, identity, options, problem] of REFUSED) {
    test(`connectTlsOver() refuses a certificate ${what}, and sends no byte, with ${version}`, async () => {
      await refused({ ...identity, minVersion: version, maxVersion: version }, options, problem);
    });
  }
}

test("connectTlsOver() refuses an intermediate certificate of version 1, which node:tls does not verify", async () => {
  // Its signature is an impostor's: only its issuer's name is that of the authority.
  const middle = new Authority("middle");
  const forged = { ...makeIdentity("server", { by: middle }) };
  const v1 = makeIdentity("middle", { by: IMPOSTOR, version1: true });
  await refused({ ...forged, cert: forged.cert + v1.cert }, {}, /^none of the authorities in caCerts has signed it$/);
  // The second has no declaration yet.
  const { getCACertificates, setDefaultCACertificates } = tls as unknown as {
    getCACertificates(type: "default"): string[];
    setDefaultCACertificates(certificates: string[]): void;
  };
  const before = getCACertificates("default");
  setDefaultCACertificates([AUTHORITY.cert]);
  try {
    const problem = /^none of the authorities that Deno trusts has signed it$/;
    await refused({ ...forged, cert: forged.cert + v1.cert }, { caCerts: undefined }, problem);
    // The default is in use.
    using client = await connectTo(IDENTITY, { caCerts: undefined });
    assertEquals(await client.readLine(), "hi");
  } finally {
    setDefaultCACertificates(before);
  }
});

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

for (const version of ["TLSv1.2", "TLSv1.3"]) {
  test(`connectTlsOver() trusts Deno's own authorities, and resumes no session with them, with ${version}`, async () => {
    const identity = { ...IDENTITY, minVersion: version, maxVersion: version };
    const program = `
      import { TLSSocket } from "node:tls";
      import { TestClient } from "@x/shouty/testing";
      import { connectTlsOver } from "./ops/tls/client.ts";
      import { pipe, streamOf } from "./tests/kit/tls.ts";
      for (let i = 0; i < 3; i++) {
        const [serverEnd, clientEnd] = pipe();
        const server = new TLSSocket(streamOf(new TestClient(serverEnd)), { isServer: true, ...${
      JSON.stringify(identity)
    } });
        server.write("hi\\n");
        const client = new TestClient(await connectTlsOver(clientEnd, { serverName: "localhost" }));
        console.log(await client.readLine(), server.isSessionReused());
      }
      Deno.exit();`;
    const file = await Deno.makeTempFile();
    await Deno.writeTextFile(file, AUTHORITY.cert);
    const command = new Deno.Command(Deno.execPath(), { args: ["eval", "--no-check", "--cert", file, program] });
    const { stdout, stderr } = await command.output();
    await Deno.remove(file);
    const output = new TextDecoder().decode(stdout);
    assertEquals(output, "hi false\n".repeat(3), new TextDecoder().decode(stderr));
  });
}
