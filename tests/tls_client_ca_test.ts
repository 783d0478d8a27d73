import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { test } from "./bounded.ts";
import { Authority, type Identity, makeIdentity } from "./certificates.ts";
import { AUTHORITY, startTls } from "./tls.ts";

const CLIENTS = new Authority("client authority");

test("With clientCa, a client with a certificate by that authority is served", async () => {
  await using t = await startTls({ clientCa: CLIENTS.cert });
  const client = await t.connectTls(makeIdentity("known", { by: CLIENTS }));
  await client.write("hello\n");
  assertEquals(await client.readLine(), "HELLO");
});

test("With several authorities in clientCa, a client of any is served", async () => {
  const others = new Authority("other clients");
  await using t = await startTls({ clientCa: others.cert + CLIENTS.cert });
  for (const by of [others, CLIENTS]) {
    const client = await t.connectTls(makeIdentity("known", { by }));
    await client.write("hello\n");
    assertEquals(await client.readLine(), "HELLO");
  }
});

/** Somebody with the authority's name, but not its key. */
const impostor = new Authority(CLIENTS.name);

const REFUSED: [what: string, identity: Partial<Identity>, message: RegExp][] = [
  ["no certificate", {}, /^peer sent no certificates$/],
  ["its own certificate", makeIdentity("self"), /^The client's certificate does not hold/],
  ["the server's authority's certificate", makeIdentity("known", { by: AUTHORITY }), /^The client's .* does not hold/],
  ["an impostor's certificate", makeIdentity("known", { by: impostor }), /^The client's certificate does not hold/],
  [
    "an expired certificate",
    makeIdentity("known", { by: CLIENTS, days: [-10, -1] }),
    /^The client's certificate does not hold \(it expired on 20/,
  ],
  [
    "a certificate from the future",
    makeIdentity("known", { by: CLIENTS, days: [1, 10] }),
    /^The client's certificate does not hold \(it does not hold before 20/,
  ],
];

for (const [what, identity, message] of REFUSED) {
  test(`With clientCa, a client with ${what} is turned away, and nothing that it sends is heard`, async () => {
    await using t = await startTls({ clientCa: CLIENTS.cert });
    const client = await t.connectTls(identity);
    await client.write("hello\n").catch(() => {});
    await assertRejects(() => client.read());
    const { reason, error } = await t.until("rejected");
    assertEquals(reason, "tls-handshake");
    assertMatch((error as Error).message, message);
    assertEquals(t.stats.accepted, 0);
  });
}

test("A reload without clientCa keeps the one that the reload before it brings, though that is under way", async () => {
  await using t = await startTls({ clientCa: AUTHORITY.cert });
  const credentials = makeIdentity("renewed", { by: AUTHORITY });
  await Promise.all([t.listener.reload({ ...credentials, clientCa: CLIENTS.cert }), t.listener.reload(credentials)]);
  const client = await t.connectTls(makeIdentity("known", { by: CLIENTS }));
  await client.write("hello\n");
  assertEquals(await client.readLine(), "HELLO");
});

test("Without clientCa, no certificate is asked for, and one that is there is no matter", async () => {
  await using t = await startTls();
  const client = await t.connectTls(makeIdentity("anybody"));
  await client.write("hello\n");
  assertEquals(await client.readLine(), "HELLO");
});
