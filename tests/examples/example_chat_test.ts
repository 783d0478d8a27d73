import { assertEquals, assertGreater, assertLess, assertRejects, fail } from "@std/assert";
import type { TestClient } from "@x/shouty/testing";
import { serveChat } from "../../examples/chat.ts";
import { test, testOnce } from "../kit/bounded.ts";
import { inMemory, TestServer } from "../kit/server.ts";

test("chat sends every line, and each arrival and departure, to all members", async () => {
  await using t = new TestServer(serveChat, {});
  const ada = await enter(t, "ada");
  assertEquals(await ada.readLine(), "* here: ada");
  const bob = await enter(t, "bob");
  assertEquals(await bob.readLine(), "* here: ada, bob");
  assertEquals(await ada.readLine(), "* bob joined");
  await ada.write("Hello, Bob!\n");
  assertEquals([await ada.readLine(), await bob.readLine()], ["ada: Hello, Bob!", "ada: Hello, Bob!"]);
  await bob.write("Bye");
  await bob.closeWrite();
  assertEquals(await bob.readAll(), "bob: Bye\n");
  assertEquals([await ada.readLine(), await ada.readLine()], ["bob: Bye", "* bob left"]);
});

test("chat asks for a name until it gets one that is free", async () => {
  await using t = new TestServer(serveChat, {});
  const ada = await enter(t, "ada");
  await ada.readLine();
  const other = await enter(t, "");
  await other.write(`* bob\n${"x".repeat(21)}\nada\nAda\n`);
  assertEquals(await hear(other, "* here: ada, Ada"), [
    "Up to 20 letters, digits, - and _, please. Your name?",
    "Up to 20 letters, digits, - and _, please. Your name?",
    "Up to 20 letters, digits, - and _, please. Your name?",
    "The name ada is taken. Your name?",
  ]);
  assertEquals(await ada.readLine(), "* Ada joined");
});

test("chat keeps quiet about a client that leaves without a name", async () => {
  await using t = new TestServer(serveChat, {});
  const ada = await enter(t, "ada");
  assertEquals(await t.talk(""), "Your name?\n");
  await enter(t, "bob");
  assertEquals([await ada.readLine(), await ada.readLine()], ["* here: ada", "* bob joined"]);
});

test("chat gives a name back when its member has left", async () => {
  await using t = new TestServer(serveChat, {});
  assertEquals(await t.talk("ada\n"), "Your name?\n* here: ada\n");
  assertEquals(await t.talk("ada\n"), "Your name?\n* here: ada\n");
});

test("chat lets no control character through to other people's terminals", async () => {
  await using t = new TestServer(serveChat, {});
  const text = await t.talk("ada\n\x1b[2Jcleared\r* bob left\n");
  assertEquals(text, "Your name?\n* here: ada\nada:  [2Jcleared * bob left\n");
});

test("chat drops a member that never reads, and the others miss nothing", async () => {
  await using t = new TestServer(serveChat, {});
  await enter(t, "sleeper");
  const ada = await enter(t, "ada");
  const bob = await enter(t, "bob");
  await hear(ada, "* bob joined");
  const said = "x".repeat(4000);
  for (let round = 0, dropped = false; !dropped; round++) {
    assertLess(round, 200, "50 MB wait for a member that does not read");
    await ada.write(`${said}\n`.repeat(63) + `${round}\n`);
    const [byAda, byBob] = await Promise.all([hear(ada, `ada: ${round}`), hear(bob, `ada: ${round}`)]);
    dropped = byBob.includes("* sleeper left (write-queue)");
    for (const heard of [byAda, byBob]) assertEquals(heard.filter((line) => line === `ada: ${said}`).length, 63);
  }
  assertEquals((await t.closed()).reason, "write-queue");
});

testOnce("chat slows down a member that writes without reading, and the others miss nothing", async () => {
  // In memory, so that ada gets each line before the clock moves: on a socket and a busy machine it may come later.
  const { listener, clock } = inMemory({ bufferBytes: 1024 * 1024 });
  await using t = new TestServer(serveChat, { listener, clock, writeTimeout: 200 });
  const ada = await enter(t, "ada");
  const talker = await enter(t, "talker");
  await hear(ada, "* talker joined");
  const talking = assertRejects(async () => {
    for (let i = 0;; i++) await talker.write(`${i} ${"x".repeat(4000)}\n`);
  });
  const hearing = hear(ada, "* talker left (write-timeout)");
  while (t.all("closed").length === 0) await clock.advance(10);
  const heard = await hearing;
  assertEquals(heard.map((line) => Number(line.split(" ")[1])), heard.map((_, i) => i));
  assertGreater(heard.length, 100);
  await talking;
  await ada.write("Finally.\n");
  assertEquals(await ada.readLine(), "ada: Finally.");
});

/** Connects and sends a name; the room's answer to it is still to be read. */
async function enter(t: TestServer, name: string): Promise<TestClient> {
  const client = await t.connect();
  assertEquals(await client.readLine(), "Your name?");
  await client.write(`${name}\n`);
  return client;
}

/** Reads lines up to `last`; returns those before it. */
async function hear(client: TestClient, last: string): Promise<string[]> {
  const lines = [];
  for (;;) {
    const line = await client.readLine();
    if (line === last) return lines;
    if (line === null) fail(`The connection ended before "${last}"`);
    lines.push(line);
  }
}
