import { assertEquals, assertRejects } from "@std/assert";
import type { Transport } from "@x/shouty";
import { test } from "../../kit/bounded.ts";
import { fakeCredentials, HELLO, readHidden, scramble, sendHidden, SERVER_HELLO } from "../../kit/fakes/fake_tls.ts";
import { faulty, tapped } from "../../kit/faults.ts";
import { inMemory, startConversations } from "../../kit/server.ts";
import { startUpgrading } from "../../kit/start_tls.ts";

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
