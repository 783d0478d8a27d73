/**
 * Measures a heap with a million quiet connections, by simulation: the server is real, its sockets and its clock are not.
 *
 * ```text
 * deno run --v8-flags=--expose-gc,--max-old-space-size=16384 bench/programs/sleepers.ts [COUNT [line|conversation]]
 * ```
 *
 * Each connection sends one line, and then is silent until the idle timeout. What the kernel, and Deno outside V8's heap,
 * hold for a socket is not in these figures; `bench/programs/quiet.ts` measures that.
 *
 * @module
 */

import { serve, serveConnections, type Server } from "@x/shouty";
import { FakeClock } from "@x/shouty/testing";
import { shoutLines } from "../../examples/shout_stream.ts";

const ADDRESS = { transport: "tcp", hostname: "127.0.0.1", port: 1 } as const;
const LINE = new TextEncoder().encode("hello there you\n");
const IDLE_MS = 600_000;
const [count, kind] = [Number(Deno.args[0] ?? 1_000_000), Deno.args[1] ?? "line"];
// V8 adds it with --expose-gc.
const { gc } = globalThis as unknown as { gc?: (options: { type: "major" | "minor" }) => void };
if (gc === undefined) throw new Error("Run it with --v8-flags=--expose-gc,--max-old-space-size=16384");

/** A socket that has one line to read, and then nothing until it is closed. */
class QuietSocket {
  readonly localAddr = ADDRESS;
  readonly remoteAddr = ADDRESS;
  #end: ((count: null) => void) | undefined;
  #spoke = false;

  read(into: Uint8Array): Promise<number | null> {
    if (this.#spoke) return new Promise((resolve) => this.#end = resolve);
    this.#spoke = true;
    into.set(LINE);
    return Promise.resolve(LINE.length);
  }

  write(bytes: Uint8Array): Promise<number> {
    return Promise.resolve(bytes.length);
  }

  closeWrite(): Promise<void> {
    this.#end?.(null); // the peer ends its side too
    return Promise.resolve();
  }

  close(): void {
    this.#end?.(null);
  }

  setNoDelay(): void {}
}

/** Accepts `count` of these sockets, a thousand at a time, and then waits. */
class QuietListener {
  readonly addr = ADDRESS;
  #accepted = 0;
  #stop = Promise.withResolvers<never>();

  async accept(): Promise<QuietSocket> {
    if (this.#accepted === count) return await this.#stop.promise;
    if (++this.#accepted % 1000 === 0) await new Promise((resolve) => setTimeout(resolve));
    return new QuietSocket();
  }

  close(): void {
    this.#stop.promise.catch(() => {});
    this.#stop.reject(new Deno.errors.BadResource("The listener is closed"));
  }
}

/** Notes the longest time for which the event loop was held up. */
class Gaps {
  longest = 0;
  #last = performance.now();
  readonly #timer = setInterval(() => {
    const now = performance.now();
    this.longest = Math.max(this.longest, now - this.#last);
    this.#last = now;
  }, 1);

  stop(): number {
    clearInterval(this.#timer);
    return this.longest;
  }
}

function start(clock: FakeClock): Server {
  const options = { listener: new QuietListener(), clock, idleTimeout: IDLE_MS, maxConnections: Infinity };
  return kind === "line" ? serve(options) : serveConnections(options, shoutLines);
}

/** Waits for something, and looks seldom: `server.stats()` goes through all connections. */
async function until(what: () => boolean): Promise<void> {
  while (!what()) await new Promise((resolve) => setTimeout(resolve, 100));
}

/** Runs `use`; prints how long it took. */
async function timed(what: string, use: () => unknown): Promise<void> {
  const start = performance.now();
  await use();
  console.log(`${what}: ${(performance.now() - start).toFixed(1)} ms`);
}

/** The sockets alone, as the server holds them: this part of the heap is not the server's. */
function socketBytes(): number {
  gc!({ type: "major" });
  const before = Deno.memoryUsage().heapUsed;
  const sockets = Array.from({ length: 10_000 }, () => new QuietSocket());
  // Twice: the second read is the one that waits.
  for (const socket of [...sockets, ...sockets]) socket.read(LINE);
  gc!({ type: "major" });
  return (Deno.memoryUsage().heapUsed - before) / sockets.length;
}

const own = socketBytes();
const clock = new FakeClock();
const empty = Deno.memoryUsage().heapUsed;
const server = start(clock);
await timed(`${count} connections, one line each`, () => until(() => server.stats().lines === count));
gc({ type: "major" });
const each = (Deno.memoryUsage().heapUsed - empty) / count - own;
console.log(
  `heap of one quiet connection (${kind}): ${each.toFixed(0)} bytes; resident: ${
    (Deno.memoryUsage().rss / 2 ** 20).toFixed(0)
  } MiB`,
);
await timed("a full collection", () => gc!({ type: "major" }));
for (let i = 0; i < 3; i++) await timed("a collection of the young space", () => gc!({ type: "minor" }));
await timed("half of the idle timeout, which wakes nobody", () => clock.advance(IDLE_MS / 2));
const gaps = new Gaps();
await timed("the idle timeout of all", async () => {
  await clock.advance(IDLE_MS / 2);
  await until(() => server.stats().active === 0);
});
console.log(`longest time for which the event loop was held up meanwhile: ${gaps.stop().toFixed(0)} ms`);
await server.shutdown();
