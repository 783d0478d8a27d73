import { assertEquals, assertMatch } from "@std/assert";
import type { ServeOptions, TlsCredentialsHandle } from "@x/shouty";
import type { TestClient } from "@x/shouty/testing";
import { servePop3 } from "../../../examples/pop3.ts";
import { test, testOnce } from "../../kit/bounded.ts";
import { fakeCredentials, HELLO, readHidden, sendHidden, SERVER_HELLO } from "../../kit/fakes/fake_tls.ts";
import { inMemory, TestServer } from "../../kit/server.ts";

const LOGIN: [command: string, reply: string][] = [["USER user", "+OK"], ["PASS pass", "+OK 2 mails"]];
const HEADER = "From: Bob <bob@example.org>\r\nTo: user@example.org\r\nSubject: Dots\r\n" +
  "Date: Tue, 24 Nov 2026 22:19:25 +0000\r\n\r\n";
const [FIRST_LINE, REST] = ["One dot, which does not end the mail:\r\n", "..\r\n... and two\r\n"];
const FIRST = "From: Ada <ada@example.org>\r\nTo: user@example.org\r\nSubject: Hello\r\n" +
  "Date: Tue, 24 Nov 2026 22:19:24 +0000\r\n\r\nHello. How are you?\r\n";
const CAPABILITIES = "+OK\r\nTOP\r\nUIDL\r\nPIPELINING\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nEXPIRE NEVER\r\n";
const UNKNOWN = "-ERR Unknown command";
const WRONG = "-ERR Wrong arguments";
const FIRST_LOGIN = "-ERR Log in first";
const REFUSED = "-ERR [AUTH] Wrong user or password";
const NONE = "-ERR No such mail";

/** Commands that are sent in order, each with its reply. */
const TALKS: Record<string, [command: string, reply: string][]> = {
  "lets the user log in": [
    ["CAPA", `${CAPABILITIES}USER\r\n.`],
    ["STAT", FIRST_LOGIN],
    ["NOOP", FIRST_LOGIN],
    ["DELE 1", FIRST_LOGIN],
    ["PASS pass", "-ERR USER first"],
    ["user user", "+OK"],
    ["PASS bad", REFUSED],
    ["PASS pass", "-ERR USER first"],
    ["USER eve", "+OK"],
    ["PASS pass", REFUSED],
    ...LOGIN,
    ["USER user", "-ERR Logged in already"],
    ["PASS pass", "-ERR Logged in already"],
    ["CAPA", `${CAPABILITIES}USER\r\n.`],
    // Nothing is answered behind it.
    ["quit\r\nNOOP", "+OK Bye"],
  ],
  "takes a password as it is, with its spaces": [
    ["USER user", "+OK"],
    ["PASS pass ", REFUSED],
    ["USER user", "+OK"],
    ["PASS  pass", REFUSED],
    ...LOGIN,
  ],
  "lists and sends mails, with a dot more where a line begins with one": [
    ...LOGIN,
    ["STAT", "+OK 2 290"],
    ["LIST", "+OK 2 290\r\n1 129\r\n2 161\r\n."],
    ["LIST 2", "+OK 2 161"],
    ["UIDL", "+OK 2 290\r\n1 mail-1\r\n2 mail-2\r\n."],
    ["uidl 1", "+OK 1 mail-1"],
    ["RETR 1", `+OK 129 octets\r\n${FIRST}.`],
    ["RETR 2", `+OK 161 octets\r\n${HEADER}${FIRST_LINE}${REST}.`],
    ["TOP 2 0", `+OK 161 octets\r\n${HEADER}.`],
    ["TOP 2 1", `+OK 161 octets\r\n${HEADER}${FIRST_LINE}.`],
    ["TOP 2 100", `+OK 161 octets\r\n${HEADER}${FIRST_LINE}${REST}.`],
  ],
  "deletes mails, and takes that back": [
    ...LOGIN,
    ["DELE 1", "+OK Deleted"],
    ["DELE 1", NONE],
    ["RETR 1", NONE],
    ["LIST 1", NONE],
    ["TOP 1 0", NONE],
    ["STAT", "+OK 1 161"],
    ["LIST", "+OK 1 161\r\n2 161\r\n."],
    ["RSET", "+OK 2 290"],
    ["RETR 1", `+OK 129 octets\r\n${FIRST}.`],
  ],
  "refuses what it does not know": [
    ["", UNKNOWN],
    [" CAPA", UNKNOWN],
    ["APOP user 0", UNKNOWN],
    ["CAPA now", WRONG],
    ["USER", WRONG],
    ["STLS", "-ERR No STLS here"],
    ["CAPA\nQUIT", UNKNOWN],
    ["USER user\nQUIT", WRONG],
  ],
  "refuses numbers of mails that there are not": [
    ...LOGIN,
    ["STLS", "-ERR Logged in already"],
    ["RETR", WRONG],
    ["RETR 0", NONE],
    ["RETR 3", NONE],
    ["RETR -1", WRONG],
    ["RETR 1.0", WRONG],
    ["RETR 1 2", WRONG],
    ["TOP 1", WRONG],
    ["TOP 1 -1", WRONG],
    [`LIST ${"9".repeat(240)}`, NONE],
  ],
  "closes the connection after ten errors": [
    ...Array.from({ length: 10 }, () => ["x", UNKNOWN] as [string, string]),
    ["CAPA", `${CAPABILITIES}USER\r\n.`],
    ["x", "-ERR Too many errors"],
  ],
  "refuses a line that is too long, and goes on behind it": [
    [`USER ${"x".repeat(248)}`, "+OK"],
    [`USER ${"x".repeat(249)}`, "-ERR line-too-long"],
    [`PASS ${"x".repeat(10_000)}`, "-ERR line-too-long"],
    ["QUIT", "+OK Bye"],
  ],
};

