import { assertEquals, assertLess } from "@std/assert";
import { type Listener, serve, serveConnections, type Transport } from "@x/shouty";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { ANSWER_BYTES } from "../../internal/api/handlers.ts";
import { linger } from "../../internal/io/linger.ts";
import { test } from "../kit/bounded.ts";
import { BLOCK_BYTES } from "../../internal/memory/buffer_pool.ts";
import { SHARE_LINES, TURN_BYTES } from "../../internal/time/turns.ts";
import { setImmediate } from "node:timers";
import { faulty, tapped } from "../kit/faults.ts";
import { type Start, TestServer, WAYS_IN } from "../kit/server.ts";

/** Bytes that a greedy peer sends in all: more than is read in any turn, but bounded, so that a failing test ends. */
const ENOUGH_BYTES = 16 * 1024 * 1024;

/** A peer that always has more to send, and reads everything at once. */
class Greedy implements Transport {
  readonly remoteAddr: Deno.Addr = { transport: "tcp", hostname: "127.0.0.1", port: 1 };
  readonly localAddr: Deno.Addr = { transport: "tcp", hostname: "127.0.0.1", port: 2 };
  readonly #line: Uint8Array;
  readonly #less: number;
  bytes = 0;

  /** @param less By how many bytes each of its reads is shorter than the buffer. */
  constructor(line: string, less = 0) {
    this.#line = new TextEncoder().encode(line);
    this.#less = less;
  }

  read(into: Uint8Array): Promise<number | null> {
    if (this.bytes > ENOUGH_BYTES) return Promise.resolve(null);
    const count = into.length - this.#less;
    for (let at = 0; at < count; at++) into[at] = this.#line[this.bytes++ % this.#line.length];
    return Promise.resolve(count);
  }

  write(bytes: Uint8Array): Promise<number> {
    return Promise.resolve(bytes.length);
  }

  closeWrite(): Promise<void> {
    return Promise.resolve();
  }

  close(): void {}
}

/** Makes a listener that accepts the greedy peers first, and clients in memory after them. */
function withGreedy(memory: MemoryListener, greedy: Greedy[]): Listener {
  const accept = async () => {
    const transport = await memory.accept();
    return greedy.shift() ?? transport;
  };
  return { addr: memory.addr, accept, close: () => memory.close() };
}

/** Lets the event loop run 60 iterations. */
async function rounds(): Promise<void> {
  for (let left = 60; left > 0; left--) await new Promise<void>((resolve) => setImmediate(() => resolve()));
}

/** Of the last two, a block of 64 KiB has slightly more lines than a turn, and slightly fewer. */
const LINES = ["\n", "x".repeat(60) + "\n", "x".repeat(66) + "\n"];

for (const [wayIn, start] of Object.entries(WAYS_IN)) {
  for (const line of ["\n", "0123456789abcde\n", "x".repeat(60_000) + "\n"]) {
    test(`a peer that always has lines of ${line.length} B does not keep others waiting, through ${wayIn}`, async () => {
      const greedy = new Greedy(line);
      const memory = new MemoryListener();
      const listener = withGreedy(memory, [greedy]);
      await using t = new TestServer(start, { listener, maxConnectionBytes: ENOUGH_BYTES });
      memory.connect();
      await t.until("accepted");
      const taken = greedy.bytes;
      await rounds();
      assertLess(greedy.bytes - taken, 2 * TURN_BYTES);
      assertEquals(t.all("closed"), []);
    });
  }
}

for (const [wayIn, start] of Object.entries(WAYS_IN)) {
  test(`a peer whose reads neither wait nor fill their buffer does not keep others waiting, through ${wayIn}`, async () => {
    const greedy = new Greedy("0123456789abcde\n", 1);
    const memory = new MemoryListener();
    const listener = withGreedy(memory, [greedy]);
    await using t = new TestServer(start, { listener, maxConnectionBytes: 2 * ENOUGH_BYTES });
    memory.connect();
    await t.until("accepted");
    await rounds();
    assertLess(greedy.bytes, 2 * TURN_BYTES);
  });
}

for (const [wayIn, start] of Object.entries(WAYS_IN)) {
  for (const less of [0, 1]) {
    const reads = less === 0 ? "fill their buffers" : "do not fill their buffers";
    test(`twenty peers that always have lines share a turn equally if their reads ${reads}, through ${wayIn}`, async () => {
      const greedy = Array.from({ length: 20 }, () => new Greedy("0123456789abcde\n", less));
      const memory = new MemoryListener();
      const listener = withGreedy(memory, [...greedy]);
      await using t = new TestServer(start, { listener, maxConnectionBytes: 2 * ENOUGH_BYTES });
      for (let i = 0; i < 20; i++) memory.connect();
      await t.until("accepted", 20);
      // While buffers grow, the next block is larger than the work that its turn was taken for.
      while (greedy.some(({ bytes }) => bytes < 128 * 1024)) await rounds();
      const first = greedy.map(({ bytes }) => bytes);
      for (let i = 0; i < 10; i++) {
        const before = greedy.reduce((sum, { bytes }) => sum + bytes, 0);
        await rounds();
        assertLess(greedy.reduce((sum, { bytes }) => sum + bytes, 0) - before, 2 * TURN_BYTES);
        const taken = greedy.map(({ bytes }, i) => bytes - first[i]);
        assertLess(Math.max(...taken) - Math.min(...taken), 3 * BLOCK_BYTES);
      }
    });
  }
}

