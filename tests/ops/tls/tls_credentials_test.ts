import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { createPrivateKey, generateKeyPairSync, X509Certificate } from "node:crypto";
import { once } from "node:events";
import tls from "node:tls";
import { listenTls, TlsCredentialsError } from "@x/shouty/ops";
import { MemoryListener } from "@x/shouty/testing";
import { datesProblem, infoOf } from "../../../ops/tls/certificates/certificate.ts";
import { checkPair } from "../../../ops/tls/pem.ts";
import { test, testOnce } from "../../kit/bounded.ts";
import { Authority, makeIdentity } from "../../kit/certificates.ts";
import { AUTHORITY, IDENTITY, startTls } from "../../kit/tls.ts";

const { cert, key } = IDENTITY;
const DAMAGED = cert.replace(/\n[^-]{64}/, "\nAAAA");

function privateKey(options: { cipher?: string; passphrase?: string; type: "pkcs8" | "sec1" }): string {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return privateKey.export({ format: "pem", ...options }) as string;
}

const OTHER = makeIdentity("other", { by: AUTHORITY });
const OTHER_AUTHORITY = new Authority("other authority");

/** The block that OpenSSL writes before a key on the curve P-256. */
const EC_PARAMETERS = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";

/** A key with a passphrase as OpenSSL wrote it before PKCS #8; what is encrypted does not matter. */
const OLD_ENCRYPTED = `-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF

AAAA
-----END EC PRIVATE KEY-----
`;

/** The same key in another format. */
function rewritten(pem: string, type: "sec1"): string {
  return createPrivateKey(pem).export({ format: "pem", type }) as string;
}

const PROBLEMS: [what: string, credentials: Record<string, string>, message: RegExp][] = [
  ["a certificate that is none", { cert: "nonsense" }, /^Cannot use cert: there is no PEM certificate in it$/],
  ["an empty certificate", { cert: "" }, /^Cannot use cert: there is no PEM certificate in it$/],
  ["a key in the certificate's place", { cert: key }, /^Cannot use cert: there is no PEM certificate in it$/],
  ["a damaged certificate", { cert: DAMAGED }, /^Cannot use cert: a certificate in it is damaged$/],
  ["a damaged chain", { cert: cert + DAMAGED }, /^Cannot use cert: a certificate in it is damaged$/],
  ["a key that is none", { key: "nonsense" }, /^Cannot use key: there is no PEM private key in it$/],
  ["a damaged key", { key: key.replace(/\n.{64}/, "\nAAAA") }, /^Cannot use key: it is damaged, or/],
  [
    "a key with a passphrase",
    { key: privateKey({ type: "pkcs8", cipher: "aes-256-cbc", passphrase: "x" }) },
    /^Cannot use key: it has a passphrase, which is not supported$/,
  ],
  ["a key with a passphrase in the old format", { key: OLD_ENCRYPTED }, /^Cannot use key: it has a passphrase, which/],
  ["another's key", { key: privateKey({ type: "sec1" }) }, /^Cannot use key: it does not belong to the certificate$/],
  ["an authority that is none", { clientCa: "nonsense" }, /^Cannot use clientCa: there is no PEM certificate in it$/],
  ["a damaged authority", { clientCa: DAMAGED }, /^Cannot use clientCa: a certificate in it is damaged$/],
];

for (const [what, credentials, message] of PROBLEMS) {
  test(`listenTls() refuses ${what}, and so does a reload`, async () => {
    const error = await assertRejects(
      () => listenTls({ hostname: "127.0.0.1", port: 0, ...IDENTITY, ...credentials }),
      TlsCredentialsError,
      undefined,
    );
    assertMatch(error.message, message);
    assertEquals(Object.keys(credentials), [error.option]);
    assertEquals(error.message, `Cannot use ${error.option}: ${error.problem}`);
    await using t = await startTls();
    const again = await assertRejects(() => t.reload(credentials), TlsCredentialsError);
    assertEquals(again.message, error.message);
    assertEquals(await t.talkTls("hello"), "HELLO\n");
  });
}

