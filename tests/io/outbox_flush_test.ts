import { assert, assertEquals, assertRejects } from "@std/assert";
import { ConnectionClosedError } from "../../internal/api/errors.ts";
import { test } from "../kit/bounded.ts";
import { Kernel, outboxTo } from "../kit/outbox.ts";

const BLOCK_BYTES = 64 * 1024;

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
