/** What a connection counts against `maxBufferedBytes` when it has ended. */
import { assert, assertEquals } from "@std/assert";
import type { Conn } from "@x/shouty";
import type { LineServer } from "../../server.ts";
import { test } from "../kit/bounded.ts";
import { inMemory, startConversations } from "../kit/server.ts";

test("a connection that ends while its handler waits for memory counts no longer", async () => {
  const { listener, clock } = inMemory();
  const conns: Conn[] = [];
  await using t = startConversations({ listener, clock, maxBufferedBytes: 100_000, drain: "finish" }, async (conn) => {
    conns.push(conn as Conn);
    await conn.readLine();
  });
  const { budget } = t.server as LineServer<unknown>;
  const [reader, deaf] = [await t.admitted(), await t.admitted()];
  // A buffer of 64 KiB, more than half of the limit.
  await reader.write("x".repeat(60_000));
  await clock.advance(1);
  assert(budget.tight);
  conns[1].write(new Uint8Array(150_000));
  await clock.advance(1);
  assert(budget.crowded);
  await reader.write("y");
  await clock.advance(1);
  conns[0].writable.abort();
  assertEquals((await t.closed()).reason, "closed");
  deaf.reset();
  await t.closed(2);
  assertEquals([budget.tight, budget.crowded], [false, false]);
});
