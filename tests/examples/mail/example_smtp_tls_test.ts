import { Buffer } from "node:buffer";
import { connect as connectTls } from "node:tls";
import { assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import type { TestClient } from "@x/shouty/testing";
import { tlsCredentials } from "@x/shouty/ops";
import { test, testOnce } from "../../kit/bounded.ts";
import { fakeCredentials, HELLO, readHidden, sendHidden, SERVER_HELLO } from "../../kit/fakes/fake_tls.ts";
import { ACCEPTED, ask, close, EHLO, ENVELOPE, hello, MailServer } from "../../kit/foreign/mail.ts";
import { bytesOf } from "../../kit/bytes.ts";
import { cut } from "../../kit/property.ts";
import { inMemory } from "../../kit/server.ts";
import { AUTHORITY, IDENTITY, streamOf } from "../../kit/tls.ts";

const LOST = "421 4.4.2 mail.shouty closes the connection: ";
const OK = "250 2.0.0 Ok";

const GOODBYE = "221 2.0.0 Bye";

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
