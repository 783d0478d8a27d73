import { assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import {
  type Conn,
  ConnectionClosedError,
  type ServeOptions,
  type TlsCredentialsHandle,
  type Transport,
} from "@x/shouty";
import type { FakeClock, TestClient } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";
import {
  FAKE_INFO,
  fakeCredentials,
  HELLO,
  readHidden,
  scramble,
  sendHidden,
  SERVER_HELLO,
} from "../kit/fakes/fake_tls.ts";
import { faulty, tapped } from "../kit/faults.ts";
import { inMemory, startConversations, startServer, type TestServer } from "../kit/server.ts";

type Upgrade = (conn: Conn, line: string) => Promise<unknown>;

/** A server whose clients begin TLS with `STARTTLS`; it shouts, in both states. */
function startUpgrading(
  options: ServeOptions,
  credentials: TlsCredentialsHandle,
  upgrade: Upgrade = (conn) => (conn.write("go ahead\n"), conn.startTls(credentials)),
): TestServer {
  return startConversations(options, async (conn) => {
    for await (const line of conn.lines) {
      if (line === "STARTTLS") await upgrade(conn, line);
      else await conn.write(`${line.toUpperCase()}\n`);
    }
  });
}

/** Begins TLS as a client. */
async function shakeHands(client: TestClient): Promise<void> {
  await client.write("STARTTLS\n");
  assertEquals(await client.readLine(), "go ahead");
  await client.write(HELLO);
  assertEquals(await client.readBytes(SERVER_HELLO.length), SERVER_HELLO);
}

test("startTls keeps the connection, its limits and a loop over lines, and from then on all is encrypted", async () => {
  const { listener, clock } = inMemory();
  const seen: unknown[] = [];
  const credentials = fakeCredentials();
  await using t = startUpgrading({ listener, clock, maxLineBytes: 10 }, credentials, async (conn) => {
    seen.push(conn.tls);
    conn.write("go ahead\n");
    const info = await conn.startTls(credentials);
    seen.push(info, conn.tls);
  });
  const client = await t.admitted();
  await client.write("one\n");
  assertEquals(await client.readLine(), "ONE");
  await shakeHands(client);
  await sendHidden(client, "two\nthree\n");
  assertEquals(await readHidden(client, 10), "TWO\nTHREE\n");
  assertEquals(seen, [undefined, FAKE_INFO, FAKE_INFO]);
  await sendHidden(client, "longer than ten\n");
  assertEquals(await readHidden(client, 33), "error: line longer than 10 bytes\n");
  await client.closeWrite();
  assertEquals((await t.closed()).reason, "line-too-long");
});

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

for (let cut = 1; cut <= HELLO.length; cut++) {
  test(`a hello of which ${cut} bytes come with the command belongs to the handshake`, async () => {
    const { listener, clock } = inMemory();
    const credentials = fakeCredentials();
    await using t = startUpgrading({ listener, clock }, credentials);
    const client = await t.admitted();
    await client.write(Uint8Array.of(...new TextEncoder().encode("STARTTLS\n"), ...HELLO.subarray(0, cut)));
    assertEquals(await client.readLine(), "go ahead");
    await client.write(HELLO.subarray(cut));
    assertEquals(await client.readBytes(SERVER_HELLO.length), SERVER_HELLO);
    await sendHidden(client, "hidden\n");
    assertEquals(await readHidden(client, 7), "HIDDEN\n");
    assertEquals(credentials.firstBytes, [HELLO.slice(0, cut)]);
  });
}

test("bytes behind the hello, in one segment, are the first that are decrypted", async () => {
  const { listener, clock } = inMemory();
  await using t = startUpgrading({ listener, clock }, fakeCredentials());
  const client = await t.admitted();
  await client.write("STARTTLS\n");
  assertEquals(await client.readLine(), "go ahead");
  await client.write(Uint8Array.of(...HELLO, ...new TextEncoder().encode("early\n").map((byte) => byte ^ 0xa5)));
  assertEquals(await client.readBytes(SERVER_HELLO.length), SERVER_HELLO);
  assertEquals(await readHidden(client, 6), "EARLY\n");
});

/** A hello, with the beginning of an encrypted line behind it. */
const HELLO_AND_LINE = Uint8Array.of(...HELLO, ...scramble(new TextEncoder().encode("hid")));

for (const cut of [1, HELLO_AND_LINE.length]) {
  test(`${cut} bytes that were read while the handler worked, or waited in vain, begin TLS`, async () => {
    for (const wait of ["work", "read"]) {
      const { listener, clock } = inMemory();
      const credentials = fakeCredentials();
      await using t = startUpgrading({ listener, clock }, credentials, async (conn) => {
        conn.write("go ahead\n");
        if (wait === "work") await new Promise<void>((resolve) => clock.setTimer(resolve, 1000));
        else await assertRejects(() => conn.readUntil("|", { timeout: 1000 }), Deno.errors.TimedOut);
        await conn.startTls(credentials);
      });
      const client = await t.admitted();
      await client.write("STARTTLS\n");
      assertEquals(await client.readLine(), "go ahead");
      await clock.advance(500);
      await client.write(HELLO_AND_LINE.subarray(0, cut));
      await clock.advance(500);
      await client.write(HELLO_AND_LINE.subarray(cut));
      assertEquals(await client.readBytes(SERVER_HELLO.length), SERVER_HELLO);
      // The read that was taken over brings the rest of a line whose beginning the reader has by then.
      await clock.advance(0);
      await sendHidden(client, `den ${"x".repeat(1000)}\n`);
      assertEquals(await readHidden(client, 1008), `HIDDEN ${"X".repeat(1000)}\n`);
      assertEquals(credentials.firstBytes, [HELLO_AND_LINE.slice(0, cut)]);
      await client.closeWrite();
      assertEquals((await t.closed()).reason, "end");
    }
  });
}

test("a connection that is reset while a read is taken over ends, and nothing is left without a handler", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials();
  await using t = startUpgrading({ listener, clock }, credentials, async (conn) => {
    await new Promise<void>((resolve) => clock.setTimer(resolve, 1000));
    await conn.startTls(credentials);
  });
  const client = await t.admitted();
  await client.write("STARTTLS\n");
  await clock.advance(500);
  await client.write(HELLO.subarray(0, 1));
  await clock.advance(500);
  client.reset();
  assertEquals((await t.closed()).reason === "reset" || t.all("closed")[0].reason === "tls-handshake", true);
});

