import { Buffer } from "node:buffer";
import { connect as connectTls } from "node:tls";
import { assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import type { ClosedEvent } from "@x/shouty";
import { FakeClock, MemoryListener, type TestClient } from "@x/shouty/testing";
import { tlsCredentials } from "@x/shouty/ops";
import { test, testOnce } from "../kit/bounded.ts";
import { fakeCredentials, HELLO, readHidden, sendHidden, SERVER_HELLO } from "../kit/fakes/fake_tls.ts";
import { ACCEPTED, ENVELOPE, GREETING, MailServer } from "../kit/foreign/mail.ts";
import { bytesOf } from "../kit/bytes.ts";
import { anyCuts, check, cut, fc } from "../kit/property.ts";
import { inMemory } from "../kit/server.ts";
import { AUTHORITY, IDENTITY, streamOf } from "../kit/tls.ts";

const MAX_BYTES = 10 * 1024 * 1024;
const TEXT_BYTES = 64 * 1024;
const LOST = "421 4.4.2 mail.shouty closes the connection: ";
const OK = "250 2.0.0 Ok";
const LATER = "503 5.5.1 Bad sequence of commands";
const [NO_SENDER, NO_RECIPIENT] = ["501 5.1.7 No <address>", "501 5.1.3 No <address>"];
const WRONG = "501 5.5.4 Wrong arguments";
const UNKNOWN = "500 5.5.1 Unknown command";
const CONTROL = "500 5.5.2 Control characters, or not UTF-8";
const ERRORS = "421 4.7.0 Too many errors";
const GOODBYE = "221 2.0.0 Bye";

/** Commands that are sent in order, each with its reply. */
const TALKS: Record<string, [command: string, reply: string][]> = {
  "greets clients of SMTP and of ESMTP": [
    ["NOOP", OK],
    ["MAIL FROM:<a@b>", "503 5.5.1 EHLO first"],
    ["AUTH PLAIN", "503 5.5.1 EHLO first"],
    ["HELO", "501 Wrong arguments"],
    ["EHLO two words", "501 Wrong arguments"],
    ["helo me ", "250 mail.shouty"],
    [
      "Ehlo [127.0.0.1]",
      "250-mail.shouty\r\n250-PIPELINING\r\n250-SIZE 10485760\r\n250-AUTH PLAIN LOGIN\r\n" +
      "250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250 SMTPUTF8",
    ],
    ["HELP", "214 2.0.0 See RFC 5321"],
    ["NOOP whatever", OK],
    ["VRFY ada", "252 2.5.0 Send a mail, and see"],
    ["VRFY", WRONG],
    ["QUIT now", WRONG],
    ["quit", GOODBYE],
  ],
  "knows in which order commands come": [
    ["EHLO me", ""],
    ["RCPT TO:<a@b>", LATER],
    ["DATA", "503 5.5.1 MAIL first"],
    ["MAIL FROM:<a@b>", "250 2.1.0 Ok"],
    ["MAIL FROM:<a@b>", LATER],
    ["DATA", "554 5.5.1 No valid recipients"],
    ["AUTH PLAIN AHVzZXIAcGFzcw==", "503 5.5.1 Not now"],
    ["RSET", OK],
    ["RCPT TO:<a@b>", LATER],
    ["MAIL FROM:<a@b>", "250 2.1.0 Ok"],
    ["EHLO me", ""],
    ["RCPT TO:<a@b>", LATER],
  ],
  "refuses what it does not know": [
    ["", UNKNOWN],
    [" NOOP", UNKNOWN],
    ["EXPN all", UNKNOWN],
    ["STARTTLS", "502 5.5.1 Not implemented"],
    ["STARTTLS now", WRONG],
  ],
  "refuses lines with characters that could end them elsewhere": [
    ["NO\xa0OP", CONTROL],
    ["NOOP\0", CONTROL],
    ["NOOP\nQUIT", CONTROL],
    ["NOOP\n", CONTROL],
    ["NOOP\r", CONTROL],
    ["NOOP\xe2\x80\xa8", CONTROL],
    ["NOOP\rQUIT", CONTROL],
  ],
  "knows what an address is": [
    ["EHLO me", ""],
    ["MAIL FROM", WRONG],
    ["MAIL TO:<a@b>", WRONG],
    ["MAIL FROM:a@b", NO_SENDER],
    ["MAIL FROM:<a@b", NO_SENDER],
    ["MAIL FROM:<a b@c>", NO_SENDER],
    ["MAIL FROM:<a@b@c>", NO_SENDER],
    ["MAIL FROM:<a@b>x", NO_SENDER],
    ["MAIL FROM:x <a@b>", NO_SENDER],
    ["MAIL FROM:<@a,@b:>", NO_SENDER],
    ["MAIL FROM: <>", "250 2.1.0 Ok"],
    ["RCPT TO:<>", NO_RECIPIENT],
  ],
  "refuses more than ten times": [
    ["RCPT TO:<a@b>", LATER],
    ["RCPT TO:<@a:>", NO_RECIPIENT],
    ["RCPT FROM:<a@b>", WRONG],
    ...Array.from({ length: 7 }, () => ["x", UNKNOWN] as [string, string]),
    ["NOOP", OK],
    ["x", ERRORS],
  ],
  "knows the parameters of a mail": [
    ["EHLO me", ""],
    ["MAIL FROM:<a@b> SIZE=10485761", "552 5.3.4 Mail larger than 10485760 bytes"],
    ["MAIL FROM:<a@b> BODY=8BITMIME SIZE=10485761", "552 5.3.4 Mail larger than 10485760 bytes"],
    ["MAIL FROM:<a@b> SIZE=99999999999999999999", "552 5.3.4 Mail larger than 10485760 bytes"],
    ["MAIL FROM:<a@b> AUTH=SMTPUTF8+SIZE=99999999", "250 2.1.0 Ok"],
    ["RCPT TO:<\xc3\xa9@b>", "553 5.6.7 The address needs SMTPUTF8"],
    ["RSET", OK],
    ["MAIL FROM:<a@b> SIZE=x", "555 5.5.4 Unknown parameter"],
    ["MAIL FROM:<a@b> BODY=BINARYMIME", "555 5.5.4 Unknown parameter"],
    ["MAIL FROM:<a@b> RET=HDRS", "555 5.5.4 Unknown parameter"],
    ["MAIL FROM:<\xc3\xa9@b>", "553 5.6.7 The address needs SMTPUTF8"],
    ["MAIL FROM:<a@b> SIZE=10485760 BODY=8BITMIME AUTH=<>", "250 2.1.0 Ok"],
    ["RCPT TO:<a@b> NOTIFY=NEVER", "555 5.5.4 Unknown parameter"],
    ["RCPT TO:<\xc3\xa9@b>", "553 5.6.7 The address needs SMTPUTF8"],
  ],
  "lets the user log in with PLAIN": [
    ["EHLO me", ""],
    ["AUTH", WRONG],
    ["AUTH CRAM-MD5", "504 5.5.4 Unknown mechanism"],
    ["AUTH PLAIN AHVzZXIAcGFzcw== x", WRONG],
    ["AUTH PLAIN =", "535 5.7.8 Wrong user or password"],
    ["AUTH PLAIN AHVzZXIAcGFzcw", "501 5.5.2 Not base64, or too long"],
    ["AUTH PLAIN AHVzZXIAcGFzc\xc3\xa9==", "501 5.5.2 Not base64, or too long"],
    ["AUTH PLAIN AHVzZXIAYmFk", "535 5.7.8 Wrong user or password"],
    ["auth plain\r\nAHVzZXIAcGFzcw==", "334 \r\n235 2.7.0 Welcome"],
    ["AUTH PLAIN AHVzZXIAcGFzcw==", "503 5.5.1 Not now"],
  ],
  "lets the user log in with PLAIN at once": [
    ["EHLO me", ""],
    [`AUTH PLAIN ${btoa("eve\0user\0pass")}`, "535 5.7.8 Wrong user or password"],
    [`AUTH PLAIN ${btoa("user\0user\0pass")}`, "235 2.7.0 Welcome"],
  ],
  "lets the user log in with LOGIN": [
    ["EHLO me", ""],
    ["AUTH LOGIN\r\n*", "334 VXNlcm5hbWU6\r\n501 5.7.0 Cancelled"],
    ["AUTH LOGIN dXNlcg==\r\nYmFk", "334 UGFzc3dvcmQ6\r\n535 5.7.8 Wrong user or password"],
    [`AUTH LOGIN dXNlcg==\r\n${"A".repeat(2000)}`, "334 UGFzc3dvcmQ6\r\n501 5.5.2 Not base64, or too long"],
    ["AUTH LOGIN\r\ndXNlcg==\r\ncGFzcw==", "334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n235 2.7.0 Welcome"],
  ],
};

for (const [what, talk] of Object.entries(TALKS)) {
  test(`smtp ${what}`, async () => {
    await using t = new MailServer();
    // The reply to EHLO is tested once.
    const expected = talk.map(([, reply]) => `${reply || EHLO}\r\n`).join("");
    assertEquals(await t.send(talk.map(([command]) => `${command}\r\n`).join("")), expected);
  });
}

const EHLO = TALKS["greets clients of SMTP and of ESMTP"].find(([command]) => command.startsWith("Ehlo"))![1];

test("smtp takes mails, each with its addresses and without the dots that were added to it", async () => {
  await using t = new MailServer();
  const input = `${ENVELOPE}Subject: Dots\r\n\r\n..\r\n..one\r\n...two\r\nthe.end.\r\n.\r\n` +
    `MAIL FROM:<>\r\nRCPT TO:<@a,@b:"x y"@[127.0.0.1]>\r\nRCPT TO:<Postmaster>\r\nDATA\r\n.\r\n`;
  const replies = `${ACCEPTED}250 2.0.0 Ok: queued as 1.1\r\n` +
    "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.1.5 Ok\r\n354 End with <CRLF>.<CRLF>\r\n250 2.0.0 Ok: queued as 1.2\r\n";
  assertEquals(await t.send(input), replies);
  assertEquals(t.mails, [
    {
      from: "ada@example.org",
      to: ["bob@example.org"],
      text: "Subject: Dots\r\n\r\n.\r\n.one\r\n..two\r\nthe.end.\r\n",
      utf8: false,
    },
    { from: "", to: [`"x y"@[127.0.0.1]`, "Postmaster"], text: "", utf8: false },
  ]);
});

test("smtp takes the bytes of a mail as they are, and addresses in UTF-8 if the client says so", async () => {
  await using t = new MailServer();
  const bytes = Array.from({ length: 256 }, (_, i) => String.fromCharCode(i)).join("").replaceAll(/[\r\n]/g, "");
  const [ada, bob] = ["\xc3\xa4@\xe4\xbe\x8b.example", "\xe2\x98\x83@example.org"];
  const envelope = `EHLO me\r\nMAIL FROM:<${ada}> SMTPUTF8 BODY=8BITMIME\r\nRCPT TO:<${bob}>\r\nDATA\r\n`;
  assertMatch(await t.send(`${envelope}${bytes}\r\n.\r\n`), / queued as 1\.1\r\n$/);
  assertEquals(t.mails, [{ from: "ä@例.example", to: ["☃@example.org"], text: `${bytes}\r\n`, utf8: true }]);
});

test("smtp sees no second mail behind a dot that is not between two CRLFs, and refuses such a mail", async () => {
  const smuggled = "MAIL FROM:<eve@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nTrust me.\r\n.\r\n";
  const ends = [
    "\n.\n",
    "\n.\r\n",
    "\r\n.\n",
    "\r.\r",
    "\r.\r\n",
    "\r\n.\r",
    "\n.\r",
    "\r.\n",
    "\r\r\n.\r\r\n",
    "\n\r.\r\n",
  ];
  for (const end of ends) {
    await using t = new MailServer();
    const replies = await t.send(`${ENVELOPE}Hello${end}${smuggled}QUIT\r\n`);
    assertEquals(replies, `${ACCEPTED}550 5.5.2 CR or LF alone\r\n${GOODBYE}\r\n`, JSON.stringify(end));
    assertEquals(t.mails, []);
  }
  for (const end of ["\r\n\0.\r\n", "\r\n.\0\r\n", "\r\n. \r\n", "\r\n \r\n", "\x85.\x85", "\v.\v"]) {
    await using t = new MailServer();
    assertEquals(await t.send(`${ENVELOPE}Hello${end}${smuggled}`), `${ACCEPTED}250 2.0.0 Ok: queued as 1.1\r\n`);
    assertEquals(t.texts, [`Hello${end}${smuggled.slice(0, -3)}`.replaceAll("\r\n.", "\r\n")]);
  }
});

testOnce(
  "smtp finds the end of a mail wherever its bytes are cut, and takes it only if every line ends with CRLF",
  async () => {
    const anyText = fc.array(fc.constantFrom("\r\n", "\r\n", "\r", "\n", ".", ".", "x", ".\r\n"), { maxLength: 12 });
    await check([anyText, anyCuts], async (parts, cuts) => {
      const [listener, clock] = [new MemoryListener(), new FakeClock()];
      await using t = new MailServer({ listener, clock });
      const data = `${parts.join("")}\r\n.\r\n`;
      const text = data.slice(0, `\r\n${data}`.indexOf("\r\n.\r\n"));
      const isRight = !/\r(?!\n)|(?<!\r)\n/.test(text);
      const client = await t.connect();
      const input = bytesOf(ENVELOPE + data.slice(0, text.length + 3));
      for (const segment of cut(input, cuts)) await client.write(segment);
      await client.closeWrite();
      const reply = isRight ? "250 2.0.0 Ok: queued as 1.1" : "550 5.5.2 CR or LF alone";
      assertEquals(await client.readAll(), `${GREETING}${ACCEPTED}${reply}\r\n`);
      assertEquals(t.texts, isRight ? [`\r\n${text}`.replaceAll("\r\n.", "\r\n").slice(2)] : []);
    }, 300);
  },
);

test("smtp takes no mail that a web page has made a browser send in the body of a request", async () => {
  await using t = new MailServer();
  const replies = await t.send(`POST / HTTP/1.1\r\nHost: localhost\r\n\r\n${ENVELOPE}Trust me.\r\n.\r\n`);
  assertMatch(replies, /^HTTP\/1\.1 400 Bad Request\r\n/);
  assertEquals([t.mails, (await t.closed()).reason], [[], "misdirected"]);
});

test("smtp takes no mail whose end has not come", async () => {
  for (const cutOff of ["", "Hello", "Hello\r\n", "Hello\r\n.", "Hello\r\n.\r", "."]) {
    await using t = new MailServer();
    assertEquals(await t.send(ENVELOPE + cutOff), ACCEPTED, JSON.stringify(cutOff));
    assertEquals([t.mails, (await t.closed()).reason], [[], "end"]);
  }
});

test("smtp runs no command that the end of input has cut off", async () => {
  await using t = new MailServer();
  assertEquals(await t.send("NOOP\r\nQUIT"), `${OK}\r\n`);
  assertEquals(await t.send("EHLO me\r\nAUTH PLAIN\r\nAHVzZXIAcGFzcw=="), `${EHLO}\r\n334 \r\n501 5.7.0 Cancelled\r\n`);
});

test("smtp takes a mail of the largest size, and reads a larger one to its end before it refuses it", async () => {
  await using t = new MailServer();
  const largest = `${"x".repeat(1022)}\r\n`.repeat(MAX_BYTES / 1024);
  const queued = (number: number) => `${ACCEPTED}250 2.0.0 Ok: queued as 1.${number}\r\n`;
  const refused = `${ACCEPTED}552 5.3.4 Mail larger than ${MAX_BYTES} bytes\r\n`;
  // A dot that the client has added does not count.
  const texts = [largest, `.${largest}`, `x${largest}`, "Hello\r\n"];
  const replies = await t.talk(texts.map((text) => `${ENVELOPE}${text}.\r\n`).join(""));
  assertEquals(replies, GREETING + queued(1) + queued(2) + refused + queued(3));
  assertEquals(t.texts.map(({ length }) => length), [MAX_BYTES, MAX_BYTES, 7]);
});

test("smtp refuses a line that is too long, and goes on behind it", async () => {
  await using t = new MailServer();
  const [noop, tooLong] = [`NOOP ${"x".repeat(995)}\r\n`, "500 5.5.2 Line too long\r\n"];
  const longest = "x".repeat(TEXT_BYTES);
  const mails = [longest, `${longest}.`, `${longest}x\r\n.${longest}x.`, "Hello"].map((text) => `${text}\r\n.\r\n`);
  const input = `${noop}x${noop}${mails.map((text) => ENVELOPE + text).join("")}x${noop}${noop}`;
  const refused = `${ACCEPTED}554 5.6.0 Line too long\r\n`;
  const [first, second] = [1, 2].map((number) => `${ACCEPTED}250 2.0.0 Ok: queued as 1.${number}\r\n`);
  assertEquals(await t.send(input), `${OK}\r\n${tooLong}${first}${refused}${refused}${second}${tooLong}${OK}\r\n`);
  assertEquals(t.texts, [`${longest}\r\n`, "Hello\r\n"]);
});

test("smtp takes 100 recipients of a mail", async () => {
  await using t = new MailServer();
  const recipients = Array.from({ length: 102 }, (_, i) => `${i}@example.org`);
  const commands = recipients.map((recipient) => `RCPT TO:<${recipient}>\r\n`).join("");
  const replies = await t.send(`HELO me\r\nMAIL FROM:<>\r\n${commands}DATA\r\n.\r\n`);
  assertEquals(replies.match(/452 4\.5\.3 Too many recipients\r\n/g)?.length, 2);
  assertEquals(t.mails.map(({ to }) => to), [recipients.slice(0, 100)]);
});

test("smtp counts errors from one mail to the next", async () => {
  await using t = new MailServer();
  const errors = "x\r\n".repeat(10);
  assertMatch(await t.send(`${errors}${ENVELOPE}.\r\n${errors}NOOP\r\n`), /250 2\.0\.0 Ok\r\n$/);
  assertEquals(await t.send(`${errors}x\r\n${ENVELOPE}.\r\n`), `${UNKNOWN}\r\n`.repeat(10) + `${ERRORS}\r\n`);
  const { reason, detail } = await t.closed(2);
  assertEquals([reason, detail], ["closed", "errors"]);
});

testOnce("smtp gives a client five minutes from one mail to the next, and ten for the text of a mail", async () => {
  const memory = inMemory();
  await using t = new MailServer(memory);
  const [busy, slow] = [await hello(t), await hello(t)];
  await ask(busy, `${ENVELOPE}.\r\n`, `${ACCEPTED}250 2.0.0 Ok: queued as 1.1\r\n`);
  for (let minute = 0; minute < 5; minute++) {
    for (const client of [busy, slow]) await ask(client, "NOOP\r\n", `${OK}\r\n`);
    if (minute === 4) await ask(slow, ENVELOPE, ACCEPTED);
    await memory.clock.advance(60_000);
  }
  assertEquals(await busy.readAll(), `${LOST}deadline\r\n`);
  assertEquals((await close(t, busy)).detail, "session");
  for (let minute = 5; minute < 14; minute++) {
    await slow.write("Hello\r\n");
    await memory.clock.advance(60_000);
  }
  assertEquals([await slow.readAll(), t.mails.length], [`${LOST}deadline\r\n`, 1]);
  assertEquals((await close(t, slow)).detail, "mail");
});

testOnce("smtp does not wait longer than five minutes for a silent client", async () => {
  const memory = inMemory();
  await using t = new MailServer(memory);
  const [mute, silent] = [await hello(t), await hello(t)];
  await ask(silent, `${ENVELOPE}.\r\n`, `${ACCEPTED}250 2.0.0 Ok: queued as 2.1\r\n`);
  await memory.clock.advance(60_000);
  assertEquals(await mute.readAll(), `${LOST}first-line-timeout\r\n`);
  await memory.clock.advance(240_000);
  assertMatch(await silent.readAll(), /^421 4\.4\.2 mail\.shouty closes the connection: (idle|deadline)\r\n$/);
});

testOnce("smtp gives a client one minute for a line", async () => {
  const memory = inMemory();
  await using t = new MailServer(memory);
  const client = await hello(t);
  for (let seconds = 0; seconds < 60; seconds++) {
    await client.write("x");
    await memory.clock.advance(1000);
  }
  assertEquals(await client.readAll(), `${LOST}line-timeout\r\n`);
});

testOnce("smtp tells its clients that it shuts down, once it has answered what they have sent", async () => {
  await using t = new MailServer(inMemory());
  const [idle, sender] = [await hello(t), await hello(t)];
  await sender.write(`${ENVELOPE}Hello\r\n.\r\nMAIL FROM:<a@b>\r\n`);
  const stopping = t.server.shutdown();
  const shutsDown = "421 4.3.2 mail.shouty closes the connection: drained\r\n";
  assertEquals(await idle.readAll(), shutsDown);
  assertEquals(await sender.readAll(), `${ACCEPTED}250 2.0.0 Ok: queued as 2.1\r\n250 2.1.0 Ok\r\n${shutsDown}`);
  for (const client of [idle, sender]) client[Symbol.dispose]();
  assertEquals([t.texts, (await stopping).closed], [["Hello\r\n"], { drained: 2 }]);
});

testOnce("smtp takes no mail that a shutdown has cut off", async () => {
  await using t = new MailServer(inMemory());
  const client = await hello(t);
  await ask(client, `${ENVELOPE}Hello\r\n`, ACCEPTED);
  const stopping = t.server.shutdown();
  assertMatch(await client.readAll(), /^421 4\.3\.2 /);
  client[Symbol.dispose]();
  assertEquals([t.mails, (await stopping).closed], [[], { drained: 1 }]);
});

test("smtp tells clients that it does not serve why", async () => {
  await using t = new MailServer({ maxConnections: 1 });
  await hello(t);
  const refused = await t.connect();
  assertEquals(await refused.readAll(), `${LOST}max-connections\r\n`);
  await using strict = new MailServer({ deny: ["0.0.0.0/0"] });
  const denied = await strict.connect();
  assertEquals(await denied.readAll(), "554 5.7.1 mail.shouty closes the connection: denied\r\n");
});

/** Connects a client, and reads the greeting. */
async function hello(t: MailServer): Promise<TestClient> {
  const client = await t.connect();
  assertEquals(`${await client.readLine()}\n`, GREETING);
  return client;
}

/** Sends something, and reads what must come back. */
async function ask(client: TestClient, input: string, expected: string): Promise<void> {
  await client.write(input);
  assertEquals(new TextDecoder().decode(await client.readBytes(expected.length)), expected);
}

/** Closes a client, and returns how the server's end was closed. */
async function close(t: MailServer, client: TestClient): Promise<ClosedEvent> {
  client[Symbol.dispose]();
  return await t.closed(t.all("closed").length + 1);
}

testOnce("smtp offers STARTTLS, and lets the user log in only under TLS", async () => {
  await using t = new MailServer(inMemory(), fakeCredentials());
  const client = await hello(t);
  const secure = EHLO.replace("AUTH PLAIN LOGIN", "STARTTLS");
  await ask(client, "EHLO me\r\nAUTH PLAIN AHVzZXIAcGFzcw==\r\n", `${secure}\r\n538 5.7.11 Encryption required\r\n`);
  await ask(client, "STARTTLS\r\n", "220 2.0.0 Go ahead\r\n");
  await shakeHands(client);
  await askHidden(client, "EHLO me\r\nSTARTTLS\r\n", `${EHLO}\r\n503 5.5.1 TLS is active\r\n`);
  await askHidden(client, "AUTH PLAIN AHVzZXIAcGFzcw==\r\n", "235 2.7.0 Welcome\r\n");
  await askHidden(
    client,
    `${ENVELOPE}Hello\r\n.\r\nQUIT\r\n`,
    `${ACCEPTED}250 2.0.0 Ok: queued as 1.1\r\n${GOODBYE}\r\n`,
  );
  assertEquals(t.texts, ["Hello\r\n"]);
});

testOnce("smtp forgets at STARTTLS what was said in plain text", async () => {
  await using t = new MailServer(inMemory(), fakeCredentials());
  const client = await hello(t);
  const replies = "250 mail.shouty\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n220 2.0.0 Go ahead\r\n";
  await ask(client, "HELO me\r\nMAIL FROM:<eve@example.org>\r\nRCPT TO:<bob@example.org>\r\nSTARTTLS\r\n", replies);
  await shakeHands(client);
  await askHidden(client, "DATA\r\n", "503 5.5.1 MAIL first\r\n");
  await askHidden(client, "MAIL FROM:<ada@example.org>\r\n", "503 5.5.1 EHLO first\r\n");
});

for (const injected of ["RSET\r\n", "EHLO eve\r\nMAIL FROM:<eve@example.org>\r\n", "\r\n", "R"]) {
  testOnce(`smtp does not run ${JSON.stringify(injected)}, which came in plain text behind STARTTLS`, async () => {
    for (const cuts of [[], [11]]) {
      await using t = new MailServer(inMemory(), fakeCredentials());
      const client = await hello(t);
      for (const segment of cut(bytesOf(`STARTTLS\r\n${injected}`), cuts)) await client.write(segment);
      assertEquals(await client.readAll(), "220 2.0.0 Go ahead\r\n");
      assertEquals((await close(t, client)).reason, "starttls-injection");
    }
  });
}

test("smtp runs nothing that comes in plain text between STARTTLS and the handshake", async () => {
  const credentials = await tlsCredentials(IDENTITY);
  for (const injected of [`${ENVELOPE}Trust me.\r\n.\r\nQUIT\r\n`, "\x16\x03\x01\r\nRSET\r\n", "\r\n"]) {
    await using t = new MailServer({}, credentials);
    const client = await hello(t);
    await ask(client, "STARTTLS\r\n", "220 2.0.0 Go ahead\r\n");
    await client.write(injected);
    await client.closeWrite();
    // TLS may have sent an alert, but nothing was answered.
    assertNotMatch(await client.readAll(), /\d{3}[ -]/);
    assertMatch((await t.closed()).reason, /^(starttls-injection|tls-handshake)$/);
    assertEquals([t.mails, t.stats.lines], [[], 1]);
  }
});

test("smtp takes a client's hello that comes together with STARTTLS", async () => {
  await using t = new MailServer({}, await tlsCredentials(IDENTITY));
  const client = await hello(t);
  const socket = streamOf(client);
  const written = socket._write;
  socket._write = (bytes, encoding, done) => {
    socket._write = written;
    socket._write(Buffer.concat([Buffer.from("STARTTLS\r\n"), bytes]), encoding, done);
  };
  const read = socket._read;
  socket._read = (size) => {
    socket._read = read;
    client.readLine().then((line) => (assertEquals(line, "220 2.0.0 Go ahead\r"), socket._read(size)));
  };
  const secure = connectTls({ socket, ca: AUTHORITY.cert, servername: "localhost" });
  secure.end(`${ENVELOPE}Hello\r\n.\r\n`);
  const replies = (await secure.toArray()).join("");
  assertEquals([replies, t.texts], [`${ACCEPTED}250 2.0.0 Ok: queued as 1.1\r\n`, ["Hello\r\n"]]);
});

testOnce("smtp tells a client nothing in plain text once TLS has begun", async () => {
  const memory = inMemory();
  await using t = new MailServer(memory, fakeCredentials());
  const [failing, waiting, silent] = [await hello(t), await hello(t), await hello(t)];
  for (const client of [failing, waiting]) await ask(client, "STARTTLS\r\n", "220 2.0.0 Go ahead\r\n");
  await ask(silent, "STARTTLS\r\n", "220 2.0.0 Go ahead\r\n");
  await shakeHands(silent);
  await failing.write(Uint8Array.of(...HELLO.subarray(0, 5), ...HELLO.subarray(5).map((byte) => byte ^ 1)));
  for (let minute = 0; minute < 4; minute++) {
    await memory.clock.advance(60_000);
    await askHidden(silent, "NOOP\r\n", `${OK}\r\n`);
  }
  await memory.clock.advance(60_000);
  // The first two might take it for a part of the handshake, or show it to their users as the server's word.
  for (const client of [failing, waiting]) assertEquals(await client.readAll(), "");
  const lost = `${LOST}deadline\r\n`;
  assertEquals(await readHidden(silent, lost.length), lost);
  await close(t, silent);
  assertEquals(t.all("closed").map(({ reason }) => reason), ["tls-handshake", "tls-handshake", "deadline"]);
});

/** Performs the client's part of a handshake. */
async function shakeHands(client: TestClient): Promise<void> {
  await client.write(HELLO);
  assertEquals(await client.readBytes(SERVER_HELLO.length), SERVER_HELLO);
}

/** The same as {@linkcode ask}, encrypted. */
async function askHidden(client: TestClient, input: string, expected: string): Promise<void> {
  await sendHidden(client, input);
  assertEquals(await readHidden(client, expected.length), expected);
}
