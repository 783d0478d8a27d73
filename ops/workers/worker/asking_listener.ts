/**
 * A worker's listener: each connection that it accepts, it asks about.
 *
 * @module
 */

import { closeQuietly, type Listener, type Transport } from "../../../internal/api/transport.ts";
import { type Member, MemberList } from "../../../internal/memory/member_list.ts";
import { AcceptQueue } from "../../../internal/server/accept_queue.ts";
import { setNumber } from "../../../internal/server/numbers.ts";
import { ForwardingListener } from "../../wrappers/forwarding_listener.ts";
import type { Rejection, Verdict } from "../shared/wire.ts";

/** Decides about connections. */
export interface Admitter {
  /** Maximum number of connections about which a listener may be asking. */
  readonly most: number;
  /** Asks about a connection from this address. */
  ask(addr: Deno.Addr): Promise<Verdict>;
  /** Ends a connection that was rejected; it owns the transport. */
  reject(transport: Transport, rejection: Rejection): void;
}

/** A connection that is being asked about. */
interface Asked extends Member {
  readonly transport: Transport;
}

/**
 * Accepts connections from another listener, and returns those that are admitted, with their numbers.
 *
 * It accepts further connections while it waits for an answer, as far as the admitter allows: a busy worker gets its answers
 * once in a turn of its event loop.
 */
export class AskingListener extends ForwardingListener {
  readonly #admitter: Admitter;
  readonly #asked = new MemberList<Asked>();
  readonly #queue = new AcceptQueue();
  #accepting = false;
  /** Settles when the loop that calls the inner listener has ended. */
  #acceptLoop = Promise.resolve();
  #closed = false;

  /**
   * @param inner The listener.
   * @param admitter Decides about its connections.
   */
  constructor(inner: Listener, admitter: Admitter) {
    super(inner);
    this.#admitter = admitter;
  }

  override get queued(): number {
    // After `close`, those that were asked about are closed, but stay in the list until the answers come.
    const asked = this.#closed ? 0 : this.#asked.size;
    return asked + this.#queue.length + super.queued;
  }

  override accept(): Promise<Transport> {
    const accepted = this.#queue.accept();
    this.#acceptMore();
    return accepted;
  }

  /** Resolves when the port is free: Deno frees it when the `accept` that was outstanding has settled. */
  override async close(): Promise<void> {
    this.#closed = true;
    for (const { transport } of this.#asked) closeQuietly(transport);
    this.#queue.close();
    await Promise.all([super.close(), this.#acceptLoop]);
  }

  #acceptMore(): void {
    if (!this.#accepting) this.#acceptLoop = this.#accept();
  }

  async #accept(): Promise<void> {
    this.#accepting = true;
    while (this.#queue.isAwaited && this.#asked.size < this.#admitter.most) {
      try {
        const transport = await super.accept();
        if (this.#closed) closeQuietly(transport);
        else this.#ask(transport);
      } catch (error) {
        this.#queue.add({ error });
      }
    }
    this.#accepting = false;
  }

  async #ask(transport: Transport): Promise<void> {
    const asked: Asked = { transport, place: 0 };
    this.#asked.add(asked);
    try {
      this.#enter(transport, await this.#admitter.ask(transport.remoteAddr));
    } catch (error) {
      // The address of this connection cannot be read.
      closeQuietly(transport);
      this.#queue.add({ error });
    }
    this.#asked.delete(asked);
    this.#acceptMore();
  }

  #enter(transport: Transport, verdict: Verdict): void {
    if (this.#closed) return;
    if ("drop" in verdict) return closeQuietly(transport);
    if (!("id" in verdict)) return this.#admitter.reject(transport, verdict);
    setNumber(transport, verdict.id);
    this.#queue.add({ transport });
  }
}