testOnce(
  "the subject of a certificate is one line, and its dates are a problem before the first and after the last",
  () => {
    const subject = "C=GB\nO=Example\nCN=example.org";
    const info = (from: number, to: number) => {
      const date = (days: number) => `${new Date(Date.now() + days * 86_400_000)}`;
      return infoOf({ subject, validFrom: date(from), validTo: date(to) } as X509Certificate);
    };
    assertEquals(info(-1, 1).subject, "C=GB, O=Example, CN=example.org");
    assertEquals(datesProblem(info(-1, 1)), undefined);
    assertMatch(datesProblem(info(1, 2))!, /^is not valid before 20\d\d-.*Z$/);
    assertMatch(datesProblem(info(-2, -1))!, /^expired on 20\d\d-.*Z$/);
  },
);

test("listenTls() refuses a key of a kind that TLS has no use for", async () => {
  const odd = makeIdentity("odd", { curve: "secp256k1" });
  await assertRejects(
    () => listenTls({ port: 0, ...odd }),
    TlsCredentialsError,
    "Cannot use key: it is of a kind that is not supported",
  );
});

/** Texts with both the certificate and the key. */
const TOGETHER: [what: string, text: string, subject?: string][] = [
  ["the key behind it", cert + key],
  ["the key before it", key + cert],
  ["text between", `Bag Attributes\n  friendlyName: server-1\n${key}\nsubject=CN = server\n\n${cert}--- the end\n`],
  ["CRLF at the ends of lines", (cert + key).replaceAll("\n", "\r\n")],
  ["the curve's parameters before the key", EC_PARAMETERS + rewritten(key, "sec1") + cert],
  ["its chain", cert + AUTHORITY.cert + key],
  ["its chain in the wrong order", AUTHORITY.cert + key + cert],
  ["another certificate with its key behind it", cert + key + OTHER.cert + OTHER.key],
  ["other keys before its own", OTHER.key + key + cert],
  ["another certificate with its key before it, which is the first", OTHER.cert + OTHER.key + cert + key, "CN=other"],
];

for (const [what, text, subject = "CN=server"] of TOGETHER) {
  test(`listenTls() takes a certificate and its key from one text: ${what}`, async () => {
    await using t = await startTls({ cert: text, key: undefined });
    assertEquals(t.listener.certificate.subject, subject);
    assertEquals(await t.talkTls("hello"), "HELLO\n");
    await t.listener.reload({ cert: text });
    assertEquals(await t.talkTls("hello"), "HELLO\n");
  });
}

const NOT_TOGETHER: [what: string, text: string, problem: string][] = [
  ["no key", cert, "there is no PEM private key in it, and no separate key is given"],
  ["another's key", cert + OTHER.key, "its key belongs to no certificate in it"],
  ["a damaged key", cert + key.replace(/\n.{64}/, "\nAAAA"), "its key is damaged, or of a kind that is not supported"],
];

for (const [what, text, problem] of NOT_TOGETHER) {
  test(`listenTls() names what is wrong with a certificate and a key in one text: ${what}`, async () => {
    const error = await assertRejects(() => listenTls({ port: 0, cert: text }), TlsCredentialsError);
    assertEquals([error.option, error.problem], ["cert", problem]);
  });
}

test("A chain in the wrong order is sent in the right one, without certificates that are not part of it", async () => {
  await using t = await startTls({
    cert: OTHER_AUTHORITY.cert + AUTHORITY.cert + key + OTHER.cert + cert,
    key: undefined,
  });
  const client = tls.connect({ port: t.port, ca: AUTHORITY.cert, servername: "localhost" });
  await once(client, "secureConnect");
  const own = client.getPeerCertificate(true);
  assertEquals([own.subject.CN, own.issuerCertificate.subject.CN], ["server", AUTHORITY.name]);
  client.destroy();
});

