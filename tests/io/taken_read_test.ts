import { assertEquals, assertNotStrictEquals, assertRejects } from "@std/assert";
import type { Transport } from "@x/shouty";
import { TakenRead } from "../../internal/io/taken_read.ts";
import { InputBuffer } from "../../internal/lines/input_buffer.ts";
import { test } from "../kit/bounded.ts";

/** A transport whose reads bring these bytes, one each. */
function bringing(...bytes: number[]): Transport {
  const addr = { transport: "tcp", hostname: "127.0.0.1", port: 1 } as const;
  return {
    remoteAddr: addr,
    localAddr: addr,
    read(into) {
      const byte = bytes.shift();
      if (byte !== undefined) into[0] = byte;
      return Promise.resolve(byte === undefined ? null : 1);
    },
    write: (data) => Promise.resolve(data.length),
    closeWrite: () => Promise.resolve(),
    close: () => {},
  };
}

async function readAll(transport: Transport): Promise<number[]> {
  const all = [];
  const into = new Uint8Array(2);
  for (let count; (count = await transport.read(into)) !== null;) all.push(...into.subarray(0, count));
  return all;
}

test("the bytes of a read that is taken over come first, however small the buffers are", async () => {
  const taken = new TakenRead(bringing(6, 7), Promise.resolve(Uint8Array.of(1, 2, 3, 4, 5)));
  assertEquals(await readAll(taken), [1, 2, 3, 4, 5, 6, 7]);
  assertEquals(await readAll(new TakenRead(bringing(), Promise.resolve(null))), []);
});

test("a read that is taken over and fails makes the next read fail, and nothing else", async () => {
  const taken = new TakenRead(bringing(1), Promise.reject(new Deno.errors.ConnectionReset("reset")));
  await new Promise((resolve) => setTimeout(resolve, 0));
  await assertRejects(() => taken.read(new Uint8Array(2)), Deno.errors.ConnectionReset);
});

test("a buffer that is given away to an outstanding read is used for nothing else", () => {
  const input = new InputBuffer(Infinity);
  input.space(100);
  input.added(2);
  input.take(2);
  const space = input.giveAway();
  assertEquals([space.byteOffset, space.length], [2, 254]);
  assertNotStrictEquals(input.space(100).buffer, space.buffer);
  assertEquals([input.size, input.searched], [0, 0]);
});
