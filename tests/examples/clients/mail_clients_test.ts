/** The mail sink and the mailbox with programs of other makes: swaks, curl and OpenSSL. */

import { assertEquals, assertMatch } from "@std/assert";
import { tlsCredentials } from "@x/shouty/ops";
import { servePop3 } from "../../../examples/pop3.ts";
import { test } from "../../kit/bounded.ts";
import { type Outcome, Subprocess } from "../../kit/command.ts";
import { missingProgram } from "../../kit/foreign/foreign.ts";
import { MailServer } from "../../kit/foreign/mail.ts";
import type { Identity } from "../../kit/certificates.ts";
import { openssl, withFiles } from "../../kit/foreign/openssl.ts";
import { TestServer } from "../../kit/server.ts";
import { AUTHORITY, IDENTITY } from "../../kit/tls.ts";

const NO_SWAKS = await missingProgram("swaks", "--version") || await missingInSwaks();
const NO_CURL = await missingProgram("curl", "--version");
const NO_OPENSSL = await missingProgram("openssl", "version");
const USER = ["--auth-user", "user", "--auth-password", "pass"];
const MAIL = "Subject: Dots\r\n\r\nHello\r\n.\r\n..\r\n.end\r\n";

/** Swaks needs other packages of Perl for TLS. */
async function missingInSwaks(): Promise<string> {
  const { stdout } = await run("swaks", ["--support"]);
  return /TLS supported/.test(stdout) ? "" : " (skipped: this swaks has no TLS)";
}

async function run(program: string, args: string[], input = ""): Promise<Outcome> {
  await using process = new Subprocess(program, args, { input });
  return await process.outcome();
}

/** Sends a mail with swaks, whose output shows what both sides have said. */
async function swaks(t: MailServer, ...args: string[]): Promise<Outcome> {
  const addresses = ["--from", "ada@example.org", "--to", "bob@example.org,eve@example.org", "--helo", "me"];
  return await run("swaks", ["--server", `localhost:${t.port}`, ...addresses, ...args]);
}

for (const [how, args] of Object.entries({ "one by one": [], "in a row": ["--pipeline"] })) {
  test(
    `smtp serves swaks, with commands that come ${how}`,
    async () => {
      await using t = new MailServer();
      const body = "Hello\n.\n..\n.end";
      const { code, stdout, stderr } = await swaks(t, "--header", "Subject: Dots", "--body", body, ...args);
      assertEquals(code, 0, stdout + stderr);
      const [{ from, to, text }] = t.mails;
      assertEquals([from, to], ["ada@example.org", ["bob@example.org", "eve@example.org"]]);
      assertMatch(text, /\r\nSubject: Dots\r\n(.*\r\n)*\r\nHello\r\n\.\r\n\.\.\r\n\.end\r\n/);
    },
    60,
    NO_SWAKS,
  );
}

for (const mechanism of ["PLAIN", "LOGIN"]) {
  test(
    `smtp serves swaks with STARTTLS and AUTH ${mechanism}`,
    async () => {
      await using t = new MailServer({}, await tlsCredentials(IDENTITY));
      await using file = await withFiles({ "ca.pem": AUTHORITY.cert });
      const verified = ["--tls", "--tls-verify", "--tls-ca-path", file("ca.pem"), "--pipeline"];
      const { code, stdout, stderr } = await swaks(t, ...verified, "--auth", mechanism, ...USER);
      assertEquals([code, t.mails.length], [0, 1], stdout + stderr);
      assertMatch(stdout, /<~ {2}235 2\.7\.0 Welcome/);
    },
    60,
    NO_SWAKS,
  );
}

test(
  "smtp refuses swaks with a wrong password, with no TLS for a password, and with a mail that is too large",
  async () => {
    await using t = new MailServer();
    assertMatch((await swaks(t, "--auth", "PLAIN", ...USER.slice(0, 3), "bad")).stdout, /<\*\* 535 5\.7\.8 /);
    await using secure = new MailServer({}, await tlsCredentials(IDENTITY));
    assertMatch((await swaks(secure, "--auth", "PLAIN", ...USER)).stderr, /did not advertise authentication/);
    await using file = await withFiles({ "large.txt": `${"x".repeat(70)}\n`.repeat(150_000) });
    assertMatch((await swaks(t, "--body", `@${file("large.txt")}`)).stdout, /<\*\* 552 5\.3\.4 /);
    assertEquals([t.mails, secure.mails], [[], []]);
  },
  60,
  NO_SWAKS,
);