test("startTls takes over the read by which the server watches the peer of a busy handler", async () => {
  const { listener, clock } = inMemory();
  const worked = Promise.withResolvers<void>();
  const credentials = fakeCredentials();
  await using t = startUpgrading({ listener, clock }, credentials, async (conn) => {
    await worked.promise;
    conn.write("go ahead\n");
    await conn.startTls(credentials);
  });
  const client = await t.admitted();
  await client.write("STARTTLS\n");
  await clock.advance(1000);
  worked.resolve();
  assertEquals(await client.readLine(), "go ahead");
  await client.write(HELLO);
  assertEquals(await client.readBytes(SERVER_HELLO.length), SERVER_HELLO);
  await sendHidden(client, "hidden\n");
  assertEquals(await readHidden(client, 7), "HIDDEN\n");
  assertEquals(credentials.firstBytes, [HELLO]);
});

test("startTls takes over the read that a time limit has interrupted", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials();
  await using t = startUpgrading({ listener, clock }, credentials, async (conn) => {
    await assertRejects(() => conn.readLine({ timeout: 100 }), Deno.errors.TimedOut);
    conn.write("go ahead\n");
    await conn.startTls(credentials);
  });
  const client = await t.admitted();
  await client.write("STARTTLS\n");
  await clock.advance(100);
  assertEquals(await client.readLine(), "go ahead");
  await client.write(HELLO);
  assertEquals(await client.readBytes(SERVER_HELLO.length), SERVER_HELLO);
  await sendHidden(client, "hidden\n");
  assertEquals(await readHidden(client, 7), "HIDDEN\n");
});