testOnce(
  "authorities behind the certificate are sent as they come, and of other certificates those that issued it",
  () => {
    const middle = new Authority("middle", AUTHORITY);
    const own = makeIdentity("own", { by: middle });
    const sent = (...certificates: string[]) => {
      const names = checkPair(certificates.join(""), own.key).chain.match(/-----BEGIN[^]+?-----END CERTIFICATE-----/g)!;
      return names.map((pem) => new X509Certificate(pem).subject);
    };
    const [leaf, issuer, root, other] = ["CN=own", "CN=middle", `CN=${AUTHORITY.name}`, `CN=${OTHER_AUTHORITY.name}`];
    assertEquals(sent(own.cert, OTHER_AUTHORITY.cert, middle.cert), [leaf, other, issuer]);
    assertEquals(sent(own.cert, OTHER.cert, AUTHORITY.cert, middle.cert), [leaf, issuer, root]);
    assertEquals(sent(middle.cert, own.cert), [leaf, issuer]);
  },
);

test("listenTls() refuses wrong options, and names the option, the value and what is allowed", async () => {
  const refused = (options: Record<string, unknown>, message: string) =>
    assertRejects(() => listenTls({ port: 0, ...IDENTITY, ...options } as never), Error, message);
  await refused({ handshakeTimeout: 0 }, "Cannot use handshakeTimeout 0: expected more than 0");
  await refused({ maxHandshakes: 1.5 }, "Cannot use maxHandshakes 1.5: expected a whole number of at least 1");
  await refused({ cert: new Uint8Array(3) }, "Cannot use cert: expected text in PEM, got a Uint8Array");
  await refused({ cert: Promise.resolve(IDENTITY.cert) }, "Cannot use cert: expected text in PEM, got a promise");
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { hostname, port } = taken.addr;
  await refused({ hostname, port }, `Cannot listen on 127.0.0.1:${port}: `);
  await refused({ key: null }, "Cannot use key: expected text in PEM, got null");
  await refused({ hostname: "" }, 'Cannot use hostname "": expected an address or a host name');
  await refused({ port: 65_536 }, "Cannot use port 65536: expected a whole number from 0 to 65535");
  await refused({ listener: { accept() {} } }, "Cannot use listener: expected a listener, got an object");
  await refused({ clock: { now() {} } }, "Cannot use clock: expected a clock, got an object");
  await using t = await startTls();
  const message = "Cannot use reload credentials: expected an object, got null";
  await assertRejects(() => t.listener.reload(null as never), TypeError, message);
});

test("listenTls() takes an expired certificate, and tells when it expired; a reload refuses it", async () => {
  const expired = makeIdentity("expired", { by: AUTHORITY, days: [-10, -1] });
  const future = makeIdentity("future", { by: AUTHORITY, days: [1, 10] });
  await using old = await startTls(expired);
  assertEquals(old.listener.certificate.subject, "CN=expired");
  assertEquals(old.listener.certificate.validTo < new Date(), true);
  await using t = await startTls();
  await assertRejects(() => t.reload(expired), TlsCredentialsError, "Cannot use cert: it expired on 20");
  await assertRejects(() => t.reload(future), TlsCredentialsError, "Cannot use cert: it is not valid before 20");
  assertEquals(t.listener.certificate.subject, "CN=server");
  assertEquals(await t.talkTls("hello"), "HELLO\n");
});

test("TLS stands on any listener, which it closes", async () => {
  const memory = new MemoryListener();
  const listener = await listenTls({ listener: memory, ...IDENTITY });
  assertEquals(listener.addr, memory.addr);
  const accepting = assertRejects(() => listener.accept(), Deno.errors.BadResource);
  await listener.close();
  await accepting;
  await assertRejects(() => memory.accept(), Deno.errors.BadResource);
});
