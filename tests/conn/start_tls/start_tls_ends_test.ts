import { assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { type Conn, ConnectionClosedError, type ServeOptions, type TlsCredentialsHandle } from "@x/shouty";
import type { TestClient } from "@x/shouty/testing";
import { test } from "../../kit/bounded.ts";
import { fakeCredentials, HELLO } from "../../kit/fakes/fake_tls.ts";
import { faulty } from "../../kit/faults.ts";
import { inMemory, startConversations, type TestServer } from "../../kit/server.ts";
import { shakeHands, startUpgrading } from "../../kit/start_tls.ts";

test("a handshake that fails ends the connection with tls-handshake, and nothing that was written leaves", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials();
  const failed = Promise.withResolvers<unknown>();
  await using t = startUpgrading({ listener, clock, lastWords: () => "last" }, credentials, async (conn) => {
    conn.write("go ahead\n");
    const upgraded = conn.startTls(credentials);
    conn.write("secret\n");
    failed.resolve(await upgraded.catch((error) => error));
    await assertRejects(() => conn.write("secret\n"), ConnectionClosedError);
  });
  const client = await t.admitted();
  await client.write("STARTTLS\n");
  assertEquals(await client.readLine(), "go ahead");
  // More than the handshake reads: the end must be graceful, or the kernel would destroy the alert of a real handshake.
  await client.write(`GET / HTTP/1.1\n${"x".repeat(1000)}`);
  assertEquals(await client.readAll(), "");
  await client.closeWrite();
  const error = await failed.promise;
  assertInstanceOf(error, ConnectionClosedError);
  assertEquals([error.reason, (error.cause as Error).message], ["tls-handshake", "This is no hello"]);
  const { reason, error: cause } = await t.closed();
  assertEquals([reason, (cause as Error).message], ["tls-handshake", "This is no hello"]);
});

/** Ends of the input behind which a handler may still write, and what brings them about. */
const INPUT_ENDS: Readonly<Record<string, [ServeOptions, (client: TestClient, t: TestServer) => Promise<unknown>]>> = {
  "line-too-long": [{ maxLineBytes: 3 }, (client) => client.write("too long\n")],
  "idle": [{ idleTimeout: 10 }, () => Promise.resolve()],
  "drained": [{}, (_, t) => Promise.resolve(void t.server.shutdown({ drain: "finish" }))],
};

for (const [reason, [options, end]] of Object.entries(INPUT_ENDS)) {
  test(`TLS that is to begin after the end of the input, ${reason}, does not, and what follows the call stays secret`, async () => {
    const { listener, clock } = inMemory();
    const credentials = fakeCredentials();
    const failed = Promise.withResolvers<unknown>();
    await using t = startConversations({ listener, clock, ...options }, async (conn) => {
      while (await conn.readLine() !== null);
      conn.write("go ahead\n");
      const upgraded = conn.startTls(credentials);
      conn.write("secret\n");
      failed.resolve(await upgraded.catch((error) => error));
      await assertRejects(() => conn.write("secret\n"), ConnectionClosedError);
    });
    const client = await t.admitted();
    await end(client, t);
    await clock.advance(10);
    assertEquals(await client.readAll(), "go ahead\n");
    await client.closeWrite();
    const error = await failed.promise;
    assertInstanceOf(error, ConnectionClosedError);
    assertEquals([error.reason, (await t.closed()).reason, credentials.handshakes], [reason, reason, 0]);
  });
}

test("a connection that is aborted while the last plain text is sent begins no TLS, and leaves no timer", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 1 });
  const credentials = fakeCredentials();
  await using t = startConversations({ listener, clock }, async (conn) => {
    assertEquals([await conn.readLine(), conn.ending], [null, "end"]);
    conn.write("go ahead\n");
    const error = await assertRejects(() => conn.startTls(credentials), ConnectionClosedError);
    assertEquals(error.reason, "reset");
  });
  const client = await t.admitted();
  await client.closeWrite();
  await clock.advance(0);
  client.reset();
  assertEquals((await t.closed()).reason, "reset");
  await clock.advance(0);
  assertEquals([credentials.handshakes, clock.pending], [0, 0]);
});

test("a connection that is aborted just before the handshake never gets to the credentials", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials();
  await using t = startConversations({ listener, clock }, async (conn) => {
    const upgraded = conn.startTls(credentials);
    conn.writable.abort();
    const error = await assertRejects(() => upgraded, ConnectionClosedError);
    assertEquals(error.reason, "closed");
  });
  await t.connect();
  assertEquals([(await t.closed()).reason, credentials.handshakes], ["closed", 0]);
});