test("what is written and broadcast during the handshake is sent after it, encrypted", async () => {
  const { listener, clock } = inMemory();
  const before = Promise.withResolvers<void>();
  const credentials = fakeCredentials({ before: before.promise });
  const begun = Promise.withResolvers<void>();
  await using t = startUpgrading({ listener, clock }, credentials, async (conn) => {
    conn.write("go ahead\n");
    const upgraded = conn.startTls(credentials);
    await conn.write("meanwhile\n");
    begun.resolve();
    await upgraded;
    await conn.flushed();
  });
  const client = await t.admitted();
  await shakeHands(client);
  await begun.promise;
  t.server.broadcast("to all\n");
  await clock.advance(100);
  before.resolve();
  assertEquals(await readHidden(client, 17), "meanwhile\nto all\n");
});

test("flushed and closeWrite wait for the end of the handshake", async () => {
  const { listener, clock } = inMemory();
  const before = Promise.withResolvers<void>();
  const credentials = fakeCredentials({ before: before.promise });
  const seen: string[] = [];
  const begun = Promise.withResolvers<void>();
  await using t = startUpgrading({ listener, clock }, credentials, async (conn) => {
    conn.write("go ahead\n");
    const upgraded = conn.startTls(credentials).then(() => seen.push("upgraded"));
    await begun.promise;
    conn.write("meanwhile\n");
    const flushed = conn.flushed().then(() => seen.push("flushed"));
    await Promise.all([upgraded, flushed, conn.closeWrite().then(() => seen.push("ended"))]);
  });
  const client = await t.admitted();
  await shakeHands(client);
  begun.resolve();
  await clock.advance(100);
  assertEquals(seen, []);
  before.resolve();
  assertEquals(await readHidden(client, 10), "meanwhile\n");
  assertEquals(await client.readAll(), "");
  await client.closeWrite();
  await t.closed();
  assertEquals(seen.toSorted(), ["ended", "flushed", "upgraded"]);
});

test("before the handshake, startTls sends all that was written, also to a peer that reads slowly", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 16 });
  const credentials = fakeCredentials();
  await using t = startUpgrading({ listener, clock }, credentials, async (conn) => {
    conn.write(`${"x".repeat(1000)}\n`);
    conn.write("go ahead\n");
    const upgraded = conn.startTls(credentials);
    conn.write("secret\n");
    await upgraded;
  });
  const client = await t.admitted();
  await client.write("STARTTLS\n");
  assertEquals(await client.readLine(), "x".repeat(1000));
  assertEquals(await client.readLine(), "go ahead");
  await client.write(HELLO);
  assertEquals(await client.readBytes(SERVER_HELLO.length), SERVER_HELLO);
  assertEquals(await readHidden(client, 7), "secret\n");
});

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

test("a handshake has its own time: no other clock runs, and when it is up the connection ends", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials({ handshakeTimeout: 5000 });
  const options = { listener, clock, idleTimeout: 1000, handlerTimeout: 1000 };
  await using t = startUpgrading(options, credentials);
  const client = await t.admitted();
  await client.write("STARTTLS\n");
  assertEquals(await client.readLine(), "go ahead");
  await clock.advance(4999);
  assertEquals(t.all("closed"), []);
  await clock.advance(1);
  const { reason, error } = await t.closed();
  assertEquals([reason, (error as Error).message], ["tls-handshake", "No TLS handshake within 5000 ms"]);
  assertEquals(await client.readAll(), "");
});

test("credentials with nothing but the method accept will do, and then a handshake has ten seconds", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials();
  const accept: TlsCredentialsHandle["accept"] = (transport, bytes) => credentials.accept(transport, bytes);
  await using t = startUpgrading({ listener, clock, idleTimeout: 1000, handlerTimeout: 1000 }, { accept });
  const quick = await t.admitted();
  await shakeHands(quick);
  quick.close();
  await t.closed();
  const client = await t.admitted();
  await client.write("STARTTLS\n");
  assertEquals(await client.readLine(), "go ahead");
  await clock.advance(9999);
  assertEquals(t.all("closed").length, 1);
  await clock.advance(1);
  const { reason, error } = await t.closed(2);
  assertEquals([reason, (error as Error).message], ["tls-handshake", "No TLS handshake within 10000 ms"]);
});

