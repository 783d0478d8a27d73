import { assert, assertEquals, assertLessOrEqual, assertRejects } from "@std/assert";
import { ConnectionClosedError } from "../../internal/api/errors.ts";
import { Outbox } from "../../internal/io/outbox.ts";
import { test } from "../kit/bounded.ts";
import { memoryAfter } from "../kit/figures/memory.ts";

const BLOCK_BYTES = 64 * 1024;

/** A transport that takes a limited number of bytes per write, and only while it is open; it records every write. */
class Kernel {
  readonly taken: Uint8Array[] = [];
  /** The size of the buffer of each write. */
  readonly rooms: number[] = [];
  readonly blocks: number[] = [];
  failed: unknown;
  /** Called when a write has failed. */
  failing = () => {};
  calls = 0;
  #most: number;
  #gate = Promise.withResolvers<void>();
  #blockBytes = 0;

  constructor(most = Infinity, open = true) {
    this.#most = most;
    if (open) this.open();
  }

  get text(): string {
    return new TextDecoder().decode(this.bytes);
  }

  get bytes(): Uint8Array {
    return new Uint8Array(this.taken.flatMap((part) => [...part]));
  }

  open(): void {
    this.#gate.resolve();
  }

  shut(): void {
    this.#gate = Promise.withResolvers();
  }

