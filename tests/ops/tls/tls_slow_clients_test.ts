import { assertEquals, assertRejects } from "@std/assert";
import { listenTls } from "@x/shouty/ops";
import { MemoryListener } from "@x/shouty/testing";
import { Forwarding } from "../../../internal/api/transport.ts";
import { round, turn } from "../../../internal/time/event_loop.ts";
import { connectTlsOver } from "../../../ops/tls/client.ts";
import { test, testOnce } from "../../kit/bounded.ts";
import { startServer } from "../../kit/server.ts";
import { AUTHORITY, IDENTITY, startTls } from "../../kit/tls.ts";

const MIB = 1024 * 1024;

test("Quiet connections that had long lines under TLS keep no other from its reply", async () => {
  await using t = await startTls({}, { maxBufferedBytes: 64 * 1024, idleTimeout: Infinity });
  const line = "x".repeat(20_000);
  for (let i = 0; i < 8; i++) {
    const client = await t.connectTls();
    await client.write(`${line}\n`);
    assertEquals((await client.readLine())!.length, line.length);
  }
});

/** A connection of a client that reads slowly: meanwhile, the server goes as far as it can. */
class Slow extends Forwarding {
  override async read(into: Uint8Array): Promise<number | null> {
    for (let rounds = 100; rounds > 0; rounds--) await round();
    return await this.inner.read(into);
  }
}

testOnce(
  "Under TLS, a client that has ended its side and reads slowly gets every reply, and close_notify",
  async () => {
    const memory = new MemoryListener({ bufferBytes: 64 });
    const listener = await listenTls({ listener: memory, ...IDENTITY });
    await using _ = startServer({ listener });
    const end = new Slow(await memory.dial());
    const client = await connectTlsOver(end, { serverName: "localhost", caCerts: AUTHORITY.cert });
    const writing = client.write(new TextEncoder().encode("x".repeat(100) + "\n")).then(() => client.closeWrite());
    let got = 0;
    for (let count; (count = await client.read(new Uint8Array(1000))) !== null;) got += count;
    assertEquals(got, 101);
    await writing;
    client.close();
    for (let turns = 5; turns > 0; turns--) await turn();
  },
);

test("Under TLS, a silent client that is timed out gets close_notify", async () => {
  await using t = await startTls({}, { idleTimeout: 50 });
  const client = await t.connectTls();
  assertEquals(await client.readAll(), "");
  assertEquals((await t.closed()).reason, "idle");
});

test("Under TLS, a client that does not read is timed out, and the others are served", async () => {
  await using t = await startTls({}, { writeTimeout: 200 });
  const client = await t.connectTls();
  client.write("x".repeat(63).concat("\n").repeat(MIB)).catch(() => {});
  assertEquals(await t.talkTls("hello"), "HELLO\n");
  await t.closed(2);
  assertEquals(t.all("closed").map(({ reason }) => reason).toSorted(), ["end", "write-timeout"]);
});

test("Under TLS, a client whose answer is cut off cannot take what it gets for all there is", async () => {
  const { promise: silence, resolve } = Promise.withResolvers<void>();
  await using t = await startTls({}, { drainTimeout: 1 }, () => {
    resolve();
    return "x".repeat(64 * MIB);
  });
  const client = await t.connectTls();
  await client.write("all of it\n");
  await silence;
  assertEquals((await t.server.shutdown()).closed, { "drain-timeout": 1 });
  await assertRejects(() => client.readAll());
});

test("Under TLS, a shutdown with drain finish does not wait for a silent client", async () => {
  await using t = await startTls();
  const client = await t.connectTls();
  await client.write("hello\n");
  assertEquals(await client.readLine(), "HELLO");
  const stopping = t.server.shutdown({ drain: "finish" });
  assertEquals(await client.readAll(), "");
  client.close();
  assertEquals((await stopping).closed, { drained: 1 });
});
