/**
 * Ends rejected connections.
 *
 * @module
 */

import type { Clock } from "../api/serve_options.ts";
import { linger, LINGER_MS } from "../conn/ending.ts";
import { closeQuietly, type Transport } from "../api/transport.ts";

/**
 * Maximum number of graceful closes at a time; further connections are closed at once, so a storm of them costs little.
 */
const MAX_LINGERING = 100;

/** Sends an error line to the peers of rejected connections, and closes their transports, which it owns. */
export class Rejects {
  readonly #clock: Clock;
  readonly #lingering = new Set<Transport>();
  #closed = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Sends an error line, and closes the transport gracefully; closes it at once if too many are being closed already, or
   * if the hook that was told of the rejection has shut the server down.
   *
   * @param transport The transport of the rejected connection.
   * @param line The error line with its end; may be empty.
   */
  async add(transport: Transport, line: string | Uint8Array): Promise<void> {
    if (this.#closed || this.#lingering.size >= MAX_LINGERING) return closeQuietly(transport);
    this.#lingering.add(transport);
    const isClosed = () => !this.#lingering.has(transport);
    const cancel = this.#clock.setTimer(() => this.#drop(transport), LINGER_MS, false);
    try {
      const bytes = typeof line === "string" ? new TextEncoder().encode(line) : line;
      let count = 1;
      for (let sent = 0; sent < bytes.length && count > 0 && !isClosed(); sent += count) {
        count = await transport.write(bytes.subarray(sent));
      }
      if (!isClosed()) await linger(transport, () => transport.closeWrite(), isClosed);
    } catch {
      // The peer has left without waiting for the error line.
    }
    cancel();
    this.#drop(transport);
  }

  /** Closes the connections that are still open; their error lines have been sent. */
  close(): void {
    this.#closed = true;
    for (const transport of this.#lingering) this.#drop(transport);
  }

  #drop(transport: Transport): void {
    if (this.#lingering.delete(transport)) closeQuietly(transport);
  }
}
