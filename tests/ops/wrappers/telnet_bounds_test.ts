import { assertEquals, assertLess } from "@std/assert";
import type { Transport } from "@x/shouty";
import { withTelnet } from "@x/shouty/ops";
import { MAX_SUBNEGOTIATION_BYTES } from "../../../ops/wrappers/telnet_filter.ts";
import { turn } from "../../../internal/time/event_loop.ts";
import { test, testOnce } from "../../kit/bounded.ts";
import { tapped } from "../../kit/faults.ts";
import { restlessClock } from "../../kit/fakes/restless_clock.ts";
import { inMemory, listenLoopback, startServer } from "../../kit/server.ts";
import { bytesOf, DO, ECHO, IAC, NAWS, NOP, readAll, SB, SE, TIMING_MARK } from "../../kit/telnet.ts";

testOnce("A subnegotiation of up to 1 KiB is left out, and a longer one ends its connection", async () => {
  const { listener } = inMemory();
  await using t = startServer({ listener: withTelnet(listener) });
  const sub = (length: number) => bytesOf(IAC, SB, NAWS, ..."x".repeat(length - 3), IAC, SE, "hello\n");
  const client = listener.connect();
  await client.write(sub(MAX_SUBNEGOTIATION_BYTES));
  assertEquals(await client.readLine(), "HELLO");
  await client.write(sub(MAX_SUBNEGOTIATION_BYTES + 1));
  const { reason, error } = await t.closed();
  assertEquals([reason, (error as Error).message], [
    "transport-error",
    "A Telnet subnegotiation longer than 1024 bytes",
  ]);
});

testOnce("Subnegotiations are bounded each, not all together", async () => {
  const { listener } = inMemory();
  await using _ = startServer({ listener: withTelnet(listener) });
  const client = listener.connect();
  for (let i = 0; i < 5; i++) await client.write(bytesOf(IAC, SB, NAWS, ..."x".repeat(500), IAC, SE));
  await client.write("hello\n");
  assertEquals(await client.readLine(), "HELLO");
});

testOnce("A peer that asks for options and never reads the refusals is read no further, and ends as idle", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 1000 });
  await using t = startServer({ listener: withTelnet(listener), clock });
  const client = listener.connect();
  let asked = 0;
  const asking = (async () => {
    for (;; asked++) await client.write(bytesOf(IAC, DO, ECHO));
  })();
  asking.catch(() => {});
  for (let turns = 50; turns > 0 && asked < 5000; turns--) await turn();
  // What the buffers of both directions hold, and as many refusals as may wait.
  assertLess(asked, 2000);
  await clock.advance(9999);
  assertEquals(t.stats.active, 1);
  await clock.advance(1);
  assertEquals(["idle", "first-line-timeout"].includes((await t.closed()).reason), true);
});

testOnce("A refusal that cannot leave yet waits once, however many bytes come after it", async () => {
  const memory = inMemory().listener;
  const writes: PromiseWithResolvers<number>[] = [];
  const write = () => {
    const writing = Promise.withResolvers<number>();
    writes.push(writing);
    return writing.promise;
  };
  const listener = withTelnet(tapped(memory, () => ({ write })));
  using client = memory.connect();
  const transport = await listener.accept();
  const into = new Uint8Array(100);
  for (const sent of [bytesOf(IAC, DO, ECHO, "a"), bytesOf(IAC, DO, NAWS, "b")]) {
    await client.write(sent);
    assertEquals(await transport.read(into), 1);
  }
  for (let i = 0; i < 1000; i++) {
    await client.write("c");
    await transport.read(into);
  }
  assertEquals(writes.length, 1);
  // What waits is done before the next write begins: the number of microtasks tells how much that is.
  transport.write(into).catch(() => {});
  writes[0].resolve(3);
  while (writes.length < 2) await undefined;
  writes[1].resolve(3);
  let microtasks = 0;
  for (; writes.length < 3; microtasks++) await undefined;
  assertLess(microtasks, 100);
  transport.close();
});

test("A peer that sends nothing but commands has others go on, and its time runs out", async () => {
  const clock = restlessClock();
  const options = { clock, idleTimeout: 500, firstLineTimeout: Infinity };
  await using t = startServer({ listener: withTelnet(listenLoopback()), ...options });
  const client = await t.admitted();
  let asking = true;
  const commands = Uint8Array.from({ length: 60_000 }, (_, i) => i % 2 === 0 ? IAC : NOP);
  const storm = (async () => {
    while (asking) await client.write(commands);
  })().catch(() => {});
  assertEquals(await t.talk("hello\n"), "HELLO\n");
  await t.closed();
  clock.pass(499);
  // Commands come at this time, too.
  for (let turns = 5; turns > 0; turns--) await turn();
  clock.pass(1);
  assertEquals((await t.closed(2)).reason, "idle");
  asking = false;
  await storm;
});

testOnce("Commands that are always there leave the loop to others in between", async () => {
  let reads = 0;
  const addr: Deno.NetAddr = { transport: "tcp", hostname: "127.0.0.1", port: 1 };
  const transport: Transport = {
    ...{ remoteAddr: addr, localAddr: addr, close() {} },
    ...{ write: ({ length }) => Promise.resolve(length), closeWrite: () => Promise.resolve() },
    read(into) {
      for (let i = 0; i < 256; i++) into[i] = i % 2 === 0 ? IAC : NOP;
      return Promise.resolve(++reads < 20_000 ? 256 : null);
    },
  };
  const accept = () => Promise.resolve(transport);
  const conn = await withTelnet({ addr, accept, close() {} }).accept();
  let readsBefore = Infinity;
  setTimeout(() => readsBefore = reads, 0);
  assertEquals(await conn.read(new Uint8Array(1024)), null);
  assertLess(readsBefore, 20_000);
});

testOnce("Many TIMING-MARKs in one piece take linear work", async () => {
  const { listener } = inMemory({ bufferBytes: 1 << 17 });
  await using _ = startServer({ listener: withTelnet(listener), maxLineBytes: 65_536 });
  const client = listener.connect();
  const marks = bytesOf("x".repeat(40_000), ...Array.from({ length: 8000 }, () => [IAC, DO, TIMING_MARK]).flat(), "\n");
  const { slice, set } = Uint8Array.prototype;
  const proto = Object.getPrototypeOf(Uint8Array.prototype);
  let copied = 0;
  proto.slice = function (this: Uint8Array, ...args: [number, number]) {
    const part = slice.apply(this, args);
    copied += part.length;
    return part;
  };
  proto.set = function (this: Uint8Array, source: Uint8Array, offset?: number) {
    copied += source.length;
    return set.call(this, source, offset);
  };
  try {
    await client.write(marks);
    await client.closeWrite();
    assertEquals((await readAll(client)).length, 40_001 + 3 * 8000);
  } finally {
    Object.assign(proto, { slice, set });
  }
  assertEquals(copied < 20 * marks.length, true, `${copied} bytes were copied`);
});