test("lines in streams, which take longer than others, leave each round of the event loop to others after a few thousand", async () => {
  const memory = new MemoryListener();
  const greedy = Array.from({ length: 20 }, () => new Greedy("0123456789abcde\n"));
  const listener = withGreedy(memory, [...greedy]);
  const options = { listener, maxConnectionBytes: ENOUGH_BYTES };
  await using t = new TestServer(WAYS_IN["a conversation in streams"], options);
  for (let i = 0; i < 20; i++) memory.connect();
  await t.until("accepted", 20);
  while (greedy.some(({ bytes }) => bytes < 128 * 1024)) await rounds();
  for (let i = 0; i < 200; i++) {
    const before = t.stats.lines;
    await new Promise<void>((resolve) => setImmediate(() => resolve()));
    assertLess(t.stats.lines - before, 5 * SHARE_LINES);
  }
});

test("a client that connects while many peers always have lines does not wait for all of them", async () => {
  const memory = new MemoryListener();
  const listener = withGreedy(memory, Array.from({ length: 50 }, () => new Greedy("0123456789abcde\n")));
  await using t = new TestServer(WAYS_IN["a line handler"], { listener, maxConnectionBytes: ENOUGH_BYTES });
  for (let i = 0; i < 50; i++) memory.connect();
  await t.until("accepted", 50);
  for (let i = 0; i < 5; i++) await rounds();
  const client = t.own(memory.connect());
  await client.write("hello\n");
  for (let i = 0; i < 5; i++) await rounds();
  assertEquals(t.stats.accepted, 51);
  assertEquals(await client.readLine(), "HELLO");
});

for (const [wayIn, start] of Object.entries(WAYS_IN)) {
  test(`peers that always have lines hold up neither clocks nor a shutdown, through ${wayIn}`, async () => {
    for (const drain of ["linger", "finish"] as const) {
      const memory = new MemoryListener();
      const listener = withGreedy(memory, Array.from({ length: 20 }, () => new Greedy("0123456789abcde\n")));
      await using t = new TestServer(start, { listener, maxConnectionBytes: ENOUGH_BYTES, idleTimeout: 20 });
      for (let i = 0; i < 20; i++) memory.connect();
      await t.until("accepted", 20);
      t.own(memory.connect());
      assertEquals((await t.closed()).reason, "idle");
      assertEquals(t.stats.active, 20);
      const { closed } = await t.server.shutdown({ drain, drainTimeout: 20 });
      assertEquals(Object.values(closed).reduce((sum, count) => sum + count, 0), 20);
    }
  });
}

test("a handler that has thousands of lines at hand does not keep others waiting, however few lines a block has", async () => {
  let lines = 0;
  const starts: Start[] = [
    (options) => serve(options, () => void lines++),
    (options) =>
      serveConnections(options, async (conn) => {
        for await (const _ of conn.lines) lines++;
      }),
  ];
  for (const [start, line] of starts.flatMap((start) => LINES.map((line) => [start, line] as const))) {
    const memory = new MemoryListener();
    const listener = withGreedy(memory, [new Greedy(line)]);
    await using t = new TestServer(start, { listener, maxConnectionBytes: ENOUGH_BYTES });
    memory.connect();
    await t.until("accepted");
    for (let i = 0; i < 10; i++) {
      const before = lines;
      await rounds();
      assertLess(lines - before, 3.5 * 1024);
    }
  }
});

test("a peer whose lines the handler declines as bytes does not keep others waiting", async () => {
  let lines = 0;
  const handler = Object.assign(() => void lines++, { [ANSWER_BYTES]: () => undefined });
  const memory = new MemoryListener();
  // Too few lines at a time for Answers to take turns for them, so the reader has to.
  const few = (inner: Transport) => ({ read: (into: Uint8Array) => inner.read(into.subarray(0, 1000)) });
  const listener = tapped(withGreedy(memory, [new Greedy("\n")]), few);
  await using t = new TestServer((options) => serve(options, handler), { listener, maxConnectionBytes: ENOUGH_BYTES });
  memory.connect();
  await t.until("accepted");
  for (let i = 0; i < 5; i++) {
    const before = lines;
    await rounds();
    assertLess(lines - before, 100 * 1024);
  }
});

/** Returns how many iterations the event loop runs while a conversation reads 4096 lines that come in such blocks. */
async function roundsFor(block: string): Promise<number> {
  const memory = new MemoryListener({ bufferBytes: 1 << 16 });
  const listener = faulty(memory, { readBytes: () => block.length });
  const [read, written] = [Promise.withResolvers<number>(), Promise.withResolvers<void>()];
  let [count, over] = [0, false];
  const tick = () => void (count++, over || setImmediate(tick));
  const options = { listener, clock: new FakeClock() };
  await using _ = serveConnections(options, async (conn) => {
    await written.promise;
    setImmediate(tick);
    for (let lines = 0; lines < 4096; lines++) await conn.readLine();
    over = true;
    read.resolve(count);
  });
  using client = memory.connect();
  await client.write("\n".repeat(4096));
  written.resolve();
  return await read.promise;
}

test("a conversation takes one turn per thousand lines, whether they come together or by twos", async () => {
  for (const block of ["\n".repeat(4096), "\n\n"]) assertLess(await roundsFor(block), 1000);
});

test("a peer that floods the graceful close does not keep others waiting", async () => {
  let others = false;
  setImmediate(() => others = true);
  // Without a turn, the graceful close would end before `others` is set.
  await linger(new Greedy("\n"), () => Promise.resolve(), () => others);
  assertEquals(others, true);
});
