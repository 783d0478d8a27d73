import { assertEquals, assertMatch } from "@std/assert";
import { Authority, type Identity, makeIdentity } from "../../kit/certificates.ts";
import type { Subprocess } from "../../kit/command.ts";
import { openssl, test, withFiles } from "../../kit/foreign/openssl.ts";
import { AUTHORITY, startTls, type TlsServer } from "../../kit/tls.ts";

const CLIENTS = new Authority("client authority");
const OTHERS = new Authority("other clients");
const KNOWN = makeIdentity("known", { by: CLIENTS });
const REFUSED = /^The client's certificate is not valid \(it resumes a session without a certificate that was verified/;

/** A client with a certificate, which keeps its session in a file. */
async function withSession({ cert, key }: Identity, version: string) {
  const file = await withFiles({ "client.pem": cert, "client.key": key });
  const session = file("session");
  const own = ["-cert", file("client.pem"), "-key", file("client.key"), "-sess_out", session];
  return {
    /** Connects with a full handshake and the certificate. */
    first: (t: TlsServer) => openssl(t, version, ...own),
    /** Connects with the session, and without the certificate. */
    again: (t: TlsServer) => openssl(t, version, "-sess_in", session),
    /** Whether the session was stored. */
    kept: () => Deno.stat(session).then(() => true, () => false),
    [Symbol.asyncDispose]: () => file[Symbol.asyncDispose](),
  };
}

/** Sends a line, checks the reply, and ends the client; returns its output. */
async function served(client: Subprocess): Promise<string> {
  await using _ = client;
  await client.type("hello\n");
  await client.stdoutMatch(/HELLO/);
  await client.endInput();
  return (await client.outcome()).stdout;
}

/** Checks that the server rejects a client; returns the error's message. */
async function refused(t: TlsServer, client: Subprocess, count = 1): Promise<string> {
  await using _ = client;
  await client.type("hello\n");
  const { reason, error } = await t.until("rejected", count);
  assertEquals(reason, "tls-handshake");
  assertEquals(/HELLO/.test((await client.outcome()).stdout), false);
  return (error as Error).message;
}

for (const [version, name] of [["-tls1_2", "TLSv1.2"], ["-tls1_3", "TLSv1.3"]]) {
  test(`A client that is refused gets no session that it could resume, with ${name}`, async () => {
    for (const identity of [makeIdentity("stranger"), makeIdentity("stranger", { by: OTHERS })]) {
      await using t = await startTls({ clientCa: CLIENTS.cert });
      await using stranger = await withSession(identity, version);
      assertMatch(await refused(t, stranger.first(t)), /^The client's certificate is not valid/);
      assertEquals(await stranger.kept(), false);
      assertEquals(t.stats.accepted, 0);
    }
  });

  test(`A client that was served resumes its session without a certificate, and is served, with ${name}`, async () => {
    await using t = await startTls({ clientCa: CLIENTS.cert });
    await using known = await withSession(KNOWN, version);
    assertMatch(await served(known.first(t)), new RegExp(`New, ${name}`));
    assertMatch(await served(known.again(t)), new RegExp(`Reused, ${name}`));
  });

  test(`A session is refused once the authority behind it is not trusted any more, with ${name}`, async () => {
    await using t = await startTls({ clientCa: CLIENTS.cert });
    await using known = await withSession(KNOWN, version);
    await served(known.first(t));
    await t.reload({});
    assertMatch(await served(known.again(t)), /Reused/, "Other credentials, the same authority");
    await t.listener.reload({ ...makeIdentity("server", { by: AUTHORITY }), clientCa: OTHERS.cert });
    assertMatch(await refused(t, known.again(t)), REFUSED);
    await t.listener.reload({ ...makeIdentity("server", { by: AUTHORITY }), clientCa: CLIENTS.cert });
    assertMatch(await refused(t, known.again(t), 2), REFUSED, "What was verified before is forgotten");
  });

  test(`A session lives on when an authority is added to the one behind it, with ${name}`, async () => {
    await using t = await startTls({ clientCa: CLIENTS.cert });
    await using known = await withSession(KNOWN, version);
    await served(known.first(t));
    await t.listener.reload({ ...makeIdentity("server", { by: AUTHORITY }), clientCa: OTHERS.cert + CLIENTS.cert });
    assertMatch(await served(known.again(t)), /Reused/);
  });

  test(`A session that began at another listener is refused where certificates are asked for, with ${name}`, async () => {
    await using t = await startTls({ clientCa: CLIENTS.cert });
    for (const [i, clientCa] of [OTHERS.cert, undefined].entries()) {
      await using elsewhere = await startTls({ clientCa });
      await using client = await withSession(makeIdentity("other", { by: OTHERS }), version);
      await served(client.first(elsewhere));
      assertMatch(await refused(t, client.again(t), i + 1), REFUSED);
    }
    assertEquals(t.stats.accepted, 0);
  });
}
