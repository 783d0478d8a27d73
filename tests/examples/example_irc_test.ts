import { assertEquals, assertLess, assertMatch, assertRejects, fail } from "@std/assert";
import type { TestClient } from "@x/shouty/testing";
import { serveIrc } from "../../examples/irc.ts";
import { test, testOnce } from "../kit/bounded.ts";
import { inMemory, TestServer } from "../kit/server.ts";

test("irc sends every message, and each arrival and departure, to all members of a channel", async () => {
  await using t = new TestServer(serveIrc, {});
  const ada = await enter(t, "ada", "#math");
  const bob = await enter(t, "bob", "#math");
  assertEquals(await next(ada), "bob JOIN #math");
  await ada.write("PRIVMSG #math :Hello, Bob!\r\n");
  assertEquals(await next(bob), "ada PRIVMSG #math :Hello, Bob!");
  await bob.write("NOTICE #math hm\nPART #math :Bye\n");
  assertEquals([await next(ada), await next(ada)], ["bob NOTICE #math :hm", "bob PART #math :Bye"]);
  assertEquals(await next(bob), "bob PART #math :Bye");
  await bob.write("PRIVMSG #math :Still there?\n");
  assertMatch(await next(bob), /^401 bob #math :/);
  await bob.write("JOIN #math");
  await bob.closeWrite();
  assertEquals([await next(ada), await next(ada)], ["bob JOIN #math", "bob QUIT :end"]);
});

test("irc sends a private message to its receiver alone", async () => {
  await using t = new TestServer(serveIrc, {});
  const [ada, bob, eve] = [await enter(t, "ada", "#math"), await enter(t, "bob"), await enter(t, "eve", "#math")];
  assertEquals(await next(ada), "eve JOIN #math");
  await ada.write("PRIVMSG BOB :a secret\nPRIVMSG nobody :hm\nNOTICE nobody :hm\nPING done\n");
  assertEquals(await next(bob), "ada PRIVMSG BOB :a secret");
  assertMatch(await next(ada), /^401 ada nobody :/);
  assertEquals(await next(ada), "PONG irc.shouty :done");
  await eve.write("PING done\n");
  assertEquals(await next(eve), "PONG irc.shouty :done");
});

test("irc welcomes a client once it has a name and has ended its negotiation", async () => {
  await using t = new TestServer(serveIrc, {});
  const ada = await t.connect();
  await ada.write("CAP LS 302\r\nJOIN #math\r\nNICK 1ada\r\nNICK ada\r\nUSER ada 0 * :Ada Lovelace\r\nPING 1\r\n");
  assertEquals(await next(ada), "CAP * LS :");
  assertMatch(await next(ada), /^451 \* :/);
  assertMatch(await next(ada), /^432 \* 1ada :/);
  assertEquals(await next(ada), "PONG irc.shouty :1");
  await ada.write("CAP REQ :sasl\r\nCAP END\r\n");
  assertEquals(await next(ada), "CAP * NAK :sasl");
  assertEquals(await next(ada), "001 ada :Welcome, ada!ada@user-1");
});

test("irc gives each name to one client, and gives it away again when that has left", async () => {
  await using t = new TestServer(serveIrc, {});
  const ada = await enter(t, "ada", "#math");
  const bob = await enter(t, "bob", "#math");
  await bob.write("NICK Ada\nNICK Bobby\nUSER x 0 * :x\n");
  assertMatch(await next(bob), /^433 bob Ada :/);
  assertEquals(await next(bob), "bob NICK :Bobby");
  assertMatch(await next(bob), /^462 /);
  await ada.write("NICK adele\nQUIT :Off to lunch\n");
  assertEquals(
    await ada.readAll(),
    [
      ":bob!bob@user-2 JOIN #math",
      ":bob!bob@user-2 NICK :Bobby",
      ":ada!ada@user-1 NICK :adele",
      "ERROR :Closing Link: Off to lunch",
      "",
    ].join("\r\n"),
  );
  ada[Symbol.dispose]();
  assertEquals([await next(bob), await next(bob)], ["ada NICK :adele", "adele QUIT :Off to lunch"]);
  const { reason, detail } = await t.closed();
  assertEquals([reason, detail], ["closed", "Off to lunch"]);
  for (const nick of ["ada", "adele"]) await enter(t, nick);
});

test("irc keeps topics, and lists channels, names and members", async () => {
  await using t = new TestServer(serveIrc, {});
  const ada = await enter(t, "ada");
  await ada.write("JOIN #math,oops,#art\nTOPIC #math :Numbers\nTOPIC #math\nTOPIC #art\nTOPIC #none x\n");
  await ada.write("LIST\nWHO #math\nMODE #math\nMODE ada\nFROB\nNAMES #none\n");
  assertEquals(await hear(ada, "366 ada #none :End of names"), [
    "ada JOIN #math",
    "ada JOIN #art",
    "331 ada #math :No topic",
    "353 ada = #math :ada",
    "366 ada #math :End of names",
    "403 ada oops :Not a channel",
    "331 ada #art :No topic",
    "353 ada = #art :ada",
    "366 ada #art :End of names",
    "ada TOPIC #math :Numbers",
    "332 ada #math :Numbers",
    "331 ada #art :No topic",
    "442 ada #none :Not on that channel",
    "322 ada #math 1 :Numbers",
    "322 ada #art 1 :",
    "323 ada :End",
    "352 ada #math ada user-1 irc.shouty ada H :0 The real ada",
    "315 ada #math :End of list",
    "324 ada #math +",
    "221 ada +",
    "421 ada FROB :Unknown command",
  ]);
});

test("irc lets nobody send a line in another's name, or one longer than 512 bytes", async () => {
  await using t = new TestServer(serveIrc, {});
  const [ada, bob] = [await enter(t, "ada"), await enter(t, "bob")];
  await ada.write(`:eve!eve@user-9 PRIVMSG bob :x\r:eve!eve@user-9 QUIT :\0\r\n`);
  assertEquals(await next(bob), "ada PRIVMSG bob :x :eve!eve@user-9 QUIT : ");
  const prefix = ":ada!ada@user-1 PRIVMSG bob :";
  await ada.write(`PRIVMSG bob :${"ä".repeat(247)}\r\n`);
  const line = await bob.readLine();
  assertEquals(line, `${prefix}${"ä".repeat((510 - prefix.length) >> 1)}\r`);
  await ada.write("PRIVMSG bob :one\u2028two\u2029 three\r\n");
  assertEquals(await bob.readLine(), ":ada!ada@user-1 PRIVMSG bob :one\u2028two\u2029 three\r");
  await ada.write(`PRIVMSG bob :${"x".repeat(498)}\r\nPING 1\r\n`);
  assertEquals([await next(ada), await next(ada)], ["417 * :Line too long", "PONG irc.shouty :1"]);
});

test("irc lets a client join 20 channels at most", async () => {
  await using t = new TestServer(serveIrc, {});
  const ada = await enter(t, "ada", Array.from({ length: 20 }, (_, i) => `#${i}`).join(","), "#19");
  await ada.write("JOIN #20\nPART #0\nJOIN #20\n");
  assertMatch(await next(ada), /^405 ada #20 :/);
  assertEquals([await next(ada), await next(ada)], ["ada PART #0 :", "ada JOIN #20"]);
});

testOnce("irc closes a client that does not register within 30 seconds", async () => {
  const memory = inMemory();
  await using t = new TestServer(serveIrc, memory);
  const [ada, bob] = [await t.connect(), await enter(t, "bob")];
  await ada.write("NICK ada\r\n");
  for (let seconds = 0; seconds < 30; seconds++) {
    await ada.write("PING 1\r\n");
    assertEquals(await next(ada), "PONG irc.shouty :1");
    await memory.clock.advance(1000);
  }
  assertEquals(await ada.readAll(), "ERROR :Closing Link: deadline\r\n");
  ada[Symbol.dispose]();
  await bob.write("NICK ada\r\n");
  assertEquals(await next(bob), "bob NICK :ada");
  assertEquals((await t.closed()).detail, "registration");
});

testOnce("irc sends a PING to a silent client, and closes its connection if no answer comes", async () => {
  const memory = inMemory();
  await using t = new TestServer(serveIrc, memory);
  const [ada, bob] = [await enter(t, "ada", "#math"), await enter(t, "bob", "#math")];
  assertEquals(await next(ada), "bob JOIN #math");
  await memory.clock.advance(60_000);
  for (const client of [ada, bob]) assertEquals(await next(client), "PING :irc.shouty");
  await memory.clock.advance(59_999);
  await ada.write("PONG :irc.shouty\r\n");
  assertEquals(t.stats.active, 2);
  await memory.clock.advance(1);
  assertEquals(await bob.readAll(), "ERROR :Closing Link: Ping timeout\r\n");
  await memory.clock.advance(59_999);
  assertEquals([await next(ada), await next(ada)], ["bob QUIT :Ping timeout", "PING :irc.shouty"]);
  bob[Symbol.dispose]();
  assertEquals((await t.closed()).detail, "Ping timeout");
});

testOnce("irc tells the others that a member's connection was reset, and frees its name", async () => {
  await using t = new TestServer(serveIrc, inMemory());
  const [ada, bob] = [await enter(t, "ada", "#math"), await enter(t, "bob", "#math")];
  bob.reset();
  assertEquals([await next(ada), await next(ada)], ["bob JOIN #math", "bob QUIT :reset"]);
  await enter(t, "bob");
});

testOnce("irc says goodbye to its members in a shutdown", async () => {
  await using t = new TestServer(serveIrc, inMemory());
  const ada = await enter(t, "ada", "#math");
  await ada.write("PING 1\r\n");
  const stopping = t.server.shutdown({ drain: "finish" });
  assertEquals(await ada.readAll(), ":irc.shouty PONG irc.shouty :1\r\nERROR :Closing Link: drained\r\n");
  ada[Symbol.dispose]();
  assertEquals((await stopping).closed, { drained: 1 });
});

test("irc drops a member that never reads, and the others miss nothing", async () => {
  await using t = new TestServer((options) => serveIrc({ ...options, maxLinesPerSecond: Infinity }), {});
  await enter(t, "sleeper", "#math");
  const [ada, bob] = [await enter(t, "ada", "#math"), await enter(t, "bob", "#math")];
  assertEquals(await next(ada), "bob JOIN #math");
  const said = "x".repeat(400);
  for (let round = 0, dropped = false; !dropped; round++) {
    assertLess(round, 200, "20 MB wait for a member that does not read");
    await ada.write(`PRIVMSG #math ${said}\r\n`.repeat(250) + `PRIVMSG #math ${round}\r\nPING ${round}\r\n`);
    const byAda = await hear(ada, `PONG irc.shouty :${round}`);
    const byBob = await hear(bob, `ada PRIVMSG #math :${round}`);
    assertEquals(byBob.filter((line) => line === `ada PRIVMSG #math :${said}`).length, 250);
    dropped = byAda.concat(byBob).includes("sleeper QUIT :write-queue");
  }
  assertEquals((await t.closed()).reason, "write-queue");
});

testOnce("irc reads no more from a member that does not read its replies, and the others go on", async () => {
  const { listener, clock } = inMemory();
  await using t = new TestServer((options) => serveIrc({ ...options, maxLinesPerSecond: Infinity }), {
    listener,
    clock,
  });
  const [ada, talker] = [await enter(t, "ada", "#math"), await enter(t, "talker", "#math")];
  assertEquals(await next(ada), "talker JOIN #math");
  const talking = assertRejects(async () => {
    for (;;) await talker.write(`PING ${"x".repeat(400)}\r\n`);
  });
  // Nothing is read while a reply waits, so the number of lines stands still at last.
  for (let quiet = 0, before = 0; quiet < 20; quiet = t.stats.lines === before ? quiet + 1 : 0) {
    before = t.stats.lines;
    await clock.advance(10);
  }
  assertLess(t.stats.bytesIn, 1024 * 1024);
  await ada.write("PRIVMSG ada :Still here.\r\n");
  assertEquals(await next(ada), "ada PRIVMSG ada :Still here.");
  while (t.all("closed").length === 0) await clock.advance(1000);
  assertEquals(await next(ada), "talker QUIT :write-timeout");
  await talking;
});

/** Connects and registers a client, and makes it join a channel; all replies to that are read. */
async function enter(t: TestServer, nick: string, channels?: string, last = channels): Promise<TestClient> {
  const client = await t.connect();
  await client.write(`NICK ${nick}\r\nUSER ${nick} 0 * :The real ${nick}\r\n`);
  while (!(await next(client)).startsWith("422 "));
  if (channels === undefined) return client;
  await client.write(`JOIN ${channels}\r\n`);
  while (await next(client) !== `366 ${nick} ${last} :End of names`);
  return client;
}

/** Reads a message, which must end with CRLF; of a prefix, only a nickname is kept. */
async function next(client: TestClient): Promise<string> {
  const line = await client.readLine();
  if (line === null) fail("The connection has ended");
  const [, nick = "", message] = /^(?::irc\.shouty |:(\S+?)!\S+ )?(.*)\r$/.exec(line) ?? fail(`Not a message: ${line}`);
  return nick === "" ? message : `${nick} ${message}`;
}

/** Reads messages up to `last`; returns those before it. */
async function hear(client: TestClient, last: string): Promise<string[]> {
  const messages = [];
  for (let message; (message = await next(client)) !== last;) messages.push(message);
  return messages;
}