test("after the handshake the other clocks run again", async () => {
  const { listener, clock } = inMemory();
  await using t = startUpgrading({ listener, clock, idleTimeout: 1000 }, fakeCredentials());
  const client = await t.admitted();
  await shakeHands(client);
  await clock.advance(999);
  assertEquals(t.all("closed"), []);
  await clock.advance(1);
  assertEquals((await t.closed()).reason, "idle");
});

test("after the handshake a handler that hangs is ended by its own clock", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials();
  await using t = startUpgrading({ listener, clock, handlerTimeout: 1000 }, credentials, async (conn) => {
    conn.write("go ahead\n");
    await conn.startTls(credentials);
    await new Promise((resolve) => conn.signal.addEventListener("abort", resolve));
  });
  const client = await t.admitted();
  await shakeHands(client);
  await clock.advance(1000);
  await client.closeWrite();
  assertEquals((await t.closed()).reason, "handler-timeout");
});

test("startTls is refused while a read has not settled, in a body, twice, and without credentials", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials();
  const messages: string[] = [];
  const refuse = async (call: Promise<unknown>) => messages.push((await assertRejects(() => call, TypeError)).message);
  await using t = startConversations({ listener, clock }, async (conn) => {
    const line = conn.readLine();
    await refuse(conn.startTls(credentials));
    assertEquals(await line, "STARTTLS");
    const body = conn.readStream(4);
    await refuse(conn.startTls(credentials));
    assertEquals(await new Response(body).text(), "body");
    await refuse(conn.startTls({} as TlsCredentialsHandle));
    await refuse(conn.startTls({ ...credentials, handshakeTimeout: "1s" as never }));
    conn.write("go ahead\n");
    const upgraded = conn.startTls(credentials);
    await refuse(conn.startTls(credentials));
    await refuse(conn.readLine());
    await upgraded;
    await refuse(conn.startTls(credentials));
  });
  const client = await t.admitted();
  await client.write("STARTTLS\nbody");
  assertEquals(await client.readLine(), "go ahead");
  await client.write(HELLO);
  await client.closeWrite();
  assertEquals([(await t.closed()).reason, t.all("handler-error").map(({ error }) => error)], ["closed", []]);
  assertEquals(messages, [
    "Cannot begin TLS: a read has not settled, or the rest of a body has not come",
    "Cannot begin TLS: a read has not settled, or the rest of a body has not come",
    "Cannot use credentials: expected credentials from tlsCredentials, got an object without the method accept",
    'Cannot use handshakeTimeout "1s": expected a number',
    "Cannot begin TLS: the connection begins it already",
    "Cannot read: another read of this connection has not settled",
    "Cannot begin TLS: the connection is encrypted already",
  ]);
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

test("a client that ends its side right behind its hello gets its handshake", async () => {
  const { listener, clock } = inMemory();
  const worked = Promise.withResolvers<void>();
  const credentials = fakeCredentials();
  await using t = startUpgrading({ listener, clock }, credentials, async (conn) => {
    await worked.promise;
    await conn.startTls(credentials);
  });
  const client = await t.admitted();
  await client.write("STARTTLS\n");
  await client.write(HELLO);
  await client.closeWrite();
  // The server notices the end while the handler works.
  await clock.advance(1000);
  await clock.advance(1000);
  worked.resolve();
  assertEquals(await client.readBytes(SERVER_HELLO.length), SERVER_HELLO);
  assertEquals((await t.closed()).reason, "end");
});

test("after a slow handshake no clock of the peer runs while the handler works", async () => {
  const { listener, clock } = inMemory();
  const [before, worked] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const credentials = fakeCredentials({ handshakeTimeout: 60_000, before: before.promise });
  await using t = startUpgrading({ listener, clock }, credentials, async (conn) => {
    conn.write("go ahead\n");
    await conn.startTls(credentials);
    await worked.promise;
  });
  const client = await t.admitted();
  await shakeHands(client);
  await clock.advance(30_000);
  before.resolve();
  await clock.advance(0);
  await clock.advance(60_000);
  assertEquals(t.all("closed"), []);
  worked.resolve();
  await sendHidden(client, "hidden\n");
  assertEquals(await readHidden(client, 7), "HIDDEN\n");
});

test("a shutdown with finish lets the handshake end, and then the connection at the next boundary", async () => {
  const { listener, clock } = inMemory();
  const before = Promise.withResolvers<void>();
  const credentials = fakeCredentials({ before: before.promise });
  await using t = startUpgrading({ listener, clock }, credentials);
  const client = await t.admitted();
  await shakeHands(client);
  const stopped = t.server.shutdown({ drain: "finish" });
  await sendHidden(client, "last\n");
  before.resolve();
  assertEquals(await readHidden(client, 5), "LAST\n");
  assertEquals(await client.readAll(), "");
  await client.closeWrite();
  assertEquals((await stopped).closed, { drained: 1 });
});

test("a line handler can begin TLS", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials();
  await using t = startServer({ listener, clock }, async (line, conn) => {
    if (line !== "STARTTLS") return line.toUpperCase();
    conn.write("go ahead\n");
    await conn.startTls(credentials);
  });
  const client = await t.admitted();
  await shakeHands(client);
  await sendHidden(client, "hidden\n");
  assertEquals(await readHidden(client, 7), "HIDDEN\n");
});

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

