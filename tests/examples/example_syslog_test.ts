import { assertEquals, assertMatch } from "@std/assert";
import { readNetstring, serveSyslog } from "../../examples/syslog.ts";
import { test, testOnce } from "../kit/bounded.ts";
import { listening, NO_SIGNALS, Subprocess } from "../kit/command.ts";
import { logger, NO_LOGGER } from "../kit/project/logger.ts";
import { toBytes } from "../kit/bytes.ts";
import { anyCuts, check, cut, fc } from "../kit/property.ts";
import { inMemory, startConversations, TestServer } from "../kit/server.ts";

test("syslog tells octet counting and LF apart for each message of a connection", async () => {
  const { t, printed } = start();
  await using _t = t;
  await t.talk("<13>One\n12 <13>Two\nlineX<13>Three\r\n\n8 <13>Four9 <13>Four\n\n<13>Five");
  assertEquals(printed, ["<13>One", "<13>Two#012line", "X<13>Three", "<13>Four", "<13>Four", "<13>Five"]);
});

test("syslog prints nothing of a message with octet counting that is cut off", async () => {
  for (const cut of ["7", "7 <13>", "12"]) {
    const { t, printed } = start();
    await using _t = t;
    await t.talk(`7 <13>One${cut}`);
    assertEquals(printed, ["<13>One"], cut);
  }
});

testOnce("syslog finds out that a sender ends its messages with NUL", async () => {
  const memory = inMemory();
  const { t, printed } = start(memory);
  await using _t = t;
  const client = await t.connect();
  await client.write("<13>One\0");
  await memory.clock.advance(100);
  assertEquals(printed, ["<13>One"]);
  // From now on without a wait, and LF is a part of the message.
  await client.write("<13>Two\nlines\x009 <13>Three<13>Four\0");
  await memory.clock.advance(0);
  assertEquals(printed.slice(1), ["<13>Two#012lines", "<13>Three", "<13>Four"]);
  await client.write("<13>Five\n");
  await memory.clock.advance(100);
  await client.write("<13>Six\n");
  await memory.clock.advance(0);
  assertEquals(printed.slice(4), ["<13>Five", "<13>Six"]);
});

test("syslog splits the messages with NUL that came before it was expected", async () => {
  const { t, printed } = start();
  await using _t = t;
  await t.talk("<13>One\0<13>Two\0<13>Three\n");
  assertEquals(printed, ["<13>One", "<13>Two", "<13>Three"]);
});

testOnce("syslog prints each message exactly once, however the bytes are cut", async () => {
  const text = fc.string({ unit: fc.constantFrom("a", "7", " ", "ñ", "😀", "<", ":"), maxLength: 12 });
  const message = fc.tuple(text, fc.constantFrom("lf", "count"));
  await check([fc.array(message, { maxLength: 12 }), anyCuts], async (messages, cuts) => {
    const { t, printed } = start(inMemory());
    await using _t = t;
    const parts = messages.map(([text, framing]) => {
      const message = `<13>${text}`;
      return framing === "lf" ? `${message}\n` : `${toBytes(message).length} ${message}`;
    });
    const client = await t.connect();
    for (const segment of cut(toBytes(parts.join("")), cuts)) await client.write(segment);
    await client.closeWrite();
    assertEquals(await client.readAll(), "");
    assertEquals(printed, messages.map(([text]) => `<13>${text}`));
  });
});

test("syslog cuts off messages that are too long, and goes on behind them", async () => {
  const { t, printed } = start();
  await using _t = t;
  const long = `<13>${"x".repeat(20_000)}`;
  await t.talk(`${long.length} ${long}${long}\n<13>next\n`);
  assertEquals(printed, [long.slice(0, 8192), long.slice(0, 8192), "<13>next"]);
});

testOnce("syslog cuts off messages that are too long also where NUL ends them", async () => {
  const memory = inMemory();
  const { t, printed } = start(memory);
  await using _t = t;
  const client = await t.connect();
  await client.write("<13>One\0");
  await memory.clock.advance(100);
  const long = `<13>${"x".repeat(20_000)}`;
  await client.write(`${long}\0<13>next\0`);
  for (let i = 0; i < 10; i++) await memory.clock.advance(100);
  assertEquals(printed, ["<13>One", long.slice(0, 8192), "<13>next"]);
});

test("syslog loses none of many messages with NUL that come together", async () => {
  const { t, printed } = start();
  await using _t = t;
  const messages = Array.from({ length: 2000 }, (_, i) => `<13>message ${i}`);
  await t.talk(`${messages.join("\0")}\0`);
  assertEquals(printed, messages);
});

testOnce("syslog prints nothing of a message whose connection breaks off", async () => {
  const memory = inMemory();
  const { t, printed } = start(memory);
  await using _t = t;
  const client = await t.connect();
  await client.write("<13>One\n<13>Tw");
  await memory.clock.advance(50);
  client.reset();
  await t.closed();
  await memory.clock.advance(100);
  assertEquals(printed, ["<13>One"]);
});

test("syslog escapes control characters, and keeps text that is not ASCII", async () => {
  const { t, printed } = start();
  await using _t = t;
  await t.talk("<13>\x1b[2J\tñ 日\n日 first\n");
  assertEquals(printed, ["<13>#033[2J#011ñ 日", "日 first"]);
});

