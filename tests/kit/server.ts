/**
 * A server under test. It records the server's events, and checks its counters when it is disposed of.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import {
  type ClosedEvent,
  type ConnHandler,
  type ConnInfo,
  type LineHandler,
  type Listener,
  serve,
  serveConnections,
  type ServeOptions,
  type Server,
  type ServerEvent,
  type ServerStats,
  shout,
} from "@x/shouty";
import { FakeClock, MemoryListener, TestClient } from "@x/shouty/testing";
import { shoutLines } from "../../examples/shout_stream.ts";
import { shoutStreams } from "../../examples/streams.ts";

/** Makes the listeners of the tests, if it is set; `Deno.listen` does by default. */
export const SOCKETS: {
  listen?: (address: { hostname: string; port: number }) => Listener;
  /** Whether they tell of a reset while nothing is read. */
  tellResets?: boolean;
} = {};

/** Listens on a free port of the loopback. */
export function listenLoopback(): Listener {
  const address = { hostname: "127.0.0.1", port: 0 };
  return SOCKETS.listen?.(address) ?? Deno.listen(address);
}

/** Starts a server with one of the ways in; what it keeps for each connection is its own matter. */
export type Start = (options: ServeOptions) => Server<unknown>;

/** Starts the shouter with each way in: every kind of handler that a server can have. */
export const WAYS_IN: Readonly<Record<string, Start>> = {
  "shout": (options) => serve(options),
  "a block handler": (options) => serve(options, Object.assign((line: string) => shout(line), { block: shout.block })),
  "a line handler": (options) => serve(options, (line) => shout(line)),
  "an async line handler": (options) => serve(options, (line) => Promise.resolve(shout(line))),
  "a conversation": (options) => serveConnections(options, shoutLines),
  "a conversation in streams": (options) => serveConnections(options, shoutStreams(options.maxLineBytes)),
};

type EventOf<Type extends ServerEvent["type"]> = Extract<ServerEvent, { type: Type }>;

/** A server, its events, and its clients. */
export class TestServer implements AsyncDisposable {
  readonly server: Server<unknown>;
  readonly events: ServerEvent[] = [];
  readonly #clock: unknown;
  readonly #memory: MemoryListener | undefined;
  readonly #clients: TestClient[] = [];
  #news = Promise.withResolvers<void>();

  constructor(start: Start, options: ServeOptions) {
    this.#clock = options.clock;
    this.#memory = options.listener instanceof MemoryListener ? options.listener : undefined;
    const onEvent = (event: ServerEvent) => {
      this.events.push(event);
      this.#news.resolve();
      this.#news = Promise.withResolvers();
      return options.onEvent?.(event);
    };
    const { listener = SOCKETS.listen && listenLoopback() } = options;
    this.server = start({ hostname: "127.0.0.1", port: 0, ...options, listener, onEvent });
  }

  get stats(): ServerStats {
    return this.server.stats();
  }

  get port(): number {
    return (this.server.addr as Deno.NetAddr).port;
  }

  /** Returns the events of one type, in order. */
  all<Type extends ServerEvent["type"]>(type: Type): EventOf<Type>[] {
    return this.events.filter((event): event is EventOf<Type> => event.type === type);
  }

  /** Waits until there have been `count` events of a type; returns the last of them. */
  async until<Type extends ServerEvent["type"]>(type: Type, count = 1): Promise<EventOf<Type>> {
    while (this.all(type).length < count) await this.#news.promise;
    return this.all(type)[count - 1];
  }

  /** Waits until `count` connections have ended; returns the last one's event. */
  closed(count = 1): Promise<ClosedEvent> {
    return this.until("closed", count);
  }

  /** Connects a client, which is closed with the server. */
  async connect(): Promise<TestClient> {
    return this.own(this.#memory?.connect() ?? new TestClient(await Deno.connect({ port: this.port })));
  }

  /** Closes a client with the server. */
  own(client: TestClient): TestClient {
    this.#clients.push(client);
    return client;
  }

  /** Connects a client and waits until it is served. */
  async admitted(): Promise<TestClient> {
    const client = await this.connect();
    const { port } = client.addr as Deno.NetAddr;
    const isIts = ({ conn }: { conn: ConnInfo }) => (conn.remoteAddr as Deno.NetAddr).port === port;
    while (!this.all("accepted").some(isIts)) await this.#news.promise;
    return client;
  }

  /** Connects a client, sends something, ends the client's side, and returns everything that comes back. */
  async talk(input: string | Uint8Array): Promise<string> {
    using client = await this.connect();
    await client.write(input);
    await client.closeWrite();
    return await client.readAll();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client[Symbol.dispose]();
    const stopping = this.server.shutdown({ drainTimeout: 50 });
    if (this.#clock instanceof FakeClock) await this.#clock.advance(50);
    await stopping;
    checkBooks(this);
  }
}

/** Starts a server on a free port of the loopback, or on the listener in the options. */
export function startServer(options: ServeOptions = {}, handler: LineHandler = shout): TestServer {
  return new TestServer((options) => serve(options, handler), options);
}

/** The same, for conversations. */
export function startConversations(options: ServeOptions, handler: ConnHandler): TestServer {
  return new TestServer((options) => serveConnections(options, handler), options);
}

/** Makes a listener in memory, and a clock that only the test advances. */
export function inMemory(options: { bufferBytes?: number } = {}): { listener: MemoryListener; clock: FakeClock } {
  return { listener: new MemoryListener(options), clock: new FakeClock() };
}

/** Checks the counters of a server that has been shut down, whatever happened before. */
function checkBooks(t: TestServer): void {
  const { accepted, active, closed, rejected, gone, lines, bytesIn, bytesOut } = t.stats;
  assertEquals([t.server.state, active], ["closed", 0]);
  assertEquals(accepted, Object.values(closed).reduce((sum, count) => sum + count));
  const ends = t.all("closed");
  const ids = Array.from({ length: accepted }, (_, i) => i + 1);
  assertEquals(t.all("accepted").map(({ conn }) => conn.id), ids, "One start per connection");
  assertEquals(ends.map(({ conn }) => conn.id).sort((a, b) => a - b), ids, "One end per connection");
  for (const [reason, count] of Object.entries(closed)) {
    assertEquals(ends.filter((event) => event.reason === reason).length, count);
  }
  assertEquals([t.all("rejected").length, t.all("gone").length], [rejected, gone]);
  const total = (name: "lines" | "bytesIn" | "bytesOut") => ends.reduce((sum, event) => sum + event[name], 0);
  assertEquals([lines, bytesIn, bytesOut], [total("lines"), total("bytesIn"), total("bytesOut")]);
  checkShutdown(t.events, t.server.addrs.length);
}

/** Checks that each listener was reported, that a shutdown began and ended once, and that it reported exactly the connections that ended in between. */
function checkShutdown(events: ServerEvent[], listeners: number): void {
  const types = events.map((event) => event.type);
  assertEquals([types[0], types.at(-1)], ["listening", "stopped"]);
  const once = types.filter((type) => ["listening", "draining", "stopped"].includes(type));
  assertEquals(once, [...Array(listeners).fill("listening"), "draining", "stopped"]);
  const during = events.slice(types.indexOf("draining")).filter((event) => event.type === "closed");
  const { report } = events.at(-1) as EventOf<"stopped">;
  const counts: Record<string, number> = {};
  for (const { reason } of during) counts[reason] = (counts[reason] ?? 0) + 1;
  assertEquals<unknown>(report.closed, counts);
}
