import { assertEquals, assertLessOrEqual } from "@std/assert";
import { harmless } from "../../internal/api/errors.ts";
import { test } from "../kit/bounded.ts";
import { inMemory, startServer } from "../kit/server.ts";

test("maxBytesPerSecond holds while a slow handler answers blocks, and the server reads ahead meanwhile", async () => {
  const { listener, clock } = inMemory();
  const blocks: string[] = [];
  const block = async (lines: string) => {
    blocks.push(lines);
    await new Promise<void>((resolve) => clock.setTimer(resolve, 700, true));
    return lines;
  };
  const handler = Object.assign((line: string) => line, { block });
  await using t = startServer({ listener, clock, maxBytesPerSecond: 100 }, handler);
  const client = await t.admitted();
  const replies = harmless(client.readAll());
  await client.write("123456789\n".repeat(90));
  await client.closeWrite();
  for (let ms = 0; ms < 6000; ms += 100) {
    await clock.advance(100);
    assertLessOrEqual(t.stats.bytesIn, 100 + (ms + 100) / 10, `${t.stats.bytesIn} bytes after ${ms + 100} ms`);
  }
  await clock.advance(10_000);
  assertEquals([await replies, blocks.join("")], ["123456789\n".repeat(90), "123456789\n".repeat(90)]);
});
