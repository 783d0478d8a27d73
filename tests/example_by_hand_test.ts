import { assertEquals, assertRejects } from "@std/assert";
import { type ByHandOptions, serveByHand } from "../examples/by_hand.ts";
import { test } from "./bounded.ts";

test("by_hand shouts every line, the unterminated last one too", async () => {
  await using t = start();
  assertEquals(await t.talk("Hello. How are you?\r\n\nstraße\nbye"), "HELLO. HOW ARE YOU?\n\nSTRASSE\nBYE\n");
});

test("by_hand ends a client that is silent or over the limit, and nobody else notices", async () => {
  await using t = start({ idleTimeout: 1000 });
  assertEquals(await t.talk("hello\n", { end: false }), "HELLO\n");
  assertEquals(await t.talk(`${"x".repeat(3000)}\n`), "");
  assertEquals(await t.talk("still there\n"), "STILL THERE\n");
});

test("by_hand ends a client that does not read", async () => {
  await using t = start({ idleTimeout: 1000 });
  using conn = await t.connect();
  const lines = new TextEncoder().encode(`${"x".repeat(100)}\n`.repeat(1000));
  await assertRejects(async () => {
    while (true) await conn.write(lines);
  });
});

test("by_hand's end waits for the connections that there are", async () => {
  await using t = start();
  using conn = await t.connect();
  await conn.write(new TextEncoder().encode("hello\n"));
  await conn.read(new Uint8Array(6));
  let isOver = false;
  t.finished.then(() => isOver = true);
  t.stop.abort();
  await conn.write(new TextEncoder().encode("bye\n"));
  await conn.read(new Uint8Array(4));
  assertEquals(isOver, false);
  await conn.closeWrite();
  await t.finished;
});

function start(options: Partial<ByHandOptions> = {}) {
  const stop = new AbortController();
  const { addr, finished } = serveByHand({ port: 0, idleTimeout: 10_000, signal: stop.signal, ...options });
  const connect = () => Deno.connect({ hostname: addr.hostname, port: addr.port });
  return {
    ...{ stop, finished, connect },
    async talk(text: string, { end = true } = {}): Promise<string> {
      using conn = await connect();
      await conn.write(new TextEncoder().encode(text));
      if (end) await conn.closeWrite();
      return await readText(conn);
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await finished;
    },
  };
}

/** What comes until the end, or until the connection is reset. */
async function readText(conn: Deno.Conn): Promise<string> {
  const buffer = new Uint8Array(1024);
  let text = "";
  for (let count; (count = await conn.read(buffer).catch(() => null)) !== null;) {
    text += new TextDecoder().decode(buffer.subarray(0, count));
  }
  return text;
}
