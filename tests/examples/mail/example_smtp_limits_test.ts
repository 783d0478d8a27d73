import { assertEquals, assertMatch } from "@std/assert";
import { test, testOnce } from "../../kit/bounded.ts";
import { ACCEPTED, ask, close, ENVELOPE, hello, MailServer } from "../../kit/foreign/mail.ts";
import { inMemory } from "../../kit/server.ts";

const TEXT_BYTES = 64 * 1024;
const LOST = "421 4.4.2 mail.shouty closes the connection: ";
const OK = "250 2.0.0 Ok";

const UNKNOWN = "500 5.5.1 Unknown command";

const ERRORS = "421 4.7.0 Too many errors";

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
