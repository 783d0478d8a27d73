import { assertEquals, assertStrictEquals } from "@std/assert";
import { type Conn, shout, type Transport } from "@x/shouty";
import { ANSWER_BYTES, type BytesHandler } from "../../../internal/api/handlers.ts";
import { test } from "../../kit/bounded.ts";
import { tapped } from "../../kit/faults.ts";
import { inMemory, startServer } from "../../kit/server.ts";

const bytesOf = (lines: Uint8Array): Uint8Array | undefined => (shout as BytesHandler)[ANSWER_BYTES]!(lines);

const FAILURE = new Error("This line is unlucky");

test("a block handler that throws leaves the block unanswered, and earlier replies are sent", async () => {
  const handler = Object.assign((line: string) => line, {
    block: (lines: string) => {
      if (lines.includes("bad")) throw FAILURE;
      return lines;
    },
  });
  await using t = startServer(inMemory(), handler);
  const client = await t.connect();
  await client.write("one\n");
  assertEquals(await client.readLine(), "one");
  await client.write("two\nbad\n");
  await client.closeWrite();
  assertEquals(await client.readAll(), "");
  assertEquals((await t.closed()).reason, "handler-error");
});

/** A handler with a block method that calls it for each line, and with one that answers bytes. */
function withBytes(handler: (line: string) => string, bytes: (lines: Uint8Array) => Uint8Array | undefined) {
  const block = (lines: string) => Array.from(lines.matchAll(/(.*)\n/g), ([, line]) => handler(line) + "\n").join("");
  return Object.assign(handler, { block, [ANSWER_BYTES]: bytes });
}

test("a handler answers short blocks as bytes first, and blocks that it declines as text", async () => {
  const asked: string[] = [];
  const handler = withBytes((line) => `text ${line}`, (lines) => {
    asked.push(new TextDecoder().decode(lines));
    if (lines[0] !== "b".charCodeAt(0)) return undefined;
    lines[0] = "B".charCodeAt(0);
    return lines;
  });
  await using t = startServer(inMemory(), handler);
  const client = await t.connect();
  const long = "b".repeat(4096);
  for (const line of ["bytes", "other\r", "b".repeat(4095), long]) {
    await client.write(`${line}\n`), await client.readLine();
  }
  assertEquals(asked, ["bytes\n", "other\r\n", `${"b".repeat(4095)}\n`]);
  assertEquals(await t.talk("bytes\n"), "Bytes\n");
  assertEquals(await t.talk("one\r\ntwo\n"), "text one\ntext two\n");
  assertEquals(await t.talk(`${long}\n`), `text ${long}\n`);
  assertEquals(await t.talk("b\nb\nb"), "B\nb\nB\n");
  assertEquals(t.stats.lines, 11);
});

for (const [length, asBytes] of [[31, true], [32, false]] as const) {
  test(`a handler answers a long block ${asBytes ? "as bytes" : "as text"} if its first line has ${length} bytes`, async () => {
    const asked: number[] = [];
    await using t = startServer(inMemory(), withBytes((line) => line, (lines) => (asked.push(lines.length), lines)));
    const lines = `${"x".repeat(length)}\n`.repeat(1000);
    assertEquals(await t.talk(lines), lines);
    assertEquals(Math.max(...asked) > 4096, asBytes, `Asked with ${asked} bytes`);
  });
}

for (const [limit, together] of [["maxBytesPerSecond", 1], ["maxLinesPerSecond", 0]] as const) {
  test(`with ${limit}, lines that came together are answered ${together ? "together" : "one by one"}`, async () => {
    let blocks = 0;
    const handler = Object.assign((line: string) => line, { block: (lines: string) => (blocks++, lines) });
    const { listener, clock } = inMemory();
    await using t = startServer({ listener, clock, [limit]: 1000 }, handler);
    assertEquals([await t.talk("one\ntwo\nthree\n"), blocks], ["one\ntwo\nthree\n", together]);
  });
}

test("with maxBytesPerSecond, what is wrong behind a block is told with its replies, and not when more may be read", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, maxBytesPerSecond: 10, maxLineBytes: 4 });
  const client = await t.connect();
  await client.write("ok\n1234567");
  assertEquals(await client.readAll(), "OK\nerror: line longer than 4 bytes\n");
});

test("with maxBytesPerSecond, what came behind a change of the framing is answered with it", async () => {
  const block = (lines: string, conn: Conn) => {
    conn.setFraming({ lineEnd: { delimiter: "|" } });
    return lines;
  };
  const { listener, clock } = inMemory();
  await using t = startServer(
    { listener, clock, maxBytesPerSecond: 13 },
    Object.assign((line: string) => line, { block }),
  );
  const client = await t.connect();
  await client.write("switch\nabc|de");
  assertEquals(await client.readBytes(11), new TextEncoder().encode("switch\nabc|"));
});

test("a handler answers no block as bytes while memory is short", async () => {
  const asked: number[] = [];
  const bytes = (lines: Uint8Array) => (asked.push(lines.length), lines);
  const { listener, clock } = inMemory();
  const options = { listener, clock, maxBufferedBytes: 6000 };
  await using t = startServer(options, withBytes((line) => line, bytes));
  const [other, client] = [t.own(listener.connect()), t.own(listener.connect())];
  await client.write("one\n");
  assertEquals(await client.readLine(), "one");
  await other.write("x".repeat(1100));
  await clock.advance(0);
  await client.write("two\n");
  assertEquals(await client.readLine(), "two");
  assertEquals(asked, [4]);
});

