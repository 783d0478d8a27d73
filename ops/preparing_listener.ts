/**
 * Where connections wait that are not ready for the server yet.
 *
 * @module
 */

import type { Clock } from "../internal/api/clock.ts";
import { AcceptRejection } from "../internal/api/errors.ts";
import type { ListenerRejectReason } from "../internal/api/reasons.ts";
import { closeQuietly, isReset, type Listener, type Transport } from "../internal/api/transport.ts";
import { ENTRIES } from "../internal/time/turns.ts";

/** What connections go through in a lobby. */
export interface Reception {
  /**
   * Makes one ready. Its transport may be closed meanwhile; what this comes to does not matter then.
   *
   * @param transport The connection as it was accepted, which is closed if this fails.
   * @returns The connection as the server gets it, which owns the other from then on.
   * @throws {PeerLeft} (As a rejection.) If the peer has left without a byte; see {@linkcode leftOr}.
   */
  ready(transport: Transport): Promise<Transport>;
  /** What that is called, to be read after "No". */
  readonly what: string;
  /** The reason of a connection's rejection, if that fails. */
  readonly reason: ListenerRejectReason;
  /** How long it may take, in milliseconds; `Infinity` for ever. */
  readonly timeout: number;
  /** How many may be at it at a time. */
  readonly maxPending: number;
  /** Where time comes from. */
  readonly clock: Clock;
}

/** The peer of a connection has left before it sent anything, as health checks do; the `cause` says how. */
export class PeerLeft extends Error {
  /** @param cause What its leaving looks like. */
  constructor(cause: unknown) {
    super("The peer left before it sent anything", { cause });
    this.name = "PeerLeft";
  }
}

/**
 * Tells a peer that has left in silence from one that has failed.
 *
 * @param error Why the connection does not get ready.
 * @param received How many bytes have come from the peer.
 * @returns The error to throw.
 */
export function leftOr(error: unknown, received: number): unknown {
  return received === 0 && isReset(error) ? new PeerLeft(error) : error;
}

/** When all places are taken, the longest guest keeps its own for so long after it has come. */
const CROWDED_MS = 1000;

type Outcome = { readonly transport: Transport } | { readonly error: unknown };

/** A connection that is being made ready. */
interface Guest {
  readonly transport: Transport;
  /** Asked for once: a transport whose peer is gone may not know it any more. */
  readonly remoteAddr: Deno.Addr;
  readonly since: number;
  /** It is over: with the connection for the server, or without. */
  settle(outcome: Outcome): void;
}

/**
 * A listener whose connections are made ready side by side, out of the way of those that come after. Who fails or takes
 * too long is closed and rejected; and when too many are at it, nobody new is accepted until there is room, but those
 * who have been at it for a second make some.
 *
 * It owns the listener below, and each connection until that is accepted from here. It accepts below only as long as
 * somebody waits here.
 */
export class Lobby implements Listener {
  readonly #listener: Listener;
  readonly #reception: Reception;
  /** In the order in which they came. */
  readonly #guests = new Set<Guest>();
  /** What nobody has asked for yet. */
  readonly #outcomes: Outcome[] = [];
  /** The outstanding `accept` from above; whether one is outstanding below, and what settles with it. */
  #asking: PromiseWithResolvers<Transport> | undefined;
  #accepting = false;
  #accepted = Promise.resolve();
  /** Whether the next `accept` below needs no turn, as the acceptor above has taken one for its call. */
  #hasTurn = false;
  #unref = false;
  #closed = false;
  #wakeDoor = () => {};

  constructor(listener: Listener, reception: Reception) {
    this.#listener = listener;
    this.#reception = reception;
  }

  get addr(): Deno.Addr {
    return this.#listener.addr;
  }