for (const [what, talk] of Object.entries(TALKS)) {
  test(`pop3 ${what}`, async () => {
    await using t = startPop3();
    const replies = await t.talk(talk.map(([command]) => `${command}\r\n`).join(""));
    assertEquals(replies, `${GREETING}${talk.map(([, reply]) => `${reply}\r\n`).join("")}`);
  });
}

const GREETING = "+OK POP3 ready\r\n";

test("pop3 deletes mails at QUIT, and not if the connection ends without it", async () => {
  await using t = startPop3();
  const logIn = "USER user\r\nPASS pass\r\n";
  // The end of input cuts off the second QUIT.
  for (const quit of ["", "QUIT", "RSET\r\nQUIT\r\n"]) {
    assertMatch(await t.talk(`${logIn}STAT\r\nDELE 1\r\n${quit}`), /\+OK 2 mails\r\n\+OK 2 290\r\n\+OK Deleted\r\n/);
  }
  assertMatch(await t.talk(`${logIn}DELE 1\r\nQUIT\r\n`), /\+OK Bye\r\n$/);
  assertMatch(await t.talk(`${logIn}UIDL\r\n`), /\+OK 1 mails\r\n\+OK 1 161\r\n1 mail-2\r\n\.\r\n$/);
});

test("pop3 gives its mails to one client at a time", async () => {
  await using t = startPop3();
  const [ada, bob] = [await hello(t), await hello(t)];
  await ask(ada, "USER user\r\nPASS pass\r\n", "+OK\r\n+OK 2 mails\r\n");
  const inUse = "+OK\r\n-ERR [IN-USE] Another client is reading the mails\r\n";
  // Nor does a client that leaves without them give them away.
  assertEquals(await t.talk("QUIT\r\n"), `${GREETING}+OK Bye\r\n`);
  await ask(bob, "USER user\r\nPASS pass\r\n", inUse);
  await ask(ada, "QUIT\r\n", "+OK Bye\r\n");
  assertEquals(await ada.readAll(), "");
  await ask(bob, "USER user\r\nPASS pass\r\n", "+OK\r\n+OK 2 mails\r\n");
});

testOnce("pop3 gives its mails to another client once a connection was reset", async () => {
  await using t = startPop3(inMemory());
  const [ada, bob] = [await hello(t), await hello(t)];
  await ask(ada, "USER user\r\nPASS pass\r\n", "+OK\r\n+OK 2 mails\r\n");
  ada.reset();
  await t.closed();
  await ask(bob, "USER user\r\nPASS pass\r\n", "+OK\r\n+OK 2 mails\r\n");
});

