/** The end of connections whose peers send their next request as soon as they have a reply. */
import { assert, assertEquals } from "@std/assert";
import type { ServeOptions, TlsInfo } from "@x/shouty";
import { test } from "../../kit/bounded.ts";
import { faulty, tapped } from "../../kit/faults.ts";
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
    let [sent, replies] = [3, 0];
    // What was sent before is answered, also if it is read late.
    await client.write("first\n");
    await clock.advance(0);
    await client.write("second\nthird\n");
    const talk = async () => {
      while (await client.readLine() !== null) {
        if (++replies === sent) sent++, await client.write("again\n").catch(() => {});
      }
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

test("a drain answers all that a peer has sent before with TLS, however long that takes", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 1 << 20 });
  // TLS hands out a record at a time; here, each ends with a line.
  const tls = { version: "TLSv1.3" } as TlsInfo;
  const secure = tapped(faulty(listener, { readBytes: () => 512 }), () => ({ tls }));
  await using t = startConversations({ listener: secure, clock }, async (conn) => {
    for await (const line of conn.lines) {
      await new Promise<void>((resolve) => clock.setTimer(resolve, 20, false));
      await conn.write(`${line}\n`);
    }
  });
  using client = listener.connect();
  await t.until("accepted");
  const lines = `${"x".repeat(63)}\n`.repeat(100);
  await client.write(lines);
  await clock.advance(10);
  t.server.shutdown({ drain: "finish" });
  const answer = client.readAll();
  for (let steps = 0; steps < 300 && t.stats.active > 0; steps++) await clock.advance(20);
  assertEquals((await answer).length, lines.length);
});