for (const [what, text] of [["a count that is none", "1x <13>"], ["a count without an end", "1234567890123"]]) {
  test(`syslog closes the connection at ${what}`, async () => {
    const { t, printed } = start();
    await using _t = t;
    assertEquals(await t.talk(text), "");
    assertMatch((await t.closed()).reason, /handler-error|read-too-long/);
    assertEquals(printed, []);
  });
}

test("syslog prints nothing of a message whose end is missing by its count", async () => {
  const { t, printed } = start();
  await using _t = t;
  await t.talk("<13>One\n20 <13>Two");
  assertEquals(printed, ["<13>One"]);
});

testOnce("syslog gives up a message whose end does not come within 30 seconds", async () => {
  const memory = inMemory();
  const { t, printed } = start(memory);
  await using _t = t;
  const client = await t.connect();
  await client.write("<");
  await memory.clock.advance(30_000);
  assertEquals(await client.readAll(), "");
  client[Symbol.dispose]();
  const { reason, detail } = await t.closed();
  assertEquals([reason, detail], ["deadline", "message"]);
  assertEquals(printed, []);
});

testOnce("syslog prints everything that has come before a shutdown, which silent senders do not hold up", async () => {
  const memory = inMemory();
  const { t, printed } = start(memory);
  await using _t = t;
  const clients = await Promise.all(Array.from({ length: 10 }, () => t.admitted()));
  for (const [i, client] of clients.entries()) {
    await client.write(i === 0 ? "" : i % 2 ? `<13>${i}\n`.repeat(1000) : `5 <13>${i}`.repeat(1000));
  }
  const stopping = t.server.shutdown();
  while (printed.length < 9000) await memory.clock.advance(0);
  await memory.clock.advance(1000);
  await Promise.all(clients.map(async (client) => {
    assertEquals(await client.readAll(), "");
    client[Symbol.dispose]();
  }));
  assertEquals((await stopping).closed, { drained: 10 });
  assertEquals(printed.toSorted(), Array.from({ length: 9000 }, (_, i) => `<13>${1 + i % 9}`).toSorted());
});

testOnce(
  "syslog has printed every message that has come when a signal has ended it",
  async () => {
    await using example = await listening(new Subprocess(Deno.execPath(), ["run", "-A", "examples/syslog.ts", "0"]));
    using conn = await Deno.connect({ port: example.port });
    await conn.write(new TextEncoder().encode("<13>first\n"));
    await example.stdoutMatch(/first\n/);
    await new Response("<13>some message\n".repeat(5000)).body!.pipeTo(conn.writable, { preventClose: true });
    example.signal("SIGTERM");
    assertEquals((await example.outcome()).code, 0);
    assertEquals(example.stdout.split("\n").length, 1 + 5000 + 1);
  },
  60,
  NO_SIGNALS,
);

testOnce("syslog keeps the messages of a slow sender apart, although it has looked for NUL meanwhile", async () => {
  const memory = inMemory();
  const { t, printed } = start(memory);
  await using _t = t;
  const client = await t.connect();
  await client.write("<13>O");
  await memory.clock.advance(100);
  await client.write("ne\n8 <13>Two\n<13>Three");
  await client.closeWrite();
  assertEquals(await client.readAll(), "");
  assertEquals(printed, ["<13>One", "<13>Two", "<13>Three"]);
});

for (const octets of [false, true]) {
  const args = octets ? ["--octet-count"] : [];
  testOnce(
    `syslog prints what logger sends${octets ? " with --octet-count" : ""}`,
    async () => {
      await using example = await listening(new Subprocess(Deno.execPath(), ["run", "-A", "examples/syslog.ts", "0"]));
      const lines = Array.from({ length: 100 }, (_, i) => `message ${i}: ñ 日 ${"x".repeat(i)}`);
      await logger(example.port, lines.join("\n"), "--tag", "test", ...args);
      await example.stdoutMatch(/message 99: /);
      const printed = example.stdout.trimEnd().split("\n");
      // RFC 5424, logger's default over the network: the time, the host and more come before the text.
      for (const line of printed) assertMatch(line, /^<13>1 \S+ \S+ test - - \[.*\] message \d+: ñ 日 x*$/);
      assertEquals(printed.map((line) => line.slice(line.indexOf("message"))), lines);
    },
    60,
    NO_LOGGER,
  );
}

test("readNetstring reads frames that begin with their length", async () => {
  const frames: string[] = [];
  await using t = startConversations({}, async (conn) => {
    for (let frame; (frame = await readNetstring(conn, 10)) !== null;) frames.push(new TextDecoder().decode(frame));
  });
  await t.talk("5:hello,0:,7:a\n:,2,b,");
  assertEquals(frames, ["hello", "", "a\n:,2,b"]);
  for (const text of ["5:hello;", "05:hello,", "11:hello hello,", "5:hell", "x"]) await t.talk(text);
  assertEquals(frames.length, 3);
  await t.closed(6);
  const { closed } = t.stats;
  assertEquals(closed, { ...closed, "end": 3, "handler-error": 2, "read-too-long": 1 });
});

/** Starts a server, and keeps what it prints. */
function start(options: Parameters<typeof serveSyslog>[0] = {}): { t: TestServer; printed: string[] } {
  const printed: string[] = [];
  return { t: new TestServer((options) => serveSyslog(options, (message) => printed.push(message)), options), printed };
}