  accept(): Promise<Transport> {
    if (this.#asking !== undefined) {
      return Promise.reject(new Deno.errors.Busy("Cannot accept: another accept is outstanding"));
    }
    const { promise } = this.#asking = Promise.withResolvers<Transport>();
    this.#hasTurn = true;
    this.#answer();
    if (this.#asking !== undefined && !this.#accepting) this.#accepted = this.#accept();
    return promise;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const error = new Deno.errors.BadResource("The listener is closed");
    for (const guest of this.#guests) guest.settle({ error });
    for (const transport of this.#waiting()) closeQuietly(transport);
    this.#outcomes.length = 0;
    this.#wakeDoor();
    await Promise.all([this.#listener.close(), this.#accepted]);
  }

  ref(): void {
    this.#unref = false;
    this.#listener.ref?.();
    for (const transport of this.#waiting()) transport.ref?.();
  }

  unref(): void {
    this.#unref = true;
    this.#listener.unref?.();
    for (const transport of this.#waiting()) transport.unref?.();
  }

  /** Every connection that is here. */
  #waiting(): Transport[] {
    const ready = this.#outcomes.flatMap((outcome) => "transport" in outcome ? outcome.transport : []);
    return [...[...this.#guests].map(({ transport }) => transport), ...ready];
  }

  async #accept(): Promise<void> {
    this.#accepting = true;
    // What comes from below while nobody waits is kept, so nothing more is asked for.
    while (this.#asking !== undefined) {
      try {
        if (!this.#hasTurn) await ENTRIES.take(1);
        this.#hasTurn = false;
        await this.#room();
        const transport = await this.#listener.accept();
        this.#enter(transport);
      } catch (error) {
        this.#give({ error });
      }
    }
    this.#accepting = false;
  }

  /** Waits until one more may come in. */
  async #room(): Promise<void> {
    const { maxPending, clock } = this.#reception;
    while (this.#guests.size >= maxPending && !this.#closed) {
      const [longest] = this.#guests;
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wakeDoor = resolve;
      const left = Math.max(0, longest.since + CROWDED_MS - clock.now());
      const cancel = clock.setTimer(() => this.#turnAway(longest, `while ${maxPending} were at it`), left, false);
      await promise;
      cancel();
    }
    if (this.#closed) throw new Deno.errors.BadResource("The listener is closed");
  }

  /** One that has no address, as its peer is gone, ends alone. */
  #enter(transport: Transport): void {
    try {
      this.#take(transport);
    } catch (error) {
      closeQuietly(transport);
      // Of any other kind it would count as a failure to accept, or as the listener's end.
      this.#give({ error: isReset(error) ? error : new Deno.errors.NotConnected(`${error}`, { cause: error }) });
    }
  }

  #take(transport: Transport): void {
    // It came too late for anybody to own it.
    if (this.#closed) return closeQuietly(transport);
    if (this.#unref) transport.unref?.();
    const { clock, timeout } = this.#reception;
    const { remoteAddr } = transport;
    const ready = this.#reception.ready(transport);
    const settle = (outcome: Outcome) => this.#leave(guest, outcome, cancel);
    const guest = { transport, remoteAddr, since: clock.now(), settle };
    const expire = () => this.#turnAway(guest, `within ${timeout} ms`);
    const cancel = timeout === Infinity ? () => {} : clock.setTimer(expire, timeout, false);
    this.#guests.add(guest);
    ready.then(
      (transport) => settle({ transport }),
      (cause) => this.#fail(guest, cause),
    );
  }

  #turnAway(guest: Guest, why: string): void {
    this.#fail(guest, new Deno.errors.TimedOut(`No ${this.#reception.what} ${why}`));
  }

  #fail({ remoteAddr, settle }: Guest, error: unknown): void {
    const [reason, cause] = error instanceof PeerLeft
      ? ["gone", error.cause] as const
      : [this.#reception.reason, error] as const;
    settle({ error: new AcceptRejection(reason, remoteAddr, { cause }) });
  }

  #leave(guest: Guest, outcome: Outcome, cancelTimeout: () => void): void {
    cancelTimeout();
    // It was given up, and closed; what it has become meanwhile stands on nothing, and is nobody's.
    if (!this.#guests.delete(guest)) return;
    if ("error" in outcome) closeQuietly(guest.transport);
    if (this.#closed) return;
    this.#wakeDoor();
    this.#give(outcome);
  }

  #give(outcome: Outcome): void {
    this.#outcomes.push(outcome);
    this.#answer();
  }

  #answer(): void {
    if (this.#asking === undefined || this.#outcomes.length === 0) return;
    const { resolve, reject } = this.#asking;
    this.#asking = undefined;
    const outcome = this.#outcomes.shift()!;
    if ("error" in outcome) reject(outcome.error);
    else resolve(outcome.transport);
  }
}
