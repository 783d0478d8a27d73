import { assertEquals, assertRejects } from "@std/assert";
import { type Conn, serveConnections, type ServeOptions } from "@x/shouty";
import { test, testOnce } from "../../kit/bounded.ts";
import { inMemory, startConversations, TestServer } from "../../kit/server.ts";

/** Answers each message, which is some lines and a "." behind them, with the number of its lines. */
async function answerMessages(conn: Conn): Promise<void> {
  for (let line = await conn.readLine(); line !== null; line = await conn.readLine()) {
    let lines = 0;
    for (; line !== "."; line = await conn.readLine({ boundary: false })) {
      if (line === null) return;
      lines++;
    }
    await conn.write(`${lines}\n`);
  }
}

/** Serves messages in memory, with the test's own clock. */
function startMessages(options: ServeOptions) {
  const { listener, clock } = inMemory();
  const t = new TestServer((all) => serveConnections(all, answerMessages), { listener, clock, ...options });
  return { t, clock };
}

test('drain: "finish" ends a silent client, and waits for the lines that a message still needs', async () => {
  await using t = startConversations({}, answerMessages);
  const [silent, client] = [await t.admitted(), await t.admitted()];
  await client.write(".\none\n");
  assertEquals(await client.readLine(), "0");
  const stopped = t.server.shutdown({ drain: "finish", drainTimeout: Infinity });
  assertEquals(await silent.readAll(), "");
  silent.close();
  for (const part of ["two\n", "thr", "ee\n"]) await client.write(part);
  await client.write(".\n");
  assertEquals(await client.readAll(), "3\n");
  client.close();
  assertEquals((await stopped).closed, { drained: 2 });
});

/** Ends of the input, and what makes each of them come between the first and the second line of a message. */
const ENDS: Readonly<
  Record<string, [options: ServeOptions, begin: (t: TestServer, advance: () => Promise<void>) => unknown]>
> = {
  "drained": [{}, (t) => void t.server.shutdown({ drain: "finish", drainTimeout: 1e9 })],
  "max-age": [{ maxAge: 10_000 }, (_, advance) => advance()],
  "max-lines": [{ maxLines: 1 }, () => {}],
};

for (const [reason, [options, begin]] of Object.entries(ENDS)) {
  testOnce(`${reason} cuts no message off, however often or however much of it is waited for`, async () => {
    const clocks = { idleTimeout: Infinity, lineTimeout: Infinity, firstLineTimeout: Infinity };
    const { t, clock } = startMessages({ ...clocks, ...options });
    await using _server = t;
    const client = await t.admitted();
    await client.write("x\n");
    await clock.advance(0);
    begin(t, () => clock.advance(11_500));
    for (let i = 0; i < 100; i++) await client.write("y\n"), await clock.advance(0);
    // More than 1 MiB, each read of which ends in the middle of a line.
    for (let i = 0; i < 300; i++) await client.write(`${"z".repeat(4096)}\nz`), await clock.advance(0);
    await client.write("\n");
    await client.write(".\n");
    assertEquals(await client.readAll(), "402\n");
    client.close();
    await t.closed(1);
    assertEquals(t.all("closed").map((event) => event.reason), [reason]);
  });
}

testOnce('drain: "finish" cuts off no body of a peer that always has one begun', async () => {
  const { listener, clock } = inMemory();
  await using t = startConversations({ listener, clock }, async (conn) => {
    for (let size = await conn.readLine(); size !== null; size = await conn.readLine()) {
      await conn.readExactly(Number(size));
      await conn.write("k");
    }
  });
  const client = await t.admitted();
  await client.write("4\nab");
  await clock.advance(0);
  const stopped = t.server.shutdown({ drain: "finish", drainTimeout: 1e9 });
  for (let i = 0; i < 100; i++) await client.write("cd4\nab"), await clock.advance(0);
  await client.write("cd");
  assertEquals(await client.readAll(), "k".repeat(101));
  client.close();
  assertEquals((await stopped).closed, { drained: 1 });
});

/** For each end of the input, how many messages are read in all if the next one has always begun. */
const READ: Readonly<Record<string, number>> = { "drained": 66, "max-age": 10, "max-lines": 10 };

