/** The end of connections whose peers send their next request as soon as they have a reply. */
import { assert, assertEquals } from "@std/assert";
import type { ServeOptions } from "@x/shouty";
import { test } from "../../kit/bounded.ts";
import { inMemory, startConversations } from "../../kit/server.ts";

/** How the input is ended, and the time of a handler for one line, in milliseconds. */
const ENDS: Readonly<Record<string, readonly [ServeOptions, number]>> = {
  "drained": [{}, 200],
  "max-age": [{ maxAge: 1000 }, 1500],
  "max-lines": [{ maxLines: 2 }, 1500],
};

for (const [reason, [options, workMs]] of Object.entries(ENDS)) {
  test(`${reason} ends a peer that asks again as soon as it has a reply, and owes it none`, async () => {
    const { listener, clock } = inMemory();
    await using t = startConversations({ listener, clock, ...options }, async (conn) => {
      for await (const line of conn.lines) {
        await new Promise<void>((resolve) => clock.setTimer(resolve, workMs, false));
        await conn.write(`${line}\n`);
      }
    });
    const client = await t.admitted();
    let replies = 0;
    // What was sent before is answered, also if it is read late.
    await client.write("first\n");
    await clock.advance(0);
    await client.write("second\nthird\n");
    const talk = async () => {
      for (; await client.readLine() !== null; replies++) await client.write("again\n").catch(() => {});
      client.close();
    };
    const talked = talk();
    if (reason === "drained") t.server.shutdown({ drain: "finish" });
    for (let steps = 0; steps < 120 && t.stats.active > 0; steps++) await clock.advance(100);
    await talked;
    const { lines, reason: why } = await t.closed();
    assertEquals([why, lines], [reason, replies]);
    assert(replies >= 3 && replies <= 12, `${replies} replies`);
  });
}