test("a handshake that fails behind the end of the input is the reason that the handler gets", async () => {
  const { listener, clock } = inMemory();
  const failed = Promise.withResolvers<unknown>();
  await using t = startConversations({ listener, clock }, async (conn) => {
    await conn.readLine();
    failed.resolve(await conn.startTls(fakeCredentials()).catch((error) => error));
  });
  const client = await t.admitted();
  await client.closeWrite();
  assertEquals(((await failed.promise) as ConnectionClosedError).reason, "tls-handshake");
  assertEquals((await t.closed()).reason, "tls-handshake");
});

/** What ends a connection in mid-handshake, and the time that it takes, in milliseconds. */
const ENDS: Readonly<Record<string, readonly [number, (conn: Conn, t: TestServer) => void]>> = {
  "closed": [0, (conn) => conn.close({ lastWord: "secret" })],
  "deadline": [100, (conn) => conn.setDeadline(100)],
  "drain-timeout": [100, (_, t) => void t.server.shutdown({ drainTimeout: 100 })],
  "max-age": [10_011, (conn) => conn.setLimits({ maxAge: 10 })],
};

for (const [reason, [time, end]] of Object.entries(ENDS)) {
  test(`a connection that ends with ${reason} during the handshake says nothing more in plain text`, async () => {
    const { listener, clock } = inMemory();
    const credentials = fakeCredentials({ handshakeTimeout: Infinity });
    await using t = startUpgrading({ listener, clock, lastWords: () => "last" }, credentials, async (conn) => {
      conn.write("go ahead\n");
      const upgraded = conn.startTls(credentials);
      conn.write("secret\n");
      end(conn, t);
      const error = await assertRejects(() => upgraded, ConnectionClosedError);
      assertEquals(error.reason, reason);
      throw error;
    });
    const client = await t.admitted();
    await client.write("STARTTLS\n");
    // `max-age` asks the connection to finish, and ends it 10 s later.
    if (reason === "max-age") await clock.advance(11);
    await clock.advance(Math.min(time, 10_000));
    await assertRejects(() => client.readAll(), Deno.errors.ConnectionReset);
    assertEquals([(await t.closed()).reason, t.all("handler-error")], [reason, []]);
  });
}

test("a handshake that succeeds just after the connection has ended leaves nothing open", async () => {
  const { listener, clock } = inMemory();
  const before = Promise.withResolvers<void>();
  const credentials = fakeCredentials({ before: before.promise });
  const failed = Promise.withResolvers<unknown>();
  await using t = startUpgrading({ listener, clock }, credentials, async (conn) => {
    conn.write("go ahead\n");
    failed.resolve(await conn.startTls(credentials).catch((error) => error));
  });
  const client = await t.admitted();
  await shakeHands(client);
  t.server.shutdown({ drainTimeout: 1 });
  await clock.advance(1);
  assertEquals((await t.closed()).reason, "drain-timeout");
  before.resolve();
  await clock.advance(0);
  assertEquals(credentials.closed, 1);
  assertEquals(
    `${await failed.promise}`,
    "ConnectionClosedError: Cannot begin TLS: the connection has ended (drain-timeout)",
  );
});

test("a connection that ends before the handshake, while output waits for the peer, begins none", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 16 });
  const credentials = fakeCredentials();
  const failed = Promise.withResolvers<unknown>();
  await using t = startUpgrading({ listener, clock }, credentials, async (conn) => {
    conn.write(`${"x".repeat(1000)}\n`);
    const upgraded = conn.startTls(credentials);
    conn.close();
    failed.resolve(await upgraded.catch((error) => error));
  });
  const client = await t.admitted();
  await client.write("STARTTLS\n");
  assertEquals((await t.closed()).reason, "closed");
  const error = await failed.promise;
  assertInstanceOf(error, ConnectionClosedError);
  assertEquals([error.reason, credentials.handshakes], ["closed", 0]);
});

test("a handshake that cannot write, while it reads, ends the connection without another read", async () => {
  const { listener, clock } = inMemory();
  const misuse: string[] = [];
  const gone = new Deno.errors.BrokenPipe("gone");
  const credentials: TlsCredentialsHandle = {
    handshakeTimeout: 1000,
    accept(transport) {
      transport.read(new Uint8Array(1)).catch(() => {});
      return Promise.reject(gone);
    },
  };
  await using t = startUpgrading({ listener: faulty(listener, { misuse }), clock }, credentials);
  const client = t.own(listener.connect());
  await client.write("STARTTLS\n");
  assertEquals(await client.readLine(), "go ahead");
  await client.write(HELLO);
  const { reason, error } = await t.closed();
  assertEquals([reason, error, misuse], ["tls-handshake", gone, []]);
});
