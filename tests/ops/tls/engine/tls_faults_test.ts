import { Buffer } from "node:buffer";
import { Duplex } from "node:stream";
import tls from "node:tls";
import { assertEquals } from "@std/assert";
import { serve } from "@x/shouty";
import { listenTls } from "@x/shouty/ops";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { testOnce } from "../../../kit/bounded.ts";
import { type Faults, faulty, type Method } from "../../../kit/faults.ts";
import { check, fc } from "../../../kit/property.ts";
import { startServer, TestServer } from "../../../kit/server.ts";
import { AUTHORITY, IDENTITY, streamOf } from "../../../kit/tls.ts";

/** Sends text under TLS, ends the client's side, and returns what comes until the connection ends in any way. */
async function talk(memory: MemoryListener, text: string): Promise<string> {
  const socket = tls.connect({ socket: streamOf(memory.connect()), ca: AUTHORITY.cert, servername: "localhost" });
  let replies = "";
  socket.on("error", () => {});
  socket.on("data", (bytes) => replies += bytes);
  // Deno never finishes an empty write.
  if (text !== "") socket.write(text);
  socket.end();
  await new Promise((resolve) => socket.on("close", resolve));
  return replies;
}

/** Runs a scenario under TLS, on a faulty listener in memory; the calls to its transports must keep their rules. */
async function play(faults: Faults, scenario: (t: TestServer, memory: MemoryListener) => Promise<void>) {
  const memory = new MemoryListener();
  const misuse: string[] = [];
  const listener = await listenTls({ listener: faulty(memory, { ...faults, misuse }), ...IDENTITY });
  {
    await using t = new TestServer((options) => serve(options), { listener, clock: new FakeClock() });
    await scenario(t, memory);
  }
  assertEquals(misuse, []);
}

testOnce("Under TLS, however little moves at a time, nothing is lost", async () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1, maxLength: 8 });
  const text = fc.array(fc.string({ unit: "grapheme-ascii", maxLength: 200 }), { maxLength: 40 });
  await check([sizes, sizes, text], async (reads, writes, lines) => {
    const faults = {
      readBytes: (call: number) => reads[call % reads.length],
      writeBytes: (call: number) => writes[call % writes.length],
    };
    await play(faults, async (t, memory) => {
      const expected = lines.map((line) => `${line.toUpperCase()}\n`).join("");
      assertEquals(await talk(memory, lines.map((line) => `${line}\n`).join("")), expected);
      assertEquals((await t.closed()).reason, "end");
    });
  }, 30);
});

const NEVER_HAPPENED = "It has been here before";

/** The first bytes of a client's handshake, without an answer from a server. */
async function clientHello(): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  const wire = new Duplex({
    read() {},
    write(bytes, _encoding, done) {
      parts.push(bytes);
      done();
    },
  });
  const socket = tls.connect({ socket: wire, servername: "localhost" });
  socket.on("error", () => {});
  while (parts.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  socket.destroy();
  return new Uint8Array(Buffer.concat(parts));
}

testOnce("Whatever comes in a handshake's place, at once or in parts, ends its own connection alone", async () => {
  const hello = await clientHello();
  const rubbish = fc.uint8Array({ minLength: 1, maxLength: 80 });
  const damaged = fc.record({ at: fc.nat(hello.length - 1), by: fc.integer({ min: 1, max: 255 }) })
    .map(({ at, by }) => hello.with(at, hello[at] ^ by));
  const record = fc.tuple(fc.constantFrom(20, 21, 22, 23), rubbish)
    .map(([type, body]) => Uint8Array.of(type, 3, 3, 0, body.length, ...body));
  const parts = fc.array(fc.oneof(rubbish, damaged, record, fc.constant(hello)), { minLength: 1, maxLength: 3 });
  await play({}, async (t, memory) => {
    let count = 0;
    await check([parts, fc.boolean()], async (parts, together) => {
      const client = memory.connect();
      const bytes = together ? [new Uint8Array(Buffer.concat(parts))] : parts;
      for (const part of bytes) await client.write(part).catch(() => {});
      await client.closeWrite().catch(() => {});
      await client.readAll().catch(() => {});
      client[Symbol.dispose]();
      await t.until("rejected", ++count);
    }, 300);
    assertEquals(await talk(memory, "hello\n"), "HELLO\n");
    assertEquals(t.stats.accepted, 1);
  });
});

testOnce("An alert is sent whole, however slowly it is taken", async () => {
  const memory = new MemoryListener({ bufferBytes: 4 });
  const clock = new FakeClock();
  const listener = await listenTls({ listener: memory, ...IDENTITY, clock });
  await using t = startServer({ listener, clock });
  using client = memory.connect();
  await client.write("hello\n");
  // The server has refused the handshake, and half of its alert waits to be read.
  await clock.advance(0);
  const alert: number[] = [];
  for (let bytes = await client.read(); bytes !== null; bytes = await client.read()) alert.push(...bytes);
  assertEquals([alert.length, ...alert.slice(0, 2)], [7, 21, 3]);
  await t.until("rejected");
});

for (const method of ["read", "write", "closeWrite"] as Method[]) {
  testOnce(`Under TLS, a ${method} that fails below, at whatever call, ends its own connection alone`, async () => {
    for (let failing = 1; failing <= 8; failing++) {
      let connections = 0;
      const fail = (what: Method, call: number) => {
        if (what === "read" && call === 1) connections++;
        if (connections === 1 && what === method && call === failing) {
          return new Deno.errors.ConnectionReset(NEVER_HAPPENED);
        }
      };
      await play({ fail, readBytes: () => 400 }, async (t, memory) => {
        await talk(memory, "one\ntwo\nthree\n");
        assertEquals(await talk(memory, "hello\n"), "HELLO\n");
        await t.until("closed");
        for (const { error } of [...t.all("rejected"), ...t.all("closed")]) {
          assertEquals([undefined, NEVER_HAPPENED].includes((error as Error | undefined)?.message), true, `${error}`);
        }
      });
    }
  });
}