  async write(bytes: Uint8Array): Promise<number> {
    this.calls++;
    await this.#gate.promise;
    this.rooms.push(bytes.buffer.byteLength);
    this.taken.push(bytes.slice(0, this.#most));
    const { length } = this.taken.at(-1)!;
    this.#blockBytes += length;
    return length;
  }

  closeWrite(): Promise<void> {
    return Promise.resolve();
  }

  writing() {}

  grown() {}

  wrote() {
    this.blocks.push(this.#blockBytes);
    this.#blockBytes = 0;
  }

  /** The bytes of output that `holdOutput` was last told. */
  output = 0;

  stuck = false;

  holdOutput(bytes: number) {
    this.output = bytes;
  }
}

/** Makes an outbox for a kernel, which also stands for its clocks and its memory. */
function outboxTo(kernel: Kernel): Outbox {
  const failed = (error: unknown) => {
    kernel.failed = error;
    kernel.failing();
  };
  const owner = { failed, abort() {} };
  return new Outbox(kernel, kernel, kernel, owner);
}

test("Outbox writes what is added after a flush that had nothing to write", async () => {
  const kernel = new Kernel();
  const outbox = outboxTo(kernel);
  await outbox.flush();
  outbox.add("late");
  await outbox.flush();
  assertEquals(kernel.text, "late");
});

test("Outbox keeps the order of text and bytes, in one write", async () => {
  const kernel = new Kernel();
  const outbox = outboxTo(kernel);
  for (let i = 0; i < 10; i++) outbox.add(i % 2 === 0 ? `${i},` : new TextEncoder().encode(`${i};`));
  assertEquals(outbox.size, 20);
  await outbox.flush();
  assertEquals([kernel.text, kernel.calls, outbox.size], ["0,1;2,3;4,5;6,7;8,9;", 1, 0]);
});

test("Outbox goes on where a partial write stopped", async () => {
  const kernel = new Kernel(3);
  const outbox = outboxTo(kernel);
  outbox.add("0123456789");
  await outbox.flush();
  assertEquals([kernel.text, kernel.calls, kernel.blocks], ["0123456789", 4, [10]]);
});

test("Outbox copies the bytes that it is given", async () => {
  const kernel = new Kernel();
  const outbox = outboxTo(kernel);
  const bytes = new TextEncoder().encode("mine");
  outbox.add(bytes);
  bytes.fill(0);
  await outbox.flush();
  assertEquals(kernel.text, "mine");
});

test("Outbox writes lent bytes in their place among others, and adds nothing to them", async () => {
  const kernel = new Kernel(5, false);
  const outbox = outboxTo(kernel);
  const bytes = (text: string) => new TextEncoder().encode(text);
  outbox.lend(bytes("lent,"));
  const flushed = outbox.flush();
  outbox.add("added,");
  outbox.lend(bytes("lent behind,"));
  outbox.flush();
  kernel.open();
  await flushed;
  outbox.lend(bytes("lent,"));
  await outbox.flush();
  assertEquals([kernel.text, outbox.size], ["lent,added,lent behind,lent,", 0]);
  outbox.close("reset");
  outbox.lend(bytes("too late"));
  assertEquals(outbox.size, 0);
});

test("Outbox writes nothing into the bytes that it was lent, even if they are as large as a block", async () => {
  for (const size of [4096, BLOCK_BYTES]) {
    const outbox = outboxTo(new Kernel());
    // The outbox has had a block of its own before.
    outbox.add(new Uint8Array(size));
    await outbox.flush();
    const lent = new Uint8Array(size);
    outbox.lend(lent);
    await outbox.flush();
    outbox.add(new Uint8Array(size).fill(1));
    assertEquals(lent.includes(1), false, `${size}`);
  }
});

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

test("Outbox can be added to while a block is being written, and does not change the bytes of that write", async () => {
  const kernel = new Kernel(5, false);
  const outbox = outboxTo(kernel);
  outbox.add("a".repeat(8));
  outbox.flush();
  outbox.add("b".repeat(BLOCK_BYTES));
  outbox.add("c".repeat(8));
  const flushed = outbox.flush();
  kernel.open();
  await flushed;
  assertEquals(kernel.text, "a".repeat(8) + "b".repeat(BLOCK_BYTES) + "c".repeat(8));
  assertEquals(outbox.size, 0);
});

test("A flush of Outbox settles when what was added before it has been sent, while others go on adding", async () => {
  const kernel = new Kernel(3);
  const outbox = outboxTo(kernel);
  let rest = 1000;
  const write = kernel.write.bind(kernel);
  // With each write, more is added than is sent.
  kernel.write = (bytes) => (rest-- > 0 && (outbox.add("more"), outbox.flush()), write(bytes));
  outbox.add("the first");
  await outbox.flush();
  assert(rest > 900, "The flush that began");
  outbox.add("the second");
  await outbox.flush();
  assert(kernel.text.includes("the second"));
  assert(rest > 900, "A flush while others are sent");
  rest = 0;
  await outbox.flush();
  assertEquals(outbox.size, 0);
});

for (const first of ["", "the first"]) {
  test(`Outbox sends all that waits before it holds the rest back, ${first ? "also" : "without"} a block that is being written`, async () => {
    const kernel = new Kernel(3);
    const outbox = outboxTo(kernel);
    outbox.add("two ");
    outbox.flush();
    outbox.add("rounds ");
    await outbox.flush();
    if (first) outbox.add(first), outbox.flush();
    outbox.add("before ".repeat(10));
    const sent = outbox.hold();
    outbox.add("behind");
    let flushed = false;
    outbox.flush().then(() => flushed = true);
    await sent;
    assertEquals([kernel.text, flushed], [`two rounds ${first}${"before ".repeat(10)}`, false]);
    outbox.release();
    await outbox.flush();
    assertEquals([kernel.text, flushed], [`two rounds ${first}${"before ".repeat(10)}behind`, true]);
  });
}

test("A flush of Outbox settles when what was held back is released, also if nothing was", async () => {
  for (const when of ["before", "during"]) {
    const kernel = new Kernel();
    const outbox = outboxTo(kernel);
    outbox.add("plain");
    outbox.flush();
    const before = outbox.flush();
    const held = outbox.hold();
    const during = outbox.closeWrite();
    await held;
    outbox.release();
    await (when === "before" ? before : during);
    assertEquals(kernel.text, "plain");
  }
});

test("Outbox tells that all was sent, also if it is closed just then", async () => {
  for (const first of ["", "ä"]) {
    const kernel = new Kernel(3, false);
    const outbox = outboxTo(kernel);
    if (first) outbox.add(first), outbox.flush();
    outbox.add("the last, ä");
    const flushed = outbox.flushed();
    outbox.flush().then(() => outbox.close("closed"));
    kernel.open();
    await flushed;
    assertEquals(kernel.text, `${first}the last, ä`);
    await assertRejects(() => outbox.flushed(), ConnectionClosedError);
  }
});

test("Outbox tells that not all was sent if it is closed before, or a write fails", async () => {
  for (const how of ["is closed", "fails"]) {
    const kernel = new Kernel(3, false);
    const outbox = outboxTo(kernel);
    kernel.failing = () => outbox.close("reset");
    outbox.add("the first");
    outbox.flush();
    outbox.add("ä");
    const flushed = outbox.flushed();
    if (how === "fails") kernel.write = () => Promise.resolve(0);
    else outbox.close("closed");
    kernel.open();
    await assertRejects(() => flushed, ConnectionClosedError);
  }
});

test("Whoever waits for a flush of Outbox is told when it fails, and when nothing more is sent", async () => {
  for (const how of ["fails", "is closed", "is closed while it is held back"]) {
    const kernel = new Kernel(3, false);
    const outbox = outboxTo(kernel);
    if (how.includes("held")) outbox.hold();
    outbox.add("the first");
    const flushes = [outbox.flush()];
    outbox.add("the second");
    flushes.push(outbox.flush());
    if (how === "fails") kernel.write = () => Promise.resolve(0);
    else outbox.close("closed");
    outbox.release();
    kernel.open();
    await Promise.all(flushes);
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

test("Outbox adds nothing once it is sealed", async () => {
  const kernel = new Kernel();
  const outbox = outboxTo(kernel);
  outbox.add("last");
  outbox.seal();
  outbox.add("late");
  outbox.lend(new TextEncoder().encode("lent late"));
  await outbox.flush();
  assertEquals(kernel.text, "last");
});

test("Outbox cuts blocks of 64 KiB at most, between characters", async () => {
  for (const char of ["a", "ß", "€", "😀"]) {
    for (let shift = 0; shift < 4; shift++) {
      const kernel = new Kernel();
      const outbox = outboxTo(kernel);
      const text = "x".repeat(shift) + char.repeat(100_000);
      outbox.add(text);
      await outbox.flush();
      assertEquals(kernel.bytes, new TextEncoder().encode(text));
      for (const part of kernel.taken) {
        assertLessOrEqual(part.length, BLOCK_BYTES);
        assert(!new TextDecoder().decode(part).includes("\uFFFD"), "A block ends within a character");
      }
    }
  }
});

test("Outbox cuts bytes into blocks of 64 KiB", async () => {
  const kernel = new Kernel();
  const outbox = outboxTo(kernel);
  outbox.add(new Uint8Array(2 * BLOCK_BYTES + 1).fill(7));
  await outbox.flush();
  assertEquals(kernel.blocks, [BLOCK_BYTES, BLOCK_BYTES, 1]);
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

test("Outbox makes writers wait from 64 KiB on, until there is room", async () => {
  const kernel = new Kernel(Infinity, false);
  const outbox = outboxTo(kernel);
  outbox.post("x".repeat(BLOCK_BYTES - 1));
  await outbox.ready();
  outbox.post("x".repeat(BLOCK_BYTES + 2));
  let sizeThen = Infinity;
  const waiting = outbox.ready().then(() => sizeThen = outbox.size);
  kernel.open();
  await waiting;
  assertEquals(sizeThen, 1);
  await outbox.flush();
});

test("Outbox that is closed releases its writers, and drops what waits and what is added later", async () => {
  const kernel = new Kernel(Infinity, false);
  const outbox = outboxTo(kernel);
  outbox.post("x".repeat(BLOCK_BYTES));
  const waiting = outbox.ready();
  outbox.close("reset");
  await waiting;
  outbox.add("more");
  assertEquals(outbox.size, 0);
  kernel.open();
  await outbox.flush();
  assertEquals(kernel.calls, 1);
});

test("Outbox sends the first post of a turn at once, and the others of that turn together", async () => {
  const kernel = new Kernel();
  const outbox = outboxTo(kernel);
  for (let i = 0; i < 5; i++) outbox.post(`${i}`);
  assertEquals(kernel.calls, 1);
  while (outbox.size > 0) await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(kernel.taken.map((part) => new TextDecoder().decode(part)), ["0", "1234"]);
  outbox.writeNextAtOnce();
  outbox.post("5");
  assertEquals(kernel.calls, 3);
  await outbox.flush();
});

test("Outbox sends 64 KiB that were posted before the turn ends", async () => {
  const kernel = new Kernel();
  const outbox = outboxTo(kernel);
  outbox.post("first");
  await outbox.flush();
  outbox.post("x".repeat(BLOCK_BYTES - 1));
  assertEquals([kernel.calls, outbox.size], [1, BLOCK_BYTES - 1]);
  outbox.post("x");
  assertEquals(kernel.calls, 2);
  await outbox.flush();
  assertEquals(outbox.bytesOut, 5 + BLOCK_BYTES);
});

test("Outbox does not use up a turn's immediate write on a post during another write", async () => {
  const kernel = new Kernel();
  const outbox = outboxTo(kernel);
  outbox.post("0");
  outbox.writeNextAtOnce();
  outbox.post("1");
  // Promises alone do not end the turn of the event loop.
  for (let i = 0; i < 100; i++) await Promise.resolve();
  outbox.post("2");
  await outbox.flush();
  assertEquals(kernel.taken.map((part) => new TextDecoder().decode(part)), ["0", "12"]);
});

test("Outbox reports what a write throws, and a write that takes nothing", async () => {
  const broken = new Kernel();
  broken.write = () => Promise.reject(new Deno.errors.BrokenPipe("gone"));
  const stuck = new Kernel();
  stuck.write = () => Promise.resolve(0);
  for (const [kernel, kind] of [[broken, Deno.errors.BrokenPipe], [stuck, Deno.errors.WriteZero]] as const) {
    const outbox = outboxTo(kernel);
    outbox.add("lost");
    await outbox.flush();
    assert(kernel.failed instanceof kind);
  }
});

test("Outbox writes a flush that is asked for during another one", async () => {
  const kernel = new Kernel(Infinity, false);
  const outbox = outboxTo(kernel);
  outbox.add("one,");
  const first = outbox.flush();
  outbox.add("two");
  const second = outbox.flush();
  kernel.open();
  await Promise.all([first, second]);
  assertEquals([kernel.text, outbox.size], ["one,two", 0]);
});
