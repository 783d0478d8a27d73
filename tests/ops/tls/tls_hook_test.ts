import { assertEquals, assertRejects } from "@std/assert";
import { type HandshakeEvent, listenTls, ServerMetrics, tlsCredentials } from "@x/shouty/ops";
import { FakeClock } from "@x/shouty/testing";
import { test, testOnce } from "../../kit/bounded.ts";
import { startConversations } from "../../kit/server.ts";
import { AUTHORITY, IDENTITY, shakeHands, startTls } from "../../kit/tls.ts";

/** A hook that keeps what it gets. */
function recorder() {
  const events: HandshakeEvent[] = [];
  let news = Promise.withResolvers<void>();
  return {
    events,
    onHandshake(event: HandshakeEvent) {
      events.push(event);
      news.resolve();
      news = Promise.withResolvers();
    },
    /** Waits until `count` handshakes have ended; returns how. */
    async outcomes(count: number): Promise<unknown[]> {
      const ended = () => events.filter((event) => event.type === "ended");
      while (ended().length < count) await news.promise;
      return ended().map(({ tls, failure }) => failure ?? tls?.version);
    },
  };
}

test("A hook gets each handshake of a listener, and why it failed", async () => {
  const seen = recorder();
  const clock = new FakeClock();
  await using t = await startTls({ clock, onHandshake: seen.onHandshake });
  assertEquals(await t.talkTls("hello"), "HELLO\n");
  const gone = await t.connect();
  gone.close();
  await seen.outcomes(2);
  const half = await t.connect();
  await half.write(Uint8Array.of(22));
  half.close();
  await seen.outcomes(3);
  const plain = await t.connect();
  await plain.write("hello\n");
  await seen.outcomes(4);
  const silent = await t.connect();
  await silent.write(Uint8Array.of(22));
  while (seen.events.length < 9) await new Promise((resolve) => setTimeout(resolve, 1));
  await clock.advance(10_000);
  assertEquals(await seen.outcomes(5), ["TLSv1.3", "peer-left", "peer-ended", "refused", "cut-off"]);
  assertEquals(seen.events.filter(({ type }) => type === "begun").length, 5);
  for (const event of seen.events) if (event.type === "ended") assertEquals(event.durationMs >= 0, true);
});

test("The same hook gets the handshakes of startTls", async () => {
  const seen = recorder();
  const credentials = await tlsCredentials({ ...IDENTITY, onHandshake: seen.onHandshake });
  await using t = startConversations({}, async (conn) => {
    await conn.readLine();
    await conn.startTls(credentials);
    await conn.write("secure\n");
  });
  const client = await t.connect();
  await client.write("STARTTLS\n");
  await client.startTls({ serverName: "localhost", caCerts: AUTHORITY.cert });
  assertEquals(await client.readLine(), "secure");
  assertEquals(await seen.outcomes(1), ["TLSv1.3"]);
});

testOnce("A hook that throws does no harm, and a reload keeps the hook", async () => {
  let calls = 0;
  const onHandshake = () => {
    calls++;
    throw new Error("hook");
  };
  const credentials = await tlsCredentials({ ...IDENTITY, onHandshake });
  using _first = await shakeHands(credentials);
  await credentials.reload(IDENTITY);
  using _second = await shakeHands(credentials);
  assertEquals(calls, 4);
  const later = await tlsCredentials({ ...IDENTITY, onHandshake: async () => await Promise.reject(new Error("hook")) });
  using _third = await shakeHands(later);
});

testOnce("A hook has to be a function, and belongs to the credentials", async () => {
  const wrong = { ...IDENTITY, onHandshake: 1 as never };
  await assertRejects(() => tlsCredentials(wrong), TypeError, "Cannot use onHandshake: expected a function, got 1");
  const credentials = await tlsCredentials(IDENTITY);
  const both = () => listenTls({ credentials, onHandshake: () => {} });
  await assertRejects(both, TypeError, "Cannot use onHandshake: credentials are given");
});

testOnce("Handshakes are counted, by version or by failure", async () => {
  const metrics = new ServerMetrics();
  const credentials = await tlsCredentials({ ...IDENTITY, onHandshake: metrics.onHandshake });
  using _secured = await shakeHands(credentials);
  metrics.onHandshake({ type: "begun" });
  assertEquals(metrics.snapshot().handshakes.active, 1);
  metrics.onHandshake({ type: "ended", durationMs: 20_000, failure: "cut-off" });
  const { active, done, failed, ms } = metrics.snapshot().handshakes;
  assertEquals([active, done, failed, ms.count], [0, { "1.3": 1 }, { "cut-off": 1 }, 1]);
});
