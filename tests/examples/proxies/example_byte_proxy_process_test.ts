import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { TestClient } from "@x/shouty/testing";
import { testOnce } from "../../kit/bounded.ts";
import { listening, NO_SIGNALS, Subprocess } from "../../kit/command.ts";

const MEBIBYTE = 1024 * 1024;
const NO_PROC = Deno.build.os === "linux" ? "" : " (skipped: only Linux tells the memory of a process in /proc)";

testOnce(
  "byte_proxy holds little while 100 MB go each way at once, to readers that are slow",
  async () => {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const args = ["run", "-A", "examples/byte_proxy.ts", "0", `127.0.0.1:${listener.addr.port}`];
    await using proxy = await listening(new Subprocess(Deno.execPath(), args));
    using client = new TestClient(await Deno.connect({ port: proxy.port }));
    using target = new TestClient(await listener.accept());
    const memory = (what: string) =>
      Number(new RegExp(`${what}:\\s+(\\d+) kB`).exec(Deno.readTextFileSync(`/proc/${proxy.pid}/status`))![1]) / 1024;
    const before = memory("VmRSS");
    const counts = await Promise.all([send(client), send(target), sip(client), sip(target)]);
    assertEquals(counts, Array(4).fill(100 * MEBIBYTE));
    assertGreater(before, 10);
    assertLess(memory("VmHWM") - before, 80);
  },
  120,
  NO_PROC,
);

testOnce(
  "byte_proxy ends at a signal, when its clients have",
  async () => {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const args = ["run", "-A", "examples/byte_proxy.ts", "0", `127.0.0.1:${listener.addr.port}`];
    await using proxy = await listening(new Subprocess(Deno.execPath(), args));
    using client = new TestClient(await Deno.connect({ port: proxy.port }));
    using target = new TestClient(await listener.accept());
    proxy.signal("SIGTERM");
    await target.write("last words");
    await target.closeWrite();
    assertEquals(await client.readAll(), "last words");
    await client.closeWrite();
    assertEquals(await proxy.exitCode(), 0);
  },
  60,
  NO_SIGNALS,
);

/** Sends 100 MB as fast as they are taken, and ends this side. */
async function send(to: TestClient): Promise<number> {
  const block = new Uint8Array(MEBIBYTE);
  for (let i = 0; i < 100; i++) await to.write(block);
  await to.closeWrite();
  return 100 * block.length;
}

/** Reads all there is, with a pause after each block; returns the number of bytes. */
async function sip(from: TestClient): Promise<number> {
  let count = 0;
  for (let bytes; (bytes = await from.read()) !== null; count += bytes.length) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  return count;
}
