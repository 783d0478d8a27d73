/**
 * The limiter and the reply path in isolation: `deno bench`.
 *
 * @module
 */

import type { Limiter } from "../../internal/lines/limiter.ts";
import { limiterOf } from "../../tests/kit/framing/limiter.ts";
import { Outbox } from "../../internal/io/outbox.ts";
import { shout } from "../../internal/lines/shout.ts";
import { decodeLines } from "../../internal/lines/text.ts";

const LIMITS = { maxLineBytes: 65_536, maxConnectionBytes: Infinity };

/** Blocks of lines, as a client sends them. */
const BLOCKS = {
  "1 line of 16 bytes": [1, 16],
  "100 lines of 16 bytes": [100, 16],
  "1000 lines of 60 bytes": [1000, 60],
};

for (const [name, [count, bytes]] of Object.entries(BLOCKS)) {
  const input = new TextEncoder().encode(`${"x".repeat(bytes)}\n`.repeat(count));
  const limiter = limiterOf(LIMITS);
  const transport = {
    closeWrite: () => Promise.resolve(),
    write: (bytes: Uint8Array) => Promise.resolve(bytes.length),
  };
  const owner = { failed() {}, abort() {} };
  const outbox = new Outbox(
    transport,
    { writing() {}, grown() {}, wrote() {} },
    { holdOutput() {}, output: 0, stuck: false },
    owner,
  );

  Deno.bench(`the limiter takes ${name}`, { group: name }, () => {
    feed(limiter, input, () => {});
  });

  Deno.bench(`the limiter, shout and the outbox answer ${name}`, { group: name }, async () => {
    feed(limiter, input, (block) => outbox.add(shout.block(decodeLines(block))));
    await outbox.flush();
  });
}

const LONG = new Uint8Array(65_536).fill(120);

Deno.bench("the limiter takes a line of 64 KiB byte by byte", () => {
  const limiter = limiterOf(LIMITS);
  for (const byte of LONG) {
    limiter.input.space(limiter.mostBytes)[0] = byte;
    limiter.take(1);
  }
});

/** Passes bytes through a limiter, and each of its blocks to `pass`. */
function feed(limiter: Limiter, input: Uint8Array, pass: (block: Uint8Array) => void): void {
  for (let rest = input; rest.length > 0;) {
    const space = limiter.input.space(limiter.mostBytes);
    const part = rest.subarray(0, space.length);
    space.set(part);
    const block = limiter.take(part.length);
    if (block !== undefined) pass(block);
    rest = rest.subarray(part.length);
  }
}
