/**
 * Several workers under test. It records what they tell, and checks their counters when it is disposed of.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import type { ServerEvent } from "@x/shouty";
import { serveWorkers, type ServeWorkersOptions, type WorkerEvent, type WorkersServer } from "@x/shouty/ops";
import { TestClient } from "@x/shouty/testing";
import { NO_EPOLL } from "../sockets/epoll.ts";
import { test } from "../bounded.ts";

type Recorded = ServerEvent | WorkerEvent;
type EventOf<Type extends Recorded["type"]> = Extract<Recorded, { type: Type }>;

/** The module of the workers. */
export const SHOUT: URL = new URL("./shout.ts", import.meta.url);

/** The sockets that a test uses. */
export type Engine = "deno" | "epoll";

/** Registers a test once for each engine. */
export function testEngines(name: string, body: (engine: Engine) => Promise<void>, seconds = 90): void {
  test(`${name}, on Deno's sockets`, () => body("deno"), seconds);
  test(`${name}, on epoll`, () => body("epoll"), seconds, NO_EPOLL);
}

/** A server with workers, its events, and its clients. */
export class TestWorkers implements AsyncDisposable {
  server!: WorkersServer;
  readonly events: Recorded[] = [];
  readonly clients: TestClient[] = [];
  #news = Promise.withResolvers<void>();

  static async start(options: Partial<ServeWorkersOptions> = {}): Promise<TestWorkers> {
    const t = new TestWorkers();
    const record = (event: Recorded) => t.#record(event);
    const place = { hostname: "127.0.0.1", port: 0, workers: 2, module: SHOUT };
    t.server = await serveWorkers({ ...place, drainTimeout: 50, ...options, onEvent: record, onWorker: record });
    return t;
  }

  get port(): number {
    return (this.server.addr as Deno.NetAddr).port;
  }

  all<Type extends Recorded["type"]>(type: Type): EventOf<Type>[] {
    return this.events.filter((event): event is EventOf<Type> => event.type === type);
  }

  /** Waits until something is so; it is asked after each event. */
  async until(isSo: () => boolean): Promise<void> {
    while (!isSo()) await this.#news.promise;
  }

  /** Waits for a number of events of a type. */
  async untilSeen<Type extends Recorded["type"]>(type: Type, count = 1): Promise<EventOf<Type>[]> {
    await this.until(() => this.all(type).length >= count);
    return this.all(type);
  }

  async connect(): Promise<TestClient> {
    const client = new TestClient(await Deno.connect({ hostname: "127.0.0.1", port: this.port }));
    this.clients.push(client);
    return client;
  }

  /** Connects clients one after the other, each of which is answered before the next. */
  async connectMany(count: number): Promise<TestClient[]> {
    const clients: TestClient[] = [];
    for (let i = 0; i < count; i++) {
      const client = await this.connect();
      assertEquals(await ask(client, "hello"), "HELLO");
      clients.push(client);
    }
    return clients;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.clients) client[Symbol.dispose]();
    await this.server.shutdown();
    this.#checkBooks();
  }

  /** Checks that each connection has begun and ended once, and that the counters say the same as the events. */
  #checkBooks(): void {
    const stats = this.server.stats();
    const ends = this.all("closed");
    const ids = this.all("accepted").map(({ conn }) => conn.id).toSorted((a, b) => a - b);
    assertEquals(new Set(ids).size, ids.length, "No two connections have one number");
    assertEquals(ends.map(({ conn }) => conn.id).toSorted((a, b) => a - b), ids, "One end per connection");
    const counted = Object.values(stats.closed).reduce((sum, count) => sum + count);
    assertEquals([stats.accepted, stats.active, counted], [ids.length, 0, ids.length]);
    assertEquals([stats.rejected, stats.gone], [this.all("rejected").length, this.all("gone").length]);
    assertEquals(this.all("listening").length, this.server.addrs.length);
    assertEquals([this.all("draining").length, this.all("stopped").length], [1, 1]);
    assertEquals(this.server.workers.map(({ state }) => state), this.server.workers.map(() => "ended"));
  }

  #record(event: Recorded): void {
    this.events.push(event);
    this.#news.resolve();
    this.#news = Promise.withResolvers();
  }
}

/** Sends a line, and returns the reply. */
export async function ask(client: TestClient, line: string): Promise<string | null> {
  await client.write(`${line}\n`);
  return await client.readLine();
}
