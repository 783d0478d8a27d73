import { assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { type Conn, ConnectionClosedError } from "@x/shouty";
import type { FakeClock, TestClient } from "@x/shouty/testing";
import { test } from "../../kit/bounded.ts";
import { fakeCredentials, HELLO, readHidden, sendHidden, SERVER_HELLO } from "../../kit/fakes/fake_tls.ts";
import { inMemory, startConversations, startServer } from "../../kit/server.ts";
import { shakeHands, startUpgrading } from "../../kit/start_tls.ts";

for (const evil of ["NOOP\n", "N", "\x16\x02", "\x16\x03\x09", "\n"]) {
  test(`plain text behind the command, ${JSON.stringify(evil)}, ends the connection with starttls-injection`, async () => {
    const { listener, clock } = inMemory();
    const credentials = fakeCredentials();
    const failed = Promise.withResolvers<unknown>();
    await using t = startUpgrading({ listener, clock }, credentials, async (conn) => {
      conn.write("go ahead\n");
      failed.resolve(await conn.startTls(credentials).catch((error) => error));
      assertEquals([conn.ending, conn.tls], ["starttls-injection", undefined]);
    });
    const client = await t.admitted();
    await client.write(`STARTTLS\n${evil}`);
    assertEquals(await client.readAll(), "go ahead\n");
    await client.closeWrite();
    const error = await failed.promise;
    assertInstanceOf(error, ConnectionClosedError);
    assertEquals(error.message, "Cannot begin TLS: the connection has ended (starttls-injection)");
    assertEquals([(await t.closed()).reason, credentials.handshakes], ["starttls-injection", 0]);
  });
}

test("a handler that lets the error of startTls pass is not at fault", async () => {
  const { listener, clock } = inMemory();
  await using t = startUpgrading({ listener, clock }, fakeCredentials());
  using client = await t.connect();
  await client.write("STARTTLS\nNOOP\n");
  assertEquals(await client.readAll(), "go ahead\n");
  await client.closeWrite();
  assertEquals((await t.closed()).reason, "starttls-injection");
  assertEquals(t.all("handler-error"), []);
});

for (const [what, maxConnectionBytes, early] of [["a part", 12, 6], ["all", 9, 6], ["a part later", 12, 0]] as const) {
  test(`a hello of which the limit of the connection has cut off ${what} ends it with byte-limit`, async () => {
    const { listener, clock } = inMemory();
    const credentials = fakeCredentials();
    await using t = startUpgrading({ listener, clock, maxConnectionBytes }, credentials);
    const client = await t.admitted();
    await client.write(Uint8Array.of(...new TextEncoder().encode("STARTTLS\n"), ...HELLO.subarray(0, early)));
    assertEquals(await client.readLine(), "go ahead");
    if (early === 0) await client.write(HELLO);
    await clock.advance(0);
    assertEquals([t.all("closed").map(({ reason }) => reason), credentials.handshakes], [["byte-limit"], 0]);
    assertEquals(await client.readAll(), "");
  });
}

for (const late of [false, true]) {
  const when = late ? "during a read that startTls takes over" : "after the call of startTls";
  test(`a hello that comes first, ${when}, is no misdirected one`, async () => {
    const { listener, clock } = inMemory();
    const credentials = fakeCredentials();
    await using t = startConversations({ listener, clock, answerMisdirected: true }, async (conn) => {
      if (late) await assertRejects(() => conn.readLine({ timeout: 100 }), Deno.errors.TimedOut);
      conn.write("go ahead\n");
      await conn.startTls(credentials);
      await conn.write(`${await conn.readLine()}\n`);
    });
    const client = await t.admitted();
    await clock.advance(100);
    assertEquals(await client.readLine(), "go ahead");
    await client.write(HELLO);
    assertEquals(await client.readBytes(SERVER_HELLO.length), SERVER_HELLO);
    await sendHidden(client, "hidden\n");
    assertEquals(await readHidden(client, 7), "hidden\n");
  });
}

test("a line handler that does not await startTls gets no line that came in plain text", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials();
  const lines: string[] = [];
  await using t = startServer({ listener, clock }, (line, conn) => {
    lines.push(line);
    if (line !== "STARTTLS") return line.toUpperCase();
    conn.write("go ahead\n");
    conn.startTls(credentials);
  });
  const good = await t.admitted();
  await shakeHands(good);
  await sendHidden(good, "hidden\n");
  assertEquals(await readHidden(good, 7), "HIDDEN\n");
  const evil = await t.admitted();
  await evil.write("STARTTLS\nEVIL\n");
  assertEquals(await evil.readAll(), "go ahead\n");
  await evil.closeWrite();
  assertEquals((await t.closed()).reason, "starttls-injection");
  assertEquals([lines, credentials.handshakes], [["STARTTLS", "hidden", "STARTTLS"], 1]);
});