testOnce(
  "pop3 gives a client one minute to log in, and then ten minutes of silence, and says nothing at their end",
  async () => {
    const memory = inMemory();
    await using t = startPop3(memory);
    const [guest, user] = [await hello(t), await hello(t)];
    await ask(user, "USER user\r\nPASS pass\r\n", "+OK\r\n+OK 2 mails\r\n");
    for (let seconds = 0; seconds < 60; seconds++) {
      await ask(guest, "USER user\r\n", "+OK\r\n".slice(0, seconds === 60 ? 0 : 5));
      await memory.clock.advance(1000);
    }
    assertEquals(await guest.readAll(), "");
    await memory.clock.advance(539_999);
    await ask(user, "NOOP\r\n", "+OK 2 290\r\n");
    await memory.clock.advance(600_000);
    assertEquals(await user.readAll(), "");
    for (const client of [guest, user]) client[Symbol.dispose]();
    await t.closed(2);
    assertEquals(t.all("closed").map(({ reason }) => reason), ["deadline", "idle"]);
  },
);

testOnce("pop3 keeps the mails that were deleted when a shutdown ends the connection, and says nothing", async () => {
  await using t = startPop3(inMemory());
  const client = await hello(t);
  await ask(client, "USER user\r\nPASS pass\r\nDELE 1\r\n", "+OK\r\n+OK 2 mails\r\n+OK Deleted\r\n");
  const stopping = t.server.shutdown();
  assertEquals(await client.readAll(), "");
  client[Symbol.dispose]();
  assertEquals((await stopping).closed, { drained: 1 });
});

testOnce("pop3 offers STLS, and lets the user log in only under TLS", async () => {
  await using t = startPop3(inMemory(), fakeCredentials());
  const client = await hello(t);
  await ask(client, "CAPA\r\n", `${CAPABILITIES}STLS\r\n.\r\n`);
  await ask(client, "USER user\r\nPASS pass\r\n", "-ERR STLS first\r\n-ERR STLS first\r\n");
  await ask(client, "STLS\r\n", "+OK Go ahead\r\n");
  await client.write(HELLO);
  assertEquals(await client.readBytes(SERVER_HELLO.length), SERVER_HELLO);
  await askHidden(client, "CAPA\r\nSTLS\r\n", `${CAPABILITIES}USER\r\n.\r\n-ERR No STLS here\r\n`);
  await askHidden(client, "USER user\r\nPASS pass\r\nSTAT\r\n", "+OK\r\n+OK 2 mails\r\n+OK 2 290\r\n");
});

testOnce("pop3 does not run commands that came in plain text behind STLS", async () => {
  await using t = startPop3(inMemory(), fakeCredentials());
  const client = await hello(t);
  await client.write("STLS\r\nUSER eve\r\n");
  assertEquals(await client.readAll(), "+OK Go ahead\r\n");
  client[Symbol.dispose]();
  assertEquals((await t.closed()).reason, "starttls-injection");
});

test("pop3 tells a client that it does not serve why", async () => {
  await using t = startPop3({ maxConnections: 1 });
  await hello(t);
  const refused = await t.connect();
  assertEquals(await refused.readAll(), "-ERR max-connections\r\n");
});

function startPop3(options: ServeOptions = {}, credentials?: TlsCredentialsHandle): TestServer {
  return new TestServer((options) => servePop3(options, credentials), options);
}

/** Connects a client, and reads the greeting. */
async function hello(t: TestServer): Promise<TestClient> {
  const client = await t.connect();
  assertEquals(`${await client.readLine()}\n`, GREETING);
  return client;
}

/** Sends something, and reads what must come back. */
async function ask(client: TestClient, input: string, expected: string): Promise<void> {
  await client.write(input);
  assertEquals(new TextDecoder().decode(await client.readBytes(expected.length)), expected);
}

/** The same, encrypted. */
async function askHidden(client: TestClient, input: string, expected: string): Promise<void> {
  await sendHidden(client, input);
  assertEquals(await readHidden(client, expected.length), expected);
}
