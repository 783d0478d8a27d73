import { assertEquals, assertGreater, assertLess, assertRejects, fail } from "@std/assert";
import type { Server } from "@x/shouty";
import { serveChat } from "../examples/chat.ts";
import { exchange, LineClient } from "./line_client.ts";

Deno.test("chat tells everybody what is said, and who comes and goes", async () => {
  await using server = serveChat({ port: 0 });
  using ada = await enter(server, "ada");
  assertEquals(await ada.line(), "* here: ada");
  {
    using bob = await enter(server, "bob");
    assertEquals(await bob.line(), "* here: ada, bob");
    assertEquals(await ada.line(), "* bob joined");
    await ada.send("Hello, Bob!\n");
    assertEquals([await ada.line(), await bob.line()], ["ada: Hello, Bob!", "ada: Hello, Bob!"]);
    await bob.send("Bye");
    await bob.end();
    assertEquals(await bob.rest(), "bob: Bye\n");
  }
  assertEquals(await ada.lines(2), ["bob: Bye", "* bob left"]);
});

Deno.test("chat asks for a name until it gets one that is free", async () => {
  await using server = serveChat({ port: 0 });
  using ada = await enter(server, "ada");
  await ada.line();
  using other = await enter(server, "");
  await other.send(`* bob\n${"x".repeat(21)}\nada\nAda\n`);
  const refusal = "Up to 20 letters, digits, - and _, please. Your name?";
  const taken = "Somebody is called ada already. Your name?";
  assertEquals(await other.lines(5), [refusal, refusal, refusal, taken, "* here: ada, Ada"]);
  assertEquals(await ada.line(), "* Ada joined");
});

Deno.test("chat keeps quiet about a client that leaves without a name", async () => {
  await using server = serveChat({ port: 0 });
  using ada = await enter(server, "ada");
  assertEquals(await exchange(server.addr, ""), "Your name?\n");
  using bob = await enter(server, "bob");
  assertEquals([await ada.line(), await ada.line()], ["* here: ada", "* bob joined"]);
  await bob.line();
});

Deno.test("chat gives a name back when its member has left", async () => {
  await using server = serveChat({ port: 0 });
  assertEquals(await exchange(server.addr, "ada\n"), "Your name?\n* here: ada\n");
  assertEquals(await exchange(server.addr, "ada\n"), "Your name?\n* here: ada\n");
});

Deno.test("chat lets no control character through to other people's terminals", async () => {
  await using server = serveChat({ port: 0 });
  const text = await exchange(server.addr, "ada\n\x1b[2Jcleared\r* bob left\n");
  assertEquals(text, "Your name?\n* here: ada\nada:  [2Jcleared * bob left\n");
});

Deno.test("chat drops a member who never reads, and the others miss nothing", async () => {
  await using server = serveChat({ port: 0 });
  using _sleeper = await enter(server, "sleeper");
  using ada = await enter(server, "ada");
  using bob = await enter(server, "bob");
  await hear(ada, "* bob joined");
  const said = "x".repeat(4000);
  for (let round = 0, dropped = false; !dropped; round++) {
    assertLess(round, 200, "50 MB wait for somebody who does not read");
    await ada.send(`${said}\n`.repeat(63) + `${round}\n`);
    const [byAda, byBob] = await Promise.all([hear(ada, `ada: ${round}`), hear(bob, `ada: ${round}`)]);
    dropped = byBob.includes("* sleeper left (write-queue)");
    for (const heard of [byAda, byBob]) assertEquals(heard.filter((line) => line === `ada: ${said}`).length, 63);
  }
  assertEquals(server.stats().closed["write-queue"], 1);
});

Deno.test("chat holds up a member who talks without listening, and the others miss nothing", async () => {
  await using server = serveChat({ port: 0, writeTimeout: 200 });
  using ada = await enter(server, "ada");
  using talker = await enter(server, "talker");
  await hear(ada, "* talker joined");
  const talking = assertRejects(async () => {
    for (let i = 0;; i++) await talker.send(`${i} ${"x".repeat(4000)}\n`);
  });
  const heard = await hear(ada, "* talker left (write-timeout)");
  assertEquals(heard.map((line) => Number(line.split(" ")[1])), heard.map((_, i) => i));
  assertGreater(heard.length, 100);
  await talking;
  await ada.send("Finally.\n");
  assertEquals(await ada.line(), "ada: Finally.");
});

/** Comes into the room under a name; the answer to that is still to be read. */
async function enter(server: Server, name: string): Promise<LineClient> {
  const client = await LineClient.connect(server.addr);
  assertEquals(await client.line(), "Your name?");
  await client.send(`${name}\n`);
  return client;
}

/** The lines before a certain one. */
async function hear(client: LineClient, last: string): Promise<string[]> {
  const lines = [];
  for (;;) {
    const line = await client.line();
    if (line === last) return lines;
    if (line === undefined) fail(`The connection ended before "${last}"`);
    lines.push(line);
  }
}