/** Sends a mail with curl. */
async function curlSends(t: MailServer, mail: string, ...args: string[]): Promise<Outcome> {
  await using file = await withFiles({ mail, "ca.pem": AUTHORITY.cert });
  const envelope = [
    "--mail-from",
    "ada@example.org",
    "--mail-rcpt",
    "bob@example.org",
    "--mail-rcpt",
    "eve@example.org",
  ];
  const rest = ["--upload-file", file("mail"), "--cacert", file("ca.pem"), ...args];
  return await run("curl", [
    "--silent",
    "--show-error",
    `smtp://user:pass@localhost:${t.port}/me`,
    ...envelope,
    ...rest,
  ]);
}

test(
  "smtp serves curl, with and without STARTTLS",
  async () => {
    await using t = new MailServer();
    assertEquals(await curlSends(t, MAIL), { code: 0, stdout: "", stderr: "" });
    await using secure = new MailServer({}, await tlsCredentials(IDENTITY));
    assertEquals(await curlSends(secure, MAIL, "--ssl-reqd"), { code: 0, stdout: "", stderr: "" });
    for (const { from, to, text } of [...t.mails, ...secure.mails]) {
      assertEquals([from, to, text], ["ada@example.org", ["bob@example.org", "eve@example.org"], MAIL]);
    }
    assertEquals([t.mails.length, secure.mails.length], [1, 1]);
  },
  60,
  NO_CURL,
);

test(
  "smtp tells curl before it sends a mail that this is too large",
  async () => {
    await using t = new MailServer();
    const { code, stderr } = await curlSends(t, `${"x".repeat(70)}\r\n`.repeat(150_000));
    assertEquals([code, t.stats.bytesIn < 1000], [55, true], stderr);
  },
  60,
  NO_CURL,
);

/** Reads mails with curl; the arguments begin with the path of the URL. */
async function curlReads(t: TestServer, path: string, ...args: string[]): Promise<Outcome> {
  await using file = await withFiles({ "ca.pem": AUTHORITY.cert });
  const url = `pop3://user:pass@localhost:${t.port}${path}`;
  return await run("curl", ["--silent", "--show-error", "--cacert", file("ca.pem"), url, ...args]);
}

const READS: [name: string, credentials: Partial<Identity>, args: string[]][] = [
  ["in plain text", {}, []],
  ["with STLS", IDENTITY, ["--ssl-reqd"]],
];

for (const [how, identity, args] of READS) {
  test(
    `pop3 serves curl ${how}`,
    async () => {
      const credentials = identity.cert === undefined
        ? undefined
        : await tlsCredentials({ cert: identity.cert, ...identity });
      await using t = new TestServer((options) => servePop3(options, credentials), {});
      const list = await curlReads(t, "/", ...args);
      assertEquals(list, { code: 0, stdout: "1 129\r\n2 161\r\n", stderr: "" });
      const { stdout } = await curlReads(t, "/2", ...args);
      assertMatch(
        stdout,
        /\r\nSubject: Dots\r\n(.*\r\n)*\r\nOne dot, which does not end the mail:\r\n\.\r\n\.\. and two\r\n$/,
      );
      assertEquals((await curlReads(t, "/1", "--request", "DELE", "--head", ...args)).code, 0);
      assertEquals((await curlReads(t, "/", "--request", "UIDL", ...args)).stdout, "1 mail-2\r\n");
      const url = ["--user", "user:bad"];
      assertEquals((await curlReads(t, "/", ...url, ...args)).code, 67);
    },
    60,
    NO_CURL,
  );
}

test(
  "smtp and pop3 serve OpenSSL, which begins TLS as each of them does",
  async () => {
    const credentials = await tlsCredentials(IDENTITY);
    await using file = await withFiles({ "ca.pem": AUTHORITY.cert });
    const args = ["-quiet", "-CAfile", file("ca.pem"), "-verify_return_error", "-servername", "localhost"];
    await using smtp = new MailServer({}, credentials);
    await using mail = openssl(smtp, "-starttls", "smtp", ...args);
    await mail.type("EHLO me\r\nSTARTTLS\r\nQUIT\r\n");
    const sent = await mail.outcome();
    assertMatch(sent.stdout, /250-AUTH PLAIN LOGIN\r\n(250.*\r\n)+503 5\.5\.1 TLS is active\r\n221 2\.0\.0 Bye\r\n$/);
    await using pop3 = new TestServer((options) => servePop3(options, credentials), {});
    await using box = openssl(pop3, "-starttls", "pop3", ...args);
    await box.type("USER user\r\nPASS pass\r\nSTAT\r\nQUIT\r\n");
    assertMatch((await box.outcome()).stdout, /\+OK 2 mails\r\n\+OK 2 290\r\n\+OK Bye\r\n$/);
    assertEquals([sent.code, (await smtp.closed()).reason, (await pop3.closed()).reason], [0, "closed", "closed"]);
  },
  60,
  NO_OPENSSL,
);