test("shout says the same to any byte among letters, as bytes or as text", () => {
  for (let byte = 0; byte < 256; byte++) {
    const lines = new Uint8Array([97, byte, 122, 10]);
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(lines);
    const replies = bytesOf(lines);
    assertEquals(replies === undefined, byte >= 0x80 || byte === 13, `${byte}`);
    if (replies !== undefined) assertEquals(replies, new TextEncoder().encode(shout.block(text)));
  }
});

test("a handler that closes while it answers a block has its replies sent", async () => {
  const handler = Object.assign((line: string) => `text ${line}`, {
    block: (lines: string, conn: Conn) => (conn.close(), lines),
  });
  await using t = startServer(inMemory(), handler);
  assertEquals(await t.talk("one\ntwo\n"), "one\ntwo\n");
  assertEquals((await t.closed()).reason, "closed");
});

test("a handler that overwrites the last LF of a block and declines it causes no line and no endless loop", async () => {
  const bytes = (lines: Uint8Array) => void (lines[0] === 33 ? lines.fill(33) : lines[0] = 63);
  await using t = startServer(inMemory(), withBytes((line) => `text ${line}`, bytes));
  const client = await t.connect();
  await client.write("!\n");
  await client.write("line\n");
  assertEquals(await client.readLine(), "text ?ine");
});

test("a connection that ends while its handler is at work gives its buffer back", async () => {
  const atWork = (_: string, conn: Conn) => {
    // More than `maxQueuedBytes`, which ends the connection at once.
    for (let i = 0; i < 9; i++) conn.write("too much");
    return new Promise<string>(() => {});
  };
  for (const handler of [atWork, Object.assign(atWork.bind(null), { [ANSWER_BYTES]: () => undefined })]) {
    const { listener, clock } = inMemory();
    const buffers: ArrayBufferLike[] = [];
    const read = (inner: Transport) => (into: Uint8Array) => (buffers.push(into.buffer), inner.read(into));
    const options = { listener: tapped(listener, (inner) => ({ read: read(inner) })), clock };
    await using t = startServer({ ...options, maxQueuedBytes: 8 }, handler);
    for (let i = 1; i <= 2; i++) {
      await t.own(listener.connect()).write("hello\n");
      assertEquals((await t.closed(i)).reason, "write-queue");
    }
    assertEquals(buffers.length, 2);
    assertStrictEquals(buffers[0], buffers[1]);
  }
});

test("a handler that throws for bytes, or returns none, has failed, and earlier replies are sent", async () => {
  for (
    const wrong of [() => "text", () => Promise.reject(FAILURE), () => null, () => {
      throw FAILURE;
    }]
  ) {
    const bytes = (lines: Uint8Array) => lines[0] === 33 ? wrong() as unknown as Uint8Array : lines;
    await using t = startServer(inMemory(), withBytes((line) => shout(line), bytes));
    const client = await t.connect();
    await client.write("one\n");
    assertEquals(await client.readLine(), "one");
    await client.write("!\n");
    await client.closeWrite();
    assertEquals(await client.readAll(), "");
    assertEquals((await t.closed()).reason, "handler-error");
  }
});

test("replies as bytes do not change until they have been sent, whatever else happens meanwhile", async () => {
  const scratch = new Uint8Array(4);
  const inTheSame = (lines: Uint8Array) => bytesOf(lines);
  const inScratch = (lines: Uint8Array) => (scratch.set(lines), scratch);
  for (const bytes of [inTheSame, inScratch]) {
    const { listener, clock } = inMemory();
    const writes: Uint8Array[] = [];
    // As a kernel keeps them while the peer does not read.
    const write = (bytes: Uint8Array) => new Promise<number>(() => writes.push(bytes));
    const options = { listener: tapped(listener, () => ({ write, progress: () => 0 })), clock, writeTimeout: 1000 };
    await using t = startServer(options, withBytes((line) => shout(line), bytes));
    for (const line of ["ONE\n", "TWO\n", "SIX\n"]) {
      await t.own(listener.connect()).write(line);
      await clock.advance(1000);
    }
    assertEquals(t.all("closed").map(({ reason }) => reason), Array(3).fill("write-timeout"));
    assertEquals(writes.map((bytes) => new TextDecoder().decode(bytes)), ["ONE\n", "TWO\n", "SIX\n"]);
  }
});

test("a line handler whose block returns nothing has failed, and the error says what was expected", async () => {
  const block = (() => {}) as unknown as () => string;
  await using t = startServer(inMemory(), Object.assign((line: string) => line, { block }));
  assertEquals(await t.talk("one\n"), "");
  const { error } = await t.until("handler-error");
  assertEquals((error as Error).message.endsWith("expected a string, got undefined"), true);
});

test("a line handler whose block returns a promise has failed, and the promise's rejection is handled", async () => {
  const block = () => Promise.reject(FAILURE) as unknown as string;
  await using t = startServer(inMemory(), Object.assign((line: string) => line, { block }));
  assertEquals(await t.talk("one\n"), "");
  assertEquals((await t.closed()).reason, "handler-error");
});
