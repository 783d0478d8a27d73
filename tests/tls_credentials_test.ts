import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { generateKeyPairSync } from "node:crypto";
import { listenTls, TlsCredentialsError } from "@x/shouty/ops";
import { MemoryListener } from "@x/shouty/testing";
import { test } from "./bounded.ts";
import { makeIdentity } from "./certificates.ts";
import { AUTHORITY, IDENTITY, startTls } from "./tls.ts";

const { cert, key } = IDENTITY;
const DAMAGED = cert.replace(/\n[^-]{64}/, "\nAAAA");

function privateKey(options: { cipher?: string; passphrase?: string; type: "pkcs8" | "sec1" }): string {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return privateKey.export({ format: "pem", ...options }) as string;
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
    /^Cannot use key: it has a passphrase, which nobody is there to type$/,
  ],
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

test("listenTls() refuses a key of a kind that TLS has no use for", async () => {
  const odd = makeIdentity("odd", { curve: "secp256k1" });
  await assertRejects(
    () => listenTls({ port: 0, ...odd }),
    TlsCredentialsError,
    "Cannot use key: it is of a kind that is not supported",
  );
});

test("listenTls() refuses wrong options, and names the option, the value and what is allowed", async () => {
  const refused = (options: Record<string, unknown>, message: string) =>
    assertRejects(() => listenTls({ port: 0, ...IDENTITY, ...options } as never), Error, message);
  await refused({ handshakeTimeout: 0 }, "Cannot use handshakeTimeout 0: expected more than 0");
  await refused({ maxHandshakes: 1.5 }, "Cannot use maxHandshakes 1.5: expected a whole number of at least 1");
  await refused({ cert: new Uint8Array(3) }, "Cannot use cert: expected text in PEM, got object");
  await refused({ key: undefined }, "Cannot use key: expected text in PEM, got undefined");
});

test("listenTls() takes an expired certificate, and tells when it expired; a reload refuses it", async () => {
  const expired = makeIdentity("expired", { by: AUTHORITY, days: [-10, -1] });
  const future = makeIdentity("future", { by: AUTHORITY, days: [1, 10] });
  await using old = await startTls(expired);
  assertEquals(old.listener.certificate.subject, "CN=expired");
  assertEquals(old.listener.certificate.validTo < new Date(), true);
  await using t = await startTls();
  await assertRejects(() => t.reload(expired), TlsCredentialsError, "Cannot use cert: it expired on 20");
  await assertRejects(() => t.reload(future), TlsCredentialsError, "Cannot use cert: it does not hold before 20");
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
