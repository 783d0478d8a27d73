import { assertEquals } from "@std/assert";
import { type ConnHandler, serveConnections, type ServerEvent } from "@x/shouty";

/** Serves one client that sends and reads nothing until the connection ends, and returns how it ended. */
async function endings(handler: ConnHandler): Promise<string[]> {
  const told: string[] = [];
  const { promise: over, resolve } = Promise.withResolvers<void>();
  const onEvent = (event: ServerEvent) => {
    if (event.type === "handler-error") told.push(`handler-error: ${event.error}`);
    if (event.type === "closed") told.push(event.reason);
  };
  await using server = serveConnections({ hostname: "127.0.0.1", port: 0, writeTimeout: 50, onEvent }, async (conn) => {
    try {
      await handler(conn);
    } finally {
      resolve();
    }
  });
  using _client = await Deno.connect({ port: (server.addr as Deno.NetAddr).port });
  await over;
  await server.shutdown();
  return told;
}

Deno.test("a handler that writes to a connection that is being closed has not failed", async () => {
  const told = await endings(async (conn) => {
    // More than the kernel takes, so that the graceful close is not over at once.
    conn.write("x".repeat(32 * 1024 * 1024));
    conn.close();
    await conn.write("Too late.\n");
  });
  assertEquals(told, ["write-timeout"]);
});

Deno.test("a handler that its connection's signal interrupts has not failed", async () => {
  const told = await endings(async (conn) => {
    const { promise: called, reject } = Promise.withResolvers<never>();
    conn.signal.addEventListener("abort", () => reject(conn.signal.reason));
    conn.write("x".repeat(32 * 1024 * 1024));
    await called;
  });
  assertEquals(told, ["write-timeout"]);
});
