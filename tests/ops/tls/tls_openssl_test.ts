import { assertEquals, assertMatch } from "@std/assert";
import { makeIdentity } from "../../kit/certificates.ts";
import { openssl, test, withFiles } from "../../kit/foreign/openssl.ts";
import { AUTHORITY, startTls } from "../../kit/tls.ts";

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
    // OpenSSL has sent close_notify.
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

test("OpenSSL is refused a renegotiation at once, not when the connection is closed for being idle", async () => {
  await using t = await startTls({}, { idleTimeout: Infinity });
  await using client = openssl(t, "-tls1_2");
  await client.type("hello\n");
  await client.stdoutMatch(/HELLO/);
  await client.type("R\n");
  assertMatch((await client.outcome()).stderr, /no renegotiation/);
});

test("OpenSSL is refused a renegotiation at once also if text has come just before, which gets no reply", async () => {
  const [got, stop] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const handler = (line: string) => line === "work" ? (got.resolve(), stop.promise) as Promise<undefined> : undefined;
  await using t = await startTls({}, { idleTimeout: Infinity }, handler);
  await using client = openssl(t, "-tls1_2", "-msg");
  await client.type("work\n");
  await got.promise;
  await client.type("log\n");
  // OpenSSL has sent the second line. Before that, it would take what is typed for more of it.
  await client.stdoutMatch(/(>>> [^\n]* RecordHeader [^\n]*\n +17 03[^]*){2}/);
  await client.type("R\n");
  await client.stderrMatch(/RENEGOTIATING/);
  stop.resolve();
  assertMatch((await client.outcome()).stderr, /no renegotiation/);
});

test("A shutdown with finish ends at once when the rest of a record has come that brings no text", async () => {
  await using t = await startTls({}, { drain: "finish", idleTimeout: Infinity, answerMisdirected: true });
  using cable = await t.cable();
  await using client = openssl(cable, "-tls1_3");
  await client.type("hello\n");
  await client.stdoutMatch(/HELLO/);
  const { passed, release } = cable.hold(10);
  // OpenSSL changes its key.
  await client.type("k\n");
  await passed;
  const stopped = t.server.shutdown({ drainTimeout: 10_000 });
  await t.until("waiting");
  release();
  assertEquals((await stopped).closed, { drained: 1 });
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
    await using without = openssl(t, version, "-quiet");
    assertMatch((await without.outcome()).stderr, /alert certificate required/);
    await using wrong = openssl(t, version, "-quiet", "-cert", file("stranger.pem"), "-key", file("stranger.key"));
    assertEquals((await wrong.outcome()).stdout, "");
    assertEquals((await t.until("rejected", 2)).reason, "tls-handshake");
    await using right = openssl(t, version, "-quiet", "-cert", file("known.pem"), "-key", file("known.key"));
    await right.type("hello\n");
    await right.stdoutMatch(/HELLO/);
  });

  test(`A client certificate of X.509 version 1 is told apart from one by an unknown authority, with ${version}`, async () => {
    const old = makeIdentity("old", { by: AUTHORITY, version1: true });
    await using file = await withFiles({ "old.pem": old.cert, "old.key": old.key });
    await using t = await startTls({ clientCa: AUTHORITY.cert });
    await using client = openssl(t, version, "-quiet", "-cert", file("old.pem"), "-key", file("old.key"));
    assertEquals((await client.outcome()).stdout, "");
    const { reason, error } = await t.until("rejected");
    assertEquals(reason, "tls-handshake");
    assertMatch((error as Error).message, /^The client's .* \(it is of X\.509 version 1, and version 3 is required\)$/);
  });
}

for (const version of ["-tls1_2", "-tls1_3"]) {
  test(`OpenSSL gets the certificate and the protocol that it asks for, with ${version}`, async () => {
    const sni = [makeIdentity("irc", { by: AUTHORITY, altNames: ["DNS:*.example.org"] })];
    await using t = await startTls({ sni, alpnProtocols: ["irc", "imap"] });
    for (const [name, subject] of [["irc.example.org", "irc"], ["example.org", "server"]]) {
      await using client = openssl(t, version, "-servername", name, "-alpn", "imap,irc");
      await client.stdoutMatch(new RegExp(`subject=CN ?= ?${subject}\n`));
      await client.stdoutMatch(/ALPN protocol: irc\n/);
      await client.type("hello\n");
      await client.stdoutMatch(/HELLO/);
    }
    await using without = openssl(t, version, "-noservername");
    await without.stdoutMatch(/No ALPN negotiated/);
    await using other = openssl(t, version, "-alpn", "http/1.1");
    assertMatch((await other.outcome()).stderr, /alert no application protocol/);
    assertMatch(((await t.until("rejected")).error as Error).message, /doesn't support any known protocol/);
  });

  test(`OpenSSL is asked for a certificate, and the handler learns which it has shown, with ${version}`, async () => {
    const known = makeIdentity("known", { by: AUTHORITY });
    const stranger = makeIdentity("stranger");
    await using file = await withFiles({ "known": known.cert + known.key, "stranger": stranger.cert + stranger.key });
    await using t = await startTls({ clientAuth: "request", clientCa: AUTHORITY.cert }, {}, {
      async conversation(conn) {
        const { peer } = conn.tls!;
        await conn.write(`you are ${peer === undefined ? "nobody" : `${peer.subject}, ${peer.verified}`}\n`);
        await conn.readLine();
      },
    });
    for (
      const [own, text] of [["known", /you are CN=known, true/], ["stranger", /you are CN=stranger, false/]] as const
    ) {
      await using first = openssl(t, version, "-cert", file(own), "-sess_out", file("session"));
      await first.stdoutMatch(text);
      await first.endInput();
      await first.outcome();
      // A resumed session says the same: the unverified one does not become verified.
      await using again = openssl(t, version, "-sess_in", file("session"));
      await again.stdoutMatch(/Reused, TLSv/);
      await again.stdoutMatch(text);
    }
    await using nobody = openssl(t, version);
    await nobody.stdoutMatch(/you are nobody/);
  });
}
