/**
 * Connections that are turned away.
 *
 * @module
 */

import type { Clock } from "../api/clock.ts";
import { linger, LINGER_MS } from "../conn/linger.ts";
import { closeQuietly, type Transport } from "../api/transport.ts";

/** So many are closed politely at a time; a storm of them must cost nothing. */
const MAX_LINGERING = 100;

/** Tells peers why they are turned away, and closes their transports, which it owns. */
export class Rejects {
  readonly #clock: Clock;
  readonly #lingering = new Set<Transport>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Turns one away.
   *
   * @param transport Its transport.
   * @param line What to tell it; may be empty.
   */
  async add(transport: Transport, line: string): Promise<void> {
    if (this.#lingering.size >= MAX_LINGERING) return closeQuietly(transport);
    this.#lingering.add(transport);
    const isClosed = () => !this.#lingering.has(transport);
    const cancel = this.#clock.setTimer(() => this.#drop(transport), LINGER_MS, false);
    try {
      const bytes = new TextEncoder().encode(line);
      let count = 1;
      for (let sent = 0; sent < bytes.length && count > 0 && !isClosed(); sent += count) {
        count = await transport.write(bytes.subarray(sent));
      }
      if (!isClosed()) await linger(transport, () => transport.closeWrite(), isClosed);
    } catch {
      // It has left without waiting for an answer.
    }
    cancel();
    this.#drop(transport);
  }

  /** Closes those that are still there; they have been told. */
  close(): void {
    for (const transport of this.#lingering) this.#drop(transport);
  }

  #drop(transport: Transport): void {
    if (this.#lingering.delete(transport)) closeQuietly(transport);
  }
}
