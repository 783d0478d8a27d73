/**
 * A pool of connections under test.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { connectPool, type ConnHandler, type ConnPool, type PoolEvent, type PoolOptions } from "@x/shouty";
import { FakeClock, MemoryListener, TestClient } from "@x/shouty/testing";

/** A pool whose connections are in memory, and what happened to it. */
export class TestPool implements AsyncDisposable {
  readonly clock: FakeClock = new FakeClock();
  readonly #listener = new MemoryListener();
  readonly events: PoolEvent[] = [];
  /** The servers' ends of the connections, in the order in which they were opened. */
  readonly peers: TestClient[] = [];
  /** When each was asked for, in milliseconds. */
  readonly dialled: number[] = [];
  readonly pool: ConnPool;
  /** What the next attempts fail with. */
  failure: Error | undefined;

  constructor(options: PoolOptions, handler: ConnHandler) {
    const dial = async () => {
      this.dialled.push(this.clock.now());
      if (this.failure !== undefined) throw this.failure;
      const transport = await this.#listener.dial();
      this.peers.push(new TestClient(await this.#listener.accept()));
      return transport;
    };
    this.pool = connectPool(
      { dial, clock: this.clock, onEvent: (event) => this.events.push(event), ...options },
      handler,
    );
  }

  all<Type extends PoolEvent["type"]>(type: Type): Extract<PoolEvent, { type: Type }>[] {
    return this.events.filter((event) => event.type === type) as never;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const peer of this.peers) peer[Symbol.dispose]();
    const stopped = this.pool.shutdown({ drainTimeout: 10 });
    await this.clock.advance(2100);
    await stopped;
    const { accepted, active, closed, connecting } = this.pool.stats();
    assertEquals([active, connecting], [0, 0]);
    assertEquals(accepted, Object.values(closed).reduce((sum, count) => sum + count));
    assertEquals(this.all("accepted").length, this.all("closed").length);
  }
}

/** Shouts at the other side, until that ends. */
export const shouting: ConnHandler = async (conn) => {
  for await (const line of conn.lines) await conn.write(`${line.toUpperCase()}!\n`);
};
