/** The mail sink with a client of another make: nodemailer. */

import { Buffer } from "node:buffer";
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { tlsCredentials } from "@x/shouty/ops";
import { test } from "../../kit/bounded.ts";
import { MailServer } from "../../kit/foreign/mail.ts";
import { load } from "../../kit/foreign/npm.ts";
import { AUTHORITY, IDENTITY } from "../../kit/tls.ts";

/** The part of nodemailer that the tests use. */
interface Transporter {
  sendMail(mail: Record<string, unknown>): Promise<{ accepted: string[]; rejected: string[]; response: string }>;
  verify(): Promise<true>;
  close(): void;
}

type Nodemailer = { createTransport(options: Record<string, unknown>): Transporter };

const { module, missing } = await load<Nodemailer>("npm:nodemailer@10.6.1");

const AUTH = { user: "user", pass: "pass" };
const BYTES = Buffer.from(Uint8Array.from({ length: 1024 * 1024 }, (_, i) => (i * i) >> 3));
const MAIL = {
  from: "Ada <ada@example.org>",
  to: ["bob@example.org", "Eve <eve@example.org>"],
  bcc: "secret@example.org",
  subject: "Größe",
  text: "Hello\n.\n..\n.end\n",
  html: "<p>Hello</p>",
  attachments: [{ filename: "bytes.bin", content: BYTES }],
};

/** Returns the parts of a mail in the form `multipart/…`, decoded, by their types. */
function partsOf(text: string): Map<string, Buffer> {
  const parts = new Map<string, Buffer>();
  for (const part of text.split(/\r\n--.*\r\n/)) {
    const [header, ...body] = part.split("\r\n\r\n");
    const type = /^content-type: ([^;\r]+)/im.exec(header)?.[1] ?? "";
    const encoding = /base64/i.test(header) ? "base64" : "latin1";
    if (type !== "" && !type.startsWith("multipart/")) parts.set(type, Buffer.from(body.join("\r\n\r\n"), encoding));
  }
  return parts;
}

test(
  "smtp takes what nodemailer sends: text, HTML and an attachment of a MiB to several recipients, with STARTTLS",
  async () => {
    await using t = new MailServer({}, await tlsCredentials(IDENTITY));
    const options = { host: "127.0.0.1", port: t.port, requireTLS: true, tls: { ca: AUTHORITY.cert }, auth: AUTH };
    const client = module.createTransport(options);
    assertEquals(await client.verify(), true);
    const { accepted, rejected, response } = await client.sendMail(MAIL);
    assertEquals([accepted.length, rejected, response], [3, [], "250 2.0.0 Ok: queued as 2.1"]);
    client.close();
    const [{ from, to, text }] = t.mails;
    assertEquals([from, to], ["ada@example.org", ["bob@example.org", "eve@example.org", "secret@example.org"]]);
    const parts = partsOf(text);
    assertEquals([...parts.keys()], ["text/plain", "text/html", "application/octet-stream"]);
    assertEquals(parts.get("text/plain")!.toString(), "Hello\r\n.\r\n..\r\n.end\r\n");
    assertEquals(parts.get("text/html")!.toString().trim(), "<p>Hello</p>");
    assertEquals(BYTES.equals(parts.get("application/octet-stream")!), true);
    await t.closed(2);
  },
  60,
  missing,
);

test(
  "smtp takes many mails from nodemailer's pool of connections, and loses none",
  async () => {
    await using t = new MailServer();
    const pool = { pool: true, maxConnections: 3, maxMessages: 5, auth: AUTH };
    const client = module.createTransport({ host: "127.0.0.1", port: t.port, ignoreTLS: true, ...pool });
    const subjects = Array.from({ length: 40 }, (_, i) => `Mail ${i}.`);
    const sent = subjects.map((subject) => client.sendMail({ ...MAIL, attachments: [], subject }));
    const names = (await Promise.all(sent)).map(({ response }) => response);
    assertEquals(new Set(names).size, 40, names.join("\n"));
    client.close();
    const got = t.texts.map((text) => /^Subject: (.*)\r$/m.exec(text)?.[1]);
    assertEquals(got.sort(), subjects.sort());
    await t.closed(8);
  },
  60,
  missing,
);

test(
  "smtp takes addresses in UTF-8 from nodemailer",
  async () => {
    await using t = new MailServer();
    const client = module.createTransport({ host: "127.0.0.1", port: t.port, ignoreTLS: true });
    await client.sendMail({ ...MAIL, attachments: [], to: "ä@example.org", bcc: [] });
    client.close();
    assertEquals(t.mails.map(({ to, utf8 }) => [to, utf8]), [[["ä@example.org"], true]]);
    await t.closed();
  },
  60,
  missing,
);

test(
  "smtp refuses nodemailer with a wrong password, and with a mail that is too large",
  async () => {
    await using t = new MailServer();
    const address = { host: "127.0.0.1", port: t.port, ignoreTLS: true };
    const stranger = module.createTransport({ ...address, auth: { user: "user", pass: "bad" } });
    assertMatch((await assertRejects(() => stranger.verify(), Error)).message, /535 5\.7\.8/);
    const client = module.createTransport(address);
    const attachments = [{ content: Buffer.alloc(10 * 1024 * 1024) }];
    const refused = await assertRejects(() => client.sendMail({ ...MAIL, attachments }), Error);
    assertMatch(refused.message, /552 5\.3\.4/);
    for (const one of [stranger, client]) one.close();
    assertEquals(t.mails, []);
    await t.closed(2);
  },
  60,
  missing,
);
