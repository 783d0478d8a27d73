import { assertEquals } from "@std/assert";
import { AcceptRejection } from "@x/shouty";
import { MemoryListener } from "@x/shouty/testing";
import { test } from "../../kit/bounded.ts";
import { inMemory, startServer } from "../../kit/server.ts";

/** A listener that rejects the first 200 connections. */
class Picky extends MemoryListener {
  left = 200;

  override accept() {
    if (this.left-- <= 0) return super.accept();
    const cause = new Error("I do not like the header");
    return Promise.reject(new AcceptRejection("proxy-header", { ...this.addr, port: 5 } as Deno.NetAddr, { cause }));
  }
}

test("A connection that the listener rejects is reported and counted, and no pause follows", async () => {
  const listener = new Picky();
  // The clock stands still, so a pause would last for ever.
  const { clock } = inMemory();
  await using t = startServer({ listener, clock });
  using client = listener.connect();
  await client.write("hello\n");
  assertEquals(await client.readLine(), "HELLO");
  assertEquals(t.stats.rejected, 200);
  assertEquals(t.all("accept-error"), []);
  const { error, ...event } = t.all("rejected")[199];
  const remoteAddr = { transport: "tcp", hostname: "127.0.0.1", port: 5 } as const;
  assertEquals(event, { type: "rejected", reason: "proxy-header", remoteAddr });
  assertEquals((error as Error).message, "I do not like the header");
});