for (const onLongLine of ["truncate", "discard"] as const) {
  test(`the beginning of a line that is too long, which onLongLine "${onLongLine}" has dropped, is plain text behind the command`, async () => {
    const { listener, clock } = inMemory();
    const credentials = fakeCredentials();
    const options = { listener, clock, maxLineBytes: 10, lastWords: () => null, framing: { onLongLine } };
    await using t = startUpgrading(options, credentials, async (conn) => {
      await assertRejects(() => conn.readLine({ timeout: 100 }), Deno.errors.TimedOut);
      conn.write("go ahead\n");
      await conn.startTls(credentials);
    });
    const client = await t.admitted();
    await client.write("STARTTLS\nlonger than ten");
    await clock.advance(100);
    assertEquals(await client.readAll(), "go ahead\n");
    await client.closeWrite();
    assertEquals([(await t.closed()).reason, credentials.handshakes], ["starttls-injection", 0]);
  });
}

test("a hello that passes maxConnectionBytes ends the connection at once: its end has been dropped", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials();
  const worked = Promise.withResolvers<void>();
  await using t = startUpgrading({ listener, clock, maxConnectionBytes: 12 }, credentials, async (conn) => {
    await worked.promise;
    const error = await assertRejects(() => conn.startTls(credentials), ConnectionClosedError);
    assertEquals(error.reason, "byte-limit");
  });
  const client = await t.admitted();
  await client.write(Uint8Array.of(...new TextEncoder().encode("STARTTLS\n"), ...HELLO));
  // The server reads ahead while the handler works.
  await clock.advance(250);
  worked.resolve();
  assertEquals(await client.readAll(), "");
  const { reason, bytesOut } = await t.closed();
  assertEquals([reason, bytesOut, credentials.handshakes], ["byte-limit", 0, 0]);
});

const BEFORE: Record<string, (conn: Conn, clock: FakeClock, client: TestClient) => Promise<unknown>> = {
  "while a handler worked": async (_, clock, client) => {
    await client.write("NOOP\n");
    await clock.advance(0);
  },
  "while a read was given up": async (conn, clock, client) => {
    const read = conn.readLine({ timeout: 10 }).catch(() => {});
    await clock.advance(10);
    await read;
    await client.write("NOOP\n");
    await clock.advance(0);
  },
};

for (const [when, come] of Object.entries(BEFORE)) {
  test(`plain text that came ${when}, before startTls, is an injection, although no read has taken it`, async () => {
    const { listener, clock } = inMemory();
    const credentials = fakeCredentials();
    const client = Promise.withResolvers<TestClient>();
    await using t = startUpgrading({ listener, clock }, credentials, async (conn) => {
      await come(conn, clock, await client.promise);
      await conn.startTls(credentials);
    });
    client.resolve(await t.admitted());
    await (await client.promise).write("STARTTLS\n");
    assertEquals((await t.closed()).reason, "starttls-injection");
  });
}

test("a line handler gets no line in plain text that comes while it works, before it begins TLS", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials();
  const worked = Promise.withResolvers<void>();
  const lines: string[] = [];
  await using t = startServer({ listener, clock }, async (line, conn) => {
    lines.push(line);
    await worked.promise;
    await conn.startTls(credentials);
    return "encrypted";
  });
  const client = await t.admitted();
  await client.write("STARTTLS\n");
  await clock.advance(0);
  await client.write("NOOP\n");
  await clock.advance(0);
  worked.resolve();
  assertEquals((await t.closed()).reason, "starttls-injection");
  assertEquals([lines, await client.readAll().catch(() => "")], [["STARTTLS"], ""]);
});
