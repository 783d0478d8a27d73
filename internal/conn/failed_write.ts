/**
 * Reading on after a write to a server has failed.
 *
 * @module
 */

import type { ClosedEvent } from "../api/events.ts";
import type { Clock } from "../api/serve_options.ts";
import { isReset } from "../api/transport.ts";
import type { OutboxOwner } from "../io/block_writer.ts";
import type { Outbox } from "../io/outbox.ts";
import type { Reader } from "../io/reader.ts";
import type { ConnectionClocks } from "../time/conn_clocks.ts";

/**
 * Maximum time for which a connection to a server, to which nothing can be written any more, waits for the next read of
 * what the server has sent before, in milliseconds; with a read in it, it starts anew.
 */
const UNREAD_MS = 10_000;

/** The parts of the connection. */
interface Parts {
  readonly reader: Reader;
  readonly outbox: Outbox;
  readonly clocks: Pick<ConnectionClocks, "wrote">;
}

/** The connection. */
interface Owner extends OutboxOwner {
  readonly closed: Promise<ClosedEvent>;
}

/**
 * Takes the place of the connection for its outbox. When a write has failed, what the server had sent before can still be
 * read, since it has mostly said why it closes the connection. The connection ends when all of that is read, or nothing is
 * read for a while.
 */
export class FailedWrite implements OutboxOwner {
  readonly #parts: Parts;
  readonly #clock: Clock;
  readonly #owner: Owner;
  #failure: { readonly error: unknown } | undefined;

  /**
   * @param parts The parts of the connection.
   * @param clock The source of time.
   * @param owner The connection.
   */
  constructor(parts: Parts, clock: Clock, owner: Owner) {
    this.#parts = parts;
    this.#clock = clock;
    this.#owner = owner;
  }

  abort(reason: "write-queue"): void {
    this.#owner.abort(reason);
  }

  failed(error: unknown): void {
    const { reader, outbox, clocks } = this.#parts;
    const readable = !reader.over || reader.peerEnded && reader.input.size > 0;
    if (reader.stopped || !readable || !isReset(error)) return this.#owner.failed(error);
    this.#failure = { error };
    outbox.close("reset");
    clocks.wrote();
    this.#awaitReads(reader);
  }

  #awaitReads(reader: Reader): void {
    let taken = -1;
    let cancel = () => {};
    const look = () => {
      const before = taken;
      taken = reader.byteCount - reader.input.size;
      if (taken === before && !reader.wanting) return void this.end();
      cancel = this.#clock.setTimer(look, UNREAD_MS, true);
    };
    look();
    this.#owner.closed.then(() => cancel());
  }

  /**
   * Ends the connection if a write has failed; returns whether that is so. Whatever ends it later, that is the reason, for
   * what was written has been lost.
   */
  end(): boolean {
    if (this.#failure !== undefined) this.#owner.failed(this.#failure.error);
    return this.#failure !== undefined;
  }
}