test("a line handler cannot begin TLS while it answers no line, nor in a block", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials();
  const conns: Conn[] = [];
  const block = async (lines: string, conn: Conn) => {
    conns.push(conn);
    return `${(await assertRejects(() => conn.startTls(credentials), TypeError)).message}\n`.repeat(lines.length / 2);
  };
  await using t = startServer({ listener, clock }, Object.assign(() => "", { block }));
  const client = await t.admitted();
  await client.write("1\n2\n");
  const message = "Cannot begin TLS in handler.block: lines that it has got already came in plain text";
  assertEquals([await client.readLine(), await client.readLine()], [message, message]);
  await clock.advance(0);
  const error = await assertRejects(() => conns[0].startTls(credentials), TypeError);
  assertEquals(error.message, "Cannot begin TLS: a line handler can do that only while it answers a line");
  assertEquals(credentials.handshakes, 0);
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

test("answerMisdirected does not take the hello of a handler that begins TLS at once for a mistake", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials();
  await using t = startConversations({ listener, clock, answerMisdirected: true }, async (conn) => {
    await conn.startTls(credentials);
    for await (const line of conn.lines) await conn.write(`${line.toUpperCase()}\n`);
  });
  const client = await t.admitted();
  await client.write(HELLO);
  assertEquals(await client.readBytes(SERVER_HELLO.length), SERVER_HELLO);
  await sendHidden(client, "hidden\n");
  assertEquals(await readHidden(client, 7), "HIDDEN\n");
});

test("what is held back during a handshake counts as memory, so that a silent client cannot make others wait", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials();
  const options = { listener, clock, maxBufferedBytes: 100_000, maxQueuedBytes: 200_000 };
  await using t = startUpgrading(options, credentials);
  const silent = await t.admitted();
  await silent.write("STARTTLS\n");
  assertEquals(await silent.readLine(), "go ahead");
  const other = await t.admitted();
  const news = `${"x".repeat(150_000)}\n`;
  t.server.broadcast(news);
  assertEquals(await other.readLine(), news.trimEnd());
  await other.write("hello\n");
  assertEquals(await other.readLine(), "HELLO");
  assertEquals((await t.closed()).reason, "memory");
});

test("credentials that return no transport, or one without TLS, end the connection", async () => {
  const plain = (transport: Transport) => transport;
  const wrong: [accept: (transport: Transport) => unknown, message: string][] = [
    [() => undefined, "Cannot use what accept returned: expected a transport, got undefined"],
    [
      () => ({ tls: FAKE_INFO }),
      "Cannot use what accept returned: expected a transport, got an object without the method read",
    ],
    [plain, "Cannot use the tls of what accept returned: expected an object, got undefined"],
  ];
  for (const [accept, message] of wrong) {
    const { listener, clock } = inMemory();
    const credentials = {
      handshakeTimeout: 1000,
      accept: (transport: Transport) => Promise.resolve(accept(transport)),
    };
    await using t = startUpgrading({ listener, clock }, credentials as TlsCredentialsHandle);
    const client = await t.admitted();
    await client.write("STARTTLS\n");
    assertEquals(await client.readLine(), "go ahead");
    await client.write(HELLO);
    assertEquals(await client.readAll(), "");
    await client.closeWrite();
    const { reason, error } = await t.closed();
    assertEquals([reason, (error as Error).message], ["tls-handshake", message]);
  }
});

