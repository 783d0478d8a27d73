import { assertEquals, fail } from "@std/assert";
import { BLOCK_BYTES } from "../../internal/memory/buffer_pool.ts";
import { Outbox } from "../../internal/io/outbox.ts";

Deno.test("Outbox sends a full block before the turn ends in which it was posted", async () => {
  let sent = 0;
  const transport = {
    closeWrite: () => Promise.resolve(),
    write: (bytes: Uint8Array) => (sent += bytes.length, Promise.resolve(bytes.length)),
  };
  const owner = { failed: (error: unknown) => fail(String(error)), abort() {} };
  const outbox = new Outbox(
    transport,
    { writing() {}, grown() {}, wrote() {} },
    { holdOutput() {}, output: 0, stuck: false },
    owner,
  );
  outbox.post("The first leaves at once.\n");
  for (let i = 0; i < 64; i++) outbox.post("x".repeat(BLOCK_BYTES / 64));
  // Promises alone do not end the turn of the event loop.
  for (let i = 0; i < 100; i++) await Promise.resolve();
  assertEquals([sent, outbox.size], [26 + BLOCK_BYTES, 0]);
});