for (const [reason, [options, begin]] of Object.entries(ENDS)) {
  testOnce(`${reason} ends a peer that always begins a message with the end of another`, async () => {
    const { listener, clock } = inMemory();
    let messages = 0;
    await using t = startConversations({ listener, clock, idleTimeout: Infinity, ...options }, async (conn) => {
      for (let size = await conn.readLine(); size !== null; size = await conn.readLine()) {
        await conn.readExactly(Number(size));
        messages++;
      }
    });
    const client = await t.admitted();
    await client.write("1\n");
    await clock.advance(0);
    begin(t, () => clock.advance(11_500));
    // When a body ends, the line behind it has begun: the server never waits where no message has begun.
    for (let i = 0; i < 100 && t.all("closed").length === 0; i++) {
      await client.write("a1").catch(() => {});
      await clock.advance(0);
      await client.write("\n").catch(() => {});
      await clock.advance(0);
    }
    client.close();
    await clock.advance(0);
    assertEquals(t.all("closed").map((event) => event.reason), [reason]);
    assertEquals(messages, READ[reason]);
  });
}

testOnce(
  'drain: "finish" reads a body to its end when a read brings its beginning and more than 1 MiB in all',
  async () => {
    const { listener, clock } = inMemory({ bufferBytes: 1 << 20 });
    const sizes: number[] = [];
    await using t = startConversations({ listener, clock }, async (conn) => {
      for (let size = await conn.readLine(); size !== null; size = await conn.readLine()) {
        sizes.push((await conn.readExactly(Number(size))).length);
      }
    });
    const client = await t.admitted();
    await client.write("4");
    await clock.advance(0);
    const stopped = t.server.shutdown({ drain: "finish", drainTimeout: 1e9 });
    const half = "x".repeat(20_000);
    for (let i = 0; i < 30 && t.all("closed").length === 0; i++) {
      await client.write(`0000\n${half}`).catch(() => {});
      await clock.advance(0);
      // With the end of the body comes the first byte of the next message.
      await client.write(`${half}4`).catch(() => {});
      await clock.advance(0);
    }
    client.close();
    assertEquals((await stopped).closed, { drained: 1 });
    assertEquals(sizes, Array(27).fill(40_000));
  },
);

testOnce("a message that is not complete 10 s after maxAge ends, in the middle of a line too", async () => {
  const { t, clock } = startMessages({ maxAge: 10_000, idleTimeout: Infinity, lineTimeout: Infinity });
  await using _server = t;
  for (const part of ["x\n", "x\ny"]) {
    const client = await t.admitted();
    await client.write(part);
  }
  await clock.advance(11_500);
  assertEquals(t.all("closed"), []);
  await clock.advance(10_000);
  assertEquals(t.all("closed").map((event) => event.reason), ["max-age", "max-age"]);
});

testOnce(
  "the wait for a line of a message is idle until its first byte has come, and then has lineTimeout",
  async () => {
    const { t, clock } = startMessages({ idleTimeout: 5000, lineTimeout: 2000 });
    await using _server = t;
    const [idle, slow] = [await t.admitted(), await t.admitted()];
    await idle.write("x\n");
    await slow.write("x\ny");
    await clock.advance(0);
    const waitsFor = Array.from(t.server.connections, (conn) => conn.stats().waitsFor).toSorted();
    assertEquals(waitsFor, ["body", "line"]);
    await clock.advance(2000);
    await clock.advance(2999);
    assertEquals(t.all("closed").map((event) => event.reason), ["line-timeout"]);
    await clock.advance(1);
    assertEquals(t.all("closed").map((event) => event.reason), ["line-timeout", "idle"]);
  },
);

testOnce("a changed lineTimeout holds for a line of a message that has begun", async () => {
  const { t, clock } = startMessages({ lineTimeout: 2000 });
  await using _server = t;
  const client = await t.admitted();
  await client.write("x\ny");
  await clock.advance(1000);
  for (const conn of t.server.connections) conn.setLimits({ lineTimeout: 1500 });
  await clock.advance(1499);
  assertEquals(t.all("closed"), []);
  await clock.advance(1);
  assertEquals(t.all("closed").map((event) => event.reason), ["line-timeout"]);
});

test("boundary of readLine has to be a boolean, and no other read is disturbed", async () => {
  const errors: string[] = [];
  await using t = startConversations({}, async (conn) => {
    const line = conn.readLine({ boundary: false });
    for (const options of [{ boundary: 1 as never }, 5 as never]) {
      errors.push((await assertRejects(() => conn.readLine(options), TypeError)).message);
    }
    await conn.write(`${await line}\n`);
    assertEquals(await conn.readLine({ boundary: true }), null);
  });
  assertEquals(await t.talk("hello\n"), "hello\n");
  assertEquals(errors, [
    "Cannot use boundary 1: expected true or false",
    "Cannot use readLine options: expected an object, got 5",
  ]);
});