test("startTls is refused once this side has ended, for a handshake could not be answered, and the input goes on", async () => {
  const { listener, clock } = inMemory();
  const credentials = fakeCredentials();
  const lines: (string | null)[] = [];
  await using t = startUpgrading({ listener, clock }, credentials, async (conn) => {
    conn.closeWrite();
    const error = await assertRejects(() => conn.startTls(credentials), ConnectionClosedError);
    assertEquals([error.message, conn.ending], ["Cannot begin TLS: this side has ended", undefined]);
    lines.push(await conn.readLine());
  });
  const client = await t.admitted();
  await client.write("STARTTLS\nplain\n");
  assertEquals(await client.readAll(), "");
  await client.closeWrite();
  assertEquals([(await t.closed()).reason, lines, credentials.handshakes], ["end", ["plain"], 0]);
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

test("what is held back goes on to count when the client has taken what came before it", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 4 });
  const credentials = fakeCredentials();
  await using t = startUpgrading({ listener, clock, maxBufferedBytes: 150_000 }, credentials, async (conn) => {
    conn.write("go ahead\n");
    const upgraded = conn.startTls(credentials);
    conn.write("x".repeat(100_000));
    await upgraded;
  });
  for (let i = 0; i < 2; i++) {
    const silent = await t.admitted();
    await silent.write("STARTTLS\n");
    // The second one passes the limit, so one of the two is reset, perhaps while it reads.
    await silent.readLine().catch(() => {});
    await clock.advance(0);
  }
  const other = await t.admitted();
  await other.write("hello\n");
  assertEquals(await other.readLine(), "HELLO");
  assertEquals((await t.closed()).reason, "memory");
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

test("the server does not watch for a reset beside TLS, which would end the connection before what had come is read", async () => {
  const { listener, clock } = inMemory();
  let watched = 0;
  const credentials = fakeCredentials();
  const options = { listener: tapped(listener, () => ({ onReset: () => void watched++ })), clock };
  await using t = startUpgrading(options, credentials);
  const client = t.own(listener.connect());
  await client.write("STARTTLS\n");
  assertEquals(await client.readLine(), "go ahead");
  await clock.advance(0);
  await client.write(HELLO);
  assertEquals(await client.readBytes(SERVER_HELLO.length), SERVER_HELLO);
  await sendHidden(client, "hidden\n");
  assertEquals(await readHidden(client, 7), "HIDDEN\n");
  assertEquals(watched, 0);
});

test("a client that resets in place of a ClientHello has failed the handshake", async () => {
  const { listener, clock } = inMemory();
  const second = Promise.withResolvers<number>();
  let reads = 0;
  const read = (inner: Transport) => (into: Uint8Array) => reads++ === 0 ? inner.read(into) : second.promise;
  const options = { listener: tapped(listener, (inner) => ({ read: read(inner) })), clock };
  await using t = startUpgrading(options, fakeCredentials());
  const client = t.own(listener.connect());
  await client.write("STARTTLS\n");
  assertEquals(await client.readLine(), "go ahead");
  await clock.advance(0);
  second.reject(new Deno.errors.ConnectionReset("Reset by the test"));
  assertEquals((await t.closed()).reason, "tls-handshake");
});

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

for (const when of ["together with the command", "after the go-ahead"]) {
  test(`a client that ends its side in place of a ClientHello, ${when}, has failed the handshake`, async () => {
    const { listener, clock } = inMemory();
    const misuse: string[] = [];
    await using t = startUpgrading({ listener: faulty(listener, { misuse }), clock }, fakeCredentials());
    const client = t.own(listener.connect());
    await client.write("STARTTLS\n");
    if (when === "after the go-ahead") assertEquals(await client.readLine(), "go ahead");
    await client.closeWrite();
    const { reason, bytesIn } = await t.closed();
    assertEquals([reason, bytesIn, misuse], ["tls-handshake", 9, []]);
  });
}
