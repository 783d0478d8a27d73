import { assertEquals, assertRejects } from "@std/assert";
import { TlsCredentialsError } from "@x/shouty/ops";
import { FakeClock, TestClient } from "@x/shouty/testing";
import { test } from "../../kit/bounded.ts";
import { Authority, makeIdentity } from "../../kit/certificates.ts";
import { AUTHORITY, IDENTITY, startTls } from "../../kit/tls.ts";

const OTHER = new Authority("other authority");
const NEW_IDENTITY = makeIdentity("new server", { by: OTHER });
const KNOWS_NEW = { caCerts: [OTHER.cert] };

test("A reload gives the new certificate to new connections, and does not affect open ones", async () => {
  await using t = await startTls();
  const before = await t.connectTls();
  await t.reload(NEW_IDENTITY);
  assertEquals(t.listener.certificate.subject, "CN=new server");
  const after = await t.connectTls(KNOWS_NEW);
  await assertRejects(() => t.connectTls(), Error, "UnknownIssuer");
  for (const client of [before, after]) {
    await client.write("hello\n");
    assertEquals(await client.readLine(), "HELLO");
  }
});

test("A reload leaves a handshake that has begun to finish with what it began with", async () => {
  const clock = new FakeClock();
  await using t = await startTls({ clock });
  const conn = await Deno.connect({ port: t.port });
  // The handshake's deadline is set.
  while (clock.pending === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  await t.reload(NEW_IDENTITY);
  const secure = await Deno.startTls(conn, { hostname: "127.0.0.1", caCerts: [AUTHORITY.cert] });
  await secure.handshake();
  const client = t.own(new TestClient(secure));
  await client.write("hello\n");
  assertEquals(await client.readLine(), "HELLO");
});

test("Under load, reloads refuse and drop no client, not even those that fail", async () => {
  await using t = await startTls();
  let loading = true;
  let served = 0;
  const load = async () => {
    for (; loading; served++) {
      const conn = await Deno.connectTls({ port: t.port, caCerts: [AUTHORITY.cert, OTHER.cert] });
      using client = new TestClient(conn);
      await client.write("hello\n");
      assertEquals(await client.readLine(), "HELLO");
      await client.closeWrite();
      assertEquals(await client.readLine(), null);
    }
  };
  const loads = Array.from({ length: 8 }, load);
  const long = await t.connectTls();
  for (let i = 0; i < 10; i++) {
    const goal = served + 10;
    await t.reload(i % 2 === 0 ? NEW_IDENTITY : IDENTITY);
    await assertRejects(() => t.reload({ cert: "nonsense" }), TlsCredentialsError);
    while (served < goal) await new Promise((resolve) => setTimeout(resolve, 1));
    await long.write("hello\n");
    assertEquals(await long.readLine(), "HELLO");
  }
  loading = false;
  await Promise.all(loads);
  await t.closed(served);
  assertEquals(t.all("rejected"), []);
  assertEquals(t.all("accept-error"), []);
  assertEquals(t.stats.closed.end, served);
}, 60);

test("A reload keeps on demanding certificates from clients", async () => {
  const clients = new Authority("client authority");
  await using t = await startTls({ clientCa: clients.cert });
  await t.listener.reload(NEW_IDENTITY);
  const stranger = await t.connectTls(KNOWS_NEW);
  await assertRejects(() => stranger.read());
  const known = await t.connectTls({ ...KNOWS_NEW, ...makeIdentity("known", { by: clients }) });
  await known.write("hello\n");
  assertEquals(await known.readLine(), "HELLO");
});
