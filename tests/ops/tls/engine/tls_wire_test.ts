import tls from "node:tls";
import { assertEquals, assertLess, assertRejects } from "@std/assert";
import { listenTls } from "@x/shouty/ops";
import { MemoryListener } from "@x/shouty/testing";
import { ENGINE } from "../../../../ops/tls/engine/wrap.ts";
import { Wire } from "../../../../ops/tls/streams/wire.ts";
import { test } from "../../../kit/bounded.ts";
import { AUTHORITY, IDENTITY, streamOf } from "../../../kit/tls.ts";

test("Nothing is written below when the connection there is closed or has failed", async () => {
  const written: string[] = [];
  const errors: string[] = [];
  const write = (bytes: Uint8Array) => {
    written.push(new TextDecoder().decode(bytes));
    return written.length === 2 ? Promise.reject(new Error("No more")) : Promise.resolve(bytes.length);
  };
  const wire = new Wire(
    { write } as never,
    () => {},
    (error) => errors.push((error as Error).message),
  );
  for (const text of ["one", "two", "three"]) wire.write(new TextEncoder().encode(text));
  while (errors.length < 2) await new Promise((resolve) => setTimeout(resolve, 1));
  assertEquals([written, errors], [["one", "two"], ["No more", "Cannot write: the connection is closed"]]);
  assertEquals([wire.sent, wire.idle], [3, true]);
});

test("What a wire has read stays as it is while the next read fills the same buffer", async () => {
  let letter = 96;
  const read = (into: Uint8Array) => Promise.resolve(into.subarray(0, 3).fill(++letter).length);
  const wire = new Wire({ read } as never, () => {}, () => {});
  // The stream is not read meanwhile, so it keeps the bytes.
  await wire.pull();
  await wire.pull();
  const kept: unknown[] = [];
  for (let bytes = wire.read(); bytes !== null; bytes = wire.read()) kept.push(bytes);
  assertEquals(kept.join(""), "aaabbb");
});

test("A read under TLS that waits ends when the stream below is destroyed without an error", async () => {
  const memory = new MemoryListener();
  ENGINE.enabled = false;
  const listener = await listenTls({ listener: memory, ...IDENTITY });
  ENGINE.enabled = true;
  const accepting = listener.accept();
  const { pull } = Wire.prototype;
  let wire: Wire | undefined;
  Wire.prototype.pull = function () {
    wire = this;
    return pull.call(this);
  };
  try {
    const client = tls.connect({ socket: streamOf(memory.connect()), ca: AUTHORITY.cert, servername: "localhost" });
    const transport = await accepting;
    const reading = assertRejects(() => transport.read(new Uint8Array(1)), Deno.errors.BadResource, "is closed");
    wire!.destroy();
    await reading;
    transport.close();
    client.destroy();
  } finally {
    Wire.prototype.pull = pull;
    await listener.close();
  }
});

/** A wire whose transport always has more input, and the buffer sizes of its reads. */
function endlessWire(): { wire: Wire; reads: number[] } {
  const reads: number[] = [];
  const read = (into: Uint8Array) => {
    reads.push(into.length);
    return Promise.resolve(into.length);
  };
  return { wire: new Wire({ read } as never, () => {}, () => {}), reads };
}

test("A peer whose records never end lets others have their turn, though none of them is a line", async () => {
  const { wire } = endlessWire();
  wire.resume();
  let others = false;
  setTimeout(() => others = true);
  for (let reads = 0; !others; reads++) {
    assertLess(reads, 10_000);
    await wire.pull();
  }
});

test("Nothing is read below when the connection is closed while it waits for its turn", async () => {
  const { wire, reads } = endlessWire();
  await wire.pull();
  const pulling = wire.pull();
  wire.stop();
  await assertRejects(() => pulling, Deno.errors.BadResource, "Cannot read: the connection is closed");
  assertEquals(reads.length, 1);
});

test("What is long in decrypting is read bit by bit, and what is not in large reads", async () => {
  const { wire, reads } = endlessWire();
  // The test has a time of its own: on a slow machine, everything is long in decrypting.
  const { now } = performance;
  let [time, slow] = [0, false];
  wire.on("data", () => {
    if (slow) time += 2;
  });
  performance.now = () => time;
  try {
    for (let i = 0; i < 5; i++) await wire.pull();
    assertEquals(reads.at(-1), 65_536);
    slow = true;
    for (let i = 0; i < 5; i++) await wire.pull();
    assertEquals(reads.at(-1), 1024);
  } finally {
    performance.now = now;
  }
});
