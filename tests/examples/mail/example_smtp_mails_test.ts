import { assertEquals, assertMatch } from "@std/assert";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { test, testOnce } from "../../kit/bounded.ts";
import { ACCEPTED, ENVELOPE, GREETING, MailServer } from "../../kit/foreign/mail.ts";
import { bytesOf } from "../../kit/bytes.ts";
import { anyCuts, check, cut, fc } from "../../kit/property.ts";

const MAX_BYTES = 10 * 1024 * 1024;

const GOODBYE = "221 2.0.0 Bye";

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
