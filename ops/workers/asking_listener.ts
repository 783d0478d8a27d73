/**
 * A worker's listener: each connection that it accepts, it asks about.
 *
 * @module
 */

import { closeQuietly, type Listener, type Transport } from "../../internal/api/transport.ts";
import { setNumber } from "../../internal/server/numbers.ts";
import { ForwardingListener } from "../forwarding_listener.ts";
import type { Verdict } from "./wire.ts";

/** Decides about connections. */
export interface Admitter {
  /** Maximum number of connections about which a listener may be asking. */
  readonly most: number;
  /** Asks about a connection from this address. */
  ask(addr: Deno.Addr): Promise<Verdict>;
  /** Ends a connection that was rejected; it owns the transport. */
  reject(transport: Transport, verdict: Exclude<Verdict, { id: number } | { drop: true }>): void;
}

/** What the next `accept` gets. */
type Next = { readonly transport: Transport } | { readonly error: unknown };

/**
 * Accepts connections from another listener, and returns those that are admitted, with their numbers.
 *
 * It accepts further connections while it waits for an answer, as far as the admitter allows: a busy worker gets its answers
 * once in a turn of its event loop.
 */
export class AskingListener extends ForwardingListener {
  readonly #admitter: Admitter;
  readonly #asked = new Set<Transport>();
  readonly #next: Next[] = [];
  #waiting: PromiseWithResolvers<Transport> | undefined;
  #accepting = false;
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
    return this.#asked.size + super.queued;
  }

  override accept(): Promise<Transport> {
    if (this.#closed) return Promise.reject(closed());
    const waiting = this.#waiting = Promise.withResolvers<Transport>();
    const next = this.#next.shift();
    if (next !== undefined) this.#deliver(next);
    else this.#acceptMore();
    return waiting.promise;
  }

  override close(): void | Promise<void> {
    this.#closed = true;
    for (const transport of this.#asked) closeQuietly(transport);
    for (const next of this.#next.splice(0)) if ("transport" in next) closeQuietly(next.transport);
    this.#waiting?.reject(closed());
    this.#waiting = undefined;
    return super.close();
  }

  async #acceptMore(): Promise<void> {
    if (this.#accepting) return;
    this.#accepting = true;
    while (this.#waiting !== undefined && this.#asked.size < this.#admitter.most) {
      try {
        const transport = await super.accept();
        if (this.#closed) closeQuietly(transport);
        else this.#ask(transport);
      } catch (error) {
        this.#deliver({ error });
      }
    }
    this.#accepting = false;
  }

  async #ask(transport: Transport): Promise<void> {
    this.#asked.add(transport);
    try {
      this.#enter(transport, await this.#admitter.ask(transport.remoteAddr));
    } catch (error) {
      // The address of this connection cannot be read.
      closeQuietly(transport);
      this.#deliver({ error });
    }
    this.#asked.delete(transport);
    this.#acceptMore();
  }

  #enter(transport: Transport, verdict: Verdict): void {
    if (this.#closed) return;
    if ("drop" in verdict) return closeQuietly(transport);
    if (!("id" in verdict)) return this.#admitter.reject(transport, verdict);
    setNumber(transport, verdict.id);
    this.#deliver({ transport });
  }

  #deliver(next: Next): void {
    if (this.#closed) return;
    const waiting = this.#waiting;
    if (waiting === undefined) return void this.#next.push(next);
    this.#waiting = undefined;
    if ("transport" in next) waiting.resolve(next.transport);
    else waiting.reject(next.error);
  }
}

function closed(): Error {
  return new Deno.errors.BadResource("The listener is closed");
}
