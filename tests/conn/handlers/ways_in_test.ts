import { assertEquals } from "@std/assert";
import { lineStream, serve, serveConnections, type ServeOptions, shout } from "@x/shouty";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { test } from "../../kit/bounded.ts";
import { faulty } from "../../kit/faults.ts";
import { answer, type Limits, shouted } from "../../kit/framing/oracle.ts";
import { toBytes } from "../../kit/bytes.ts";
import { anyCuts, anyInput, anyLimits, check } from "../../kit/property.ts";
import { type Start, TestServer, WAYS_IN } from "../../kit/server.ts";

const NO_LIMITS = { maxLineBytes: 65_536, maxConnectionBytes: Infinity };

/** Sends an input, which the server reads in pieces of the given sizes; returns the reply and the close reason. */
async function talk(start: Start, input: Uint8Array, cuts: number[], options: ServeOptions): Promise<unknown[]> {
  const memory = new MemoryListener({ bufferBytes: 1 << 20 });
  const listener = faulty(memory, {
    readBytes: (call) => cuts[call - 1] || Infinity,
    writeBytes: (call) => cuts.at(-call) || Infinity,
  });
  await using t = new TestServer(start, { ...options, listener, clock: new FakeClock() });
  const client = memory.connect();
  await client.write(input);
  await client.closeWrite();
  const text = await client.readAll();
  return [text, (await t.closed()).reason];
}

function wanted(input: Uint8Array, limits: Limits): unknown[] {
  return [shouted(input, limits), answer(input, limits).reason];
}

for (const [wayIn, start] of Object.entries(WAYS_IN)) {
  test(`${wayIn} gives the same answer as the oracle for any bytes, cuts and limits`, async () => {
    await check([anyInput, anyCuts, anyLimits], async (input, cuts, { maxLineBytes, maxConnectionBytes }) => {
      // The stream hands out bytes at once, also those of a line that the limit cuts off later.
      const inBytes = wayIn === "a conversation in streams";
      const limits = { maxLineBytes, maxConnectionBytes: inBytes ? Infinity : maxConnectionBytes };
      assertEquals(await talk(start, input, cuts, limits), wanted(input, limits));
    }, 200);
  });

  test(`${wayIn} gives the same answer at every cut and byte by byte`, async () => {
    const input = toBytes("a\r\r\nß\n\r\n\uFEFF\0\u2028\v\f\u0085\r\n😀\rx\n\nlast\r");
    const answered = wanted(input, NO_LIMITS);
    for (let at = 1; at < input.length; at++) assertEquals(await talk(start, input, [at], {}), answered);
    assertEquals(await talk(start, input, Array(input.length).fill(1), {}), answered);
  });

  test(`${wayIn} answers long lines, many lines, and a line that ends just at the limit`, async () => {
    const texts = [
      "x".repeat(65_536),
      "x".repeat(65_535) + "\r\n\n",
      "y\n".repeat(20_000),
      "€".repeat(20_000) + "\nz",
    ];
    for (const text of texts) {
      for (const cuts of [[], Array(2000).fill(1000)]) {
        assertEquals(await talk(start, toBytes(text), cuts, {}), wanted(toBytes(text), NO_LIMITS));
      }
    }
  });
}

test("in streams, the beginning of a line that the server cuts off is no line", async () => {
  for (
    const [reason, options, end] of [
      ["drained", { drain: "finish" }, (t: TestServer) => void t.server.shutdown()],
      ["max-age", { maxAge: 1000 }, (_: TestServer, clock: FakeClock) => void clock.advance(1100)],
      ["max-lines", { maxLines: 1 }, () => {}],
    ] as const
  ) {
    const clock = new FakeClock();
    await using t = new TestServer(WAYS_IN["a conversation in streams"], {
      ...options,
      listener: new MemoryListener(),
      clock,
    });
    const client = await t.admitted();
    await client.write("one\nTRANSFER 10");
    assertEquals(await client.readLine(), "ONE");
    end(t, clock);
    assertEquals(await client.readAll(), "");
    await client.closeWrite();
    assertEquals((await t.closed()).reason, reason);
  }
});

test("in streams, a line that close cuts off is none, although the peer has ended its side by then", async () => {
  const [listener, clock] = [new MemoryListener(), new FakeClock()];
  const [worked, lines] = [Promise.withResolvers<void>(), Promise.withResolvers<string[]>()];
  const start: Start = (options) =>
    serveConnections(options, async (conn) => {
      const stream = lineStream(conn.readable);
      await worked.promise;
      conn.close();
      lines.resolve(await Array.fromAsync(stream));
    });
  await using t = new TestServer(start, { listener, clock });
  const client = await t.admitted();
  const parts = Array.from({ length: 20 }, (_, i) => `${i}\nGET /${i}`);
  for (const part of parts) await client.write(part), await clock.advance(0);
  await client.closeWrite();
  // The pipe takes no more, and the server reads ahead.
  await clock.advance(300);
  worked.resolve();
  const got = await lines.promise;
  const whole = parts.join("").split("\n").slice(0, got.length);
  assertEquals([got, got.length > 0 && got.length < 21], [whole, true]);
});

test("missing and empty replies keep their places among a handler's replies", async () => {
  const reply = (line: string) => line === "nothing" ? undefined : line === "empty" ? "" : shout(line);
  const starts: Record<string, Start> = {
    sync: (options) => serve(options, reply),
    async: (options) => serve(options, (line) => Promise.resolve(reply(line))),
    mixed: (options) => serve(options, (line) => line.length > 5 ? Promise.resolve(reply(line)) : reply(line)),
    conversation: (options) =>
      serveConnections(options, async (conn) => {
        for await (const line of conn.lines) {
          const text = reply(line);
          if (text !== undefined) await conn.write(`${text}\n`);
        }
      }),
  };
  for (const start of Object.values(starts)) {
    for (const cuts of [[], Array(60).fill(1)]) {
      const input = toBytes("nothing\na\nempty\nnothing\nb\nnothing");
      assertEquals(await talk(start, input, cuts, {}), ["A\n\nB\n", "end"]);
    }
  }
});
