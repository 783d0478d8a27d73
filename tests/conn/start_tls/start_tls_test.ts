import { assertEquals, assertRejects } from "@std/assert";
import { type Conn, ConnectionClosedError, type TlsCredentialsHandle, type Transport } from "@x/shouty";
import { test } from "../../kit/bounded.ts";
import { FAKE_INFO, fakeCredentials, HELLO, readHidden, sendHidden } from "../../kit/fakes/fake_tls.ts";
import { inMemory, startConversations, startServer } from "../../kit/server.ts";
import { shakeHands, startUpgrading } from "../../kit/start_tls.ts";

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
