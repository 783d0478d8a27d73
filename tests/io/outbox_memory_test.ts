import { assert, assertEquals, assertLessOrEqual } from "@std/assert";
import { test } from "../kit/bounded.ts";
import { memoryAfter } from "../kit/figures/memory.ts";
import { Kernel, outboxTo } from "../kit/outbox.ts";

const BLOCK_BYTES = 64 * 1024;

test("Outbox uses a small block for few bytes, whatever is before them, and a large one for many", async () => {
  const kernel = new Kernel();
  const outbox = outboxTo(kernel);
  outbox.lend(new TextEncoder().encode("lent"));
  outbox.add(new Uint8Array(5));
  outbox.add(new Uint8Array(4096));
  outbox.add(new Uint8Array(5));
  await outbox.flush();
  assertEquals(kernel.rooms, [4, 4096, BLOCK_BYTES]);
});

test("Outbox keeps many small texts as bytes, not as a string of a thousand pieces", () => {
  const proto = TextEncoder.prototype;
  const { encodeInto } = proto;
  const encoded: number[] = [];
  proto.encodeInto = function (source, destination) {
    encoded.push(source.length);
    return encodeInto.call(this, source, destination);
  };
  try {
    const outbox = outboxTo(new Kernel());
    for (let i = 0; i < 1000; i++) outbox.add("xy");
    assertEquals([encoded, outbox.size], [Array(31).fill(64), 2000]);
  } finally {
    proto.encodeInto = encodeInto;
  }
});

test("Outbox counts what its transport holds while something waits, and not while it is quiet", async () => {
  const kernel = Object.assign(new Kernel(3, false), { heldBytes: 16_000 });
  const outbox = outboxTo(kernel);
  outbox.add("reply");
  const flushed = outbox.flush();
  assertEquals(kernel.output, 16_000);
  kernel.open();
  await flushed;
  assertEquals(kernel.output, 0);
});

test("Outbox counts long text that waits, also before it has to be encoded", () => {
  const kernel = new Kernel(5, false);
  const outbox = outboxTo(kernel);
  outbox.post("first");
  outbox.post("x".repeat(4096));
  assert(kernel.output >= 4096, `${kernel.output}`);
  kernel.open();
});

test("Outbox has a write that waits found stuck if it counts as memory, also if only its transport holds much", async () => {
  for (const [length, heldBytes] of [[10, 0], [10, 16_000], [10_000, 0]] as const) {
    const kernel = Object.assign(new Kernel(5), { heldBytes, writing: (large: boolean) => timed.push(large) });
    const timed: boolean[] = [];
    const outbox = outboxTo(kernel);
    outbox.add("x".repeat(length));
    await outbox.flush();
    assertEquals(timed[0], length + heldBytes > 10);
  }
});

test("Outbox borrows no more than a small block for a short text, however many connections write at once", () => {
  const spaces: number[] = [];
  const kernel = Object.assign(new Kernel(), {
    write(bytes: Uint8Array): Promise<number> {
      spaces.push(bytes.buffer.byteLength);
      return new Promise(() => {});
    },
  });
  for (let count = 0; count < 2000; count++) {
    const outbox = outboxTo(kernel);
    outbox.add("x".repeat(1000));
    outbox.flush();
  }
  assertEquals(spaces, Array(2000).fill(4096));
});

test("Outbox writes no more blocks if it began with a small one", async () => {
  const kernel = new Kernel();
  const outbox = outboxTo(kernel);
  for (let count = 0; count < 100; count++) outbox.add(new Uint8Array(1000).fill(count));
  await outbox.flush();
  assertEquals(kernel.blocks, [4096, BLOCK_BYTES, 100_000 - 4096 - BLOCK_BYTES]);
  assertEquals(kernel.bytes, new Uint8Array(100_000).map((_, i) => Math.floor(i / 1000)));
});

test("Outbox keeps no memory of output that has been sent", async () => {
  await assertKeepsLittle("({ write: (bytes) => Promise.resolve(bytes.length), failed() {} })");
});

test("Outbox keeps no memory of output that could not be sent, even while the outbox itself is kept", async () => {
  await assertKeepsLittle("({ write: () => Promise.reject(new Error()), failed: () => outbox().close('reset') })");
});

/** Has a thousand outboxes write 60 KB each to a sink; asserts that little more than the pools of buffers is left. */
async function assertKeepsLittle(sink: string): Promise<void> {
  const program = `
    import { Outbox } from "${import.meta.resolve("../../internal/io/outbox.ts")}";
    const kernelOf = (outbox) => ({ writing() {}, grown() {}, wrote() {}, holdOutput() {}, ...${sink} });
    const outboxTo = (kernel) => new Outbox(kernel, kernel, kernel, kernel);
    globalThis.outboxes = Array.from({ length: 1000 }, (_, i) => outboxTo(kernelOf(() => outboxes[i])));
    for (const outbox of outboxes) outbox.add("x".repeat(60_000));
    await Promise.all(outboxes.map((outbox) => outbox.flush()));
  `;
  const { external } = await memoryAfter(program);
  // The pools keep 4 MiB; the thousand blocks were 62 MiB.
  assertLessOrEqual(external, 16 * 1024 * 1024);
}
