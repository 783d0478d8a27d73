/**
 * A test kit: connections in memory ({@linkcode MemoryListener}, {@linkcode TestClient}), a clock that a test moves by hand
 * ({@linkcode FakeClock}), and TLS without certificates ({@linkcode MemoryTls}), so that a handler is tested without a
 * socket and without waiting: an hour of silence takes no time.
 *
 * Pass the first two to the server: `serve({ listener, clock })`; or to code that connects:
 * `connect({ dial: () => listener.dial(), clock })`. Nothing else is replaced, so a test exercises the real server.
 * What the server spreads over several turns of the event loop (a shutdown with `drain: "finish"`, megabytes at once)
 * still takes a few real milliseconds: the clock does not control turns. A graceful close waits up to 2 s, on the clock
 * of the test, for the client to end its side: close each client, as `using` does, or advance the clock.
 *
 * @example Test a line handler
 * ```ts
 * import { serve } from "@x/shouty";
 * import { MemoryListener } from "@x/shouty/testing";
 * import { assertEquals } from "@std/assert";
 *
 * const listener = new MemoryListener();
 * await using _server = serve({ listener }, (name) => `Hello, ${name}!`);
 *
 * const client = listener.connect();
 * await client.write("Ada\r\nGrace");
 * await client.closeWrite();
 * assertEquals(await client.readAll(), "Hello, Ada!\nHello, Grace!\n");
 * ```
 *
 * @example Test a conversation handler, and its idle timeout
 * ```ts
 * import { serveConnections } from "@x/shouty";
 * import { FakeClock, MemoryListener } from "@x/shouty/testing";
 * import { assertEquals } from "@std/assert";
 *
 * const clock = new FakeClock();
 * const listener = new MemoryListener();
 * await using _server = serveConnections({ listener, clock, idleTimeout: 60_000 }, async (conn) => {
 *   await conn.write("Welcome\n");
 *   for await (const line of conn.lines) await conn.write(`You said ${line}\n`);
 * });
 *
 * const client = listener.connect();
 * assertEquals(await client.readLine(), "Welcome");
 * await client.write("nothing\n");
 * assertEquals(await client.readLine(), "You said nothing");
 * await clock.advance(60_000);
 * assertEquals(await client.readLine(), null);
 * ```
 *
 * @example Test code that connects, with a server's own handler at the other end
 * ```ts
 * import { connect, serve } from "@x/shouty";
 * import { FakeClock, MemoryListener } from "@x/shouty/testing";
 * import { assertEquals } from "@std/assert";
 *
 * const clock = new FakeClock();
 * const listener = new MemoryListener();
 * await using _server = serve({ listener, clock });
 *
 * await using conn = await connect({ dial: () => listener.dial(), clock });
 * await conn.write("hello\n");
 * assertEquals(await conn.readLine(), "HELLO");
 * ```
 *
 * @module
 */

export { FakeClock } from "./fake_clock.ts";
export { type MemoryConnectOptions, MemoryListener, type MemoryListenerOptions } from "./memory_listener.ts";
export { MemoryTls, type MemoryTlsInfo, type MemoryTlsOptions } from "./memory_tls.ts";
export { type MemoryStartTlsOptions, type StartTlsOptions, TestClient } from "./test_client.ts";
