import { assertEquals, assertMatch } from "@std/assert";
import { test as bounded } from "./bounded.ts";
import { makeIdentity } from "./certificates.ts";
import { Subprocess } from "./command.ts";
import { AUTHORITY, startTls, type TlsServer } from "./tls.ts";

const MISSING = await isThere("openssl") ? "" : " (skipped: openssl is missing)";

/** Registers a test that asks OpenSSL. */
function test(name: string, body: () => Promise<void>): void {
  bounded(name, body, 20, MISSING);
}

async function isThere(program: string): Promise<boolean> {
  try {
    return (await new Deno.Command(program, { args: ["version"], stdout: "null" }).output()).success;
  } catch {
    return false;
  }
}

/** A folder with files that OpenSSL reads. */
async function withFiles(files: Record<string, string>) {
  const folder = await Deno.makeTempDir();
  for (const [name, text] of Object.entries(files)) await Deno.writeTextFile(`${folder}/${name}`, text);
  return Object.assign((name: string) => `${folder}/${name}`, {
    [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }),
  });
}

function openssl(t: TlsServer, ...args: string[]): Subprocess {
  return new Subprocess("openssl", ["s_client", "-connect", `127.0.0.1:${t.port}`, ...args]);
}

for (const [version, name] of [["-tls1_2", "TLSv1.2"], ["-tls1_3", "TLSv1.3"]]) {
  test(`OpenSSL shakes hands with ${name}, trusts the certificate, and gets its replies`, async () => {
    await using file = await withFiles({ "ca.pem": AUTHORITY.cert });
    await using t = await startTls();
    await using client = openssl(t, version, "-CAfile", file("ca.pem"), "-verify_return_error");
    await client.stdoutMatch(new RegExp(`New, ${name}, Cipher is (?!.NONE)`));
    await client.stdoutMatch(/Verify return code: 0 \(ok\)/);
    await client.type("hello from OpenSSL\n");
    await client.stdoutMatch(/HELLO FROM OPENSSL/);
    await client.endInput();
    assertEquals((await client.outcome()).code, 0);
    // It says that it ends.
    assertEquals((await t.closed()).reason, "end");
  });
}

test("OpenSSL takes a server's end for a proper one, without complaint", async () => {
  await using t = await startTls({}, { idleTimeout: 100 });
  await using client = openssl(t, "-quiet");
  const { code, stderr } = await client.outcome();
  assertEquals(code, 0);
  assertEquals(/unexpected eof|SSL routines/.test(stderr), false, stderr);
});

test("OpenSSL does not trust an expired certificate, and gets the new one after a reload", async () => {
  await using file = await withFiles({ "ca.pem": AUTHORITY.cert });
  await using t = await startTls(makeIdentity("expired", { by: AUTHORITY, days: [-10, -1] }));
  const strict = ["-CAfile", file("ca.pem"), "-verify_return_error"];
  await using before = openssl(t, ...strict);
  const { code, stderr } = await before.outcome();
  assertEquals(code === 0, false);
  assertMatch(stderr, /certificate has expired/);
  assertEquals((await t.until("rejected")).reason, "tls-handshake");
  await t.reload(makeIdentity("fresh", { by: AUTHORITY }));
  await using after = openssl(t, ...strict);
  await after.stdoutMatch(/subject=CN ?= ?fresh\n/);
  await after.stdoutMatch(/Verify return code: 0 \(ok\)/);
});

test("OpenSSL cannot go below TLS 1.2", async () => {
  await using t = await startTls();
  await using client = openssl(t, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0");
  assertEquals((await client.outcome()).code === 0, false);
  assertEquals((await t.until("rejected")).reason, "tls-handshake");
});

for (const version of ["-tls1_2", "-tls1_3"]) {
  test(`OpenSSL needs the right client certificate where one is asked for, with ${version}`, async () => {
    const known = makeIdentity("known", { by: AUTHORITY });
    const stranger = makeIdentity("stranger");
    await using file = await withFiles({
      "known.pem": known.cert,
      "known.key": known.key,
      "stranger.pem": stranger.cert,
      "stranger.key": stranger.key,
    });
    await using t = await startTls({ clientCa: AUTHORITY.cert });
    await using nobody = openssl(t, version, "-quiet");
    assertMatch((await nobody.outcome()).stderr, /alert certificate required/);
    await using wrong = openssl(t, version, "-quiet", "-cert", file("stranger.pem"), "-key", file("stranger.key"));
    assertEquals((await wrong.outcome()).stdout, "");
    assertEquals((await t.until("rejected", 2)).reason, "tls-handshake");
    await using right = openssl(t, version, "-quiet", "-cert", file("known.pem"), "-key", file("known.key"));
    await right.type("hello\n");
    await right.stdoutMatch(/HELLO/);
  });
}
