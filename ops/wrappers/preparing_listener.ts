/**
 * A listener whose connections have something to do, such as a handshake, before they are accepted. TLS and the PROXY
 * protocol are built on it.
 *
 * @module
 */

import type { Clock } from "../../internal/api/serve_options.ts";
import { checkAccepted } from "../../internal/api/check.ts";
import { AcceptRejection, harmless } from "../../internal/api/errors.ts";
import type { ListenerRejectReason } from "../../internal/api/reasons.ts";
import { closeQuietly, isReset, type Listener, type Transport } from "../../internal/api/transport.ts";
import { type Arrival, ArrivalList } from "../../internal/memory/arrival_list.ts";
import { AcceptQueue, type Outcome } from "../../internal/server/accept_queue.ts";
import { Alarms, type Sleeper } from "../../internal/time/alarms.ts";
import { ACCEPT_TURNS } from "../../internal/time/turns.ts";
import { closedError } from "../sockets/socket_errors.ts";
import { ForwardingListener } from "./forwarding_listener.ts";

/** What each connection does before it is accepted, and the limits on that. */
export interface Preparation {
  /**
   * Prepares one connection. The listener may close the transport meanwhile, and ignores the result then.
   *
   * @param transport The connection as the inner listener accepted it; it is closed if this fails.
   * @returns The connection as the server gets it, which owns `transport` from then on.
   * @throws {PeerLeft} (As a rejection.) If the peer has left without sending a byte; see {@linkcode peerLeftOr}.
   */
  prepare(transport: Transport): Promise<Transport>;
  /** What the preparation is called in an error, after "No". */
  readonly what: string;
  /** The reason of the rejection if the preparation fails. */
  readonly reason: ListenerRejectReason;
  /** Maximum time of one preparation, in milliseconds; `Infinity` for no limit. */
  readonly timeout: number;
  /** Maximum number of connections that are prepared at a time. */
  readonly maxPending: number;
  /** Tells the time and sets the timers. */
  readonly clock: Clock;
}

/** The peer has left before the first byte that was expected of it, as health checks do; the `cause` is the transport's error. */
export class PeerLeft extends Error {
  /** @param cause The error of the read or write. */
  constructor(cause: unknown) {
    super("The peer left before the first byte of its handshake or header", { cause });
    this.name = "PeerLeft";
  }
}

/**
 * Tells a peer that left without sending a byte from a preparation that failed.
 *
 * @param error Why the preparation ended.
 * @param received How many bytes have come from the peer.
 * @returns The error to throw: a {@linkcode PeerLeft}, or `error` itself.
 */
export function peerLeftOr(error: unknown, received: number): unknown {
  return received === 0 && isReset(error) ? new PeerLeft(error) : error;
}

/** Minimum time in milliseconds that a connection may be pending, even while `maxPending` connections are. */
const MIN_PENDING_MS = 1000;

/** A connection that is being prepared. */
interface PendingConnection extends Arrival<PendingConnection> {
  readonly transport: Transport;
  /** Read once, at the start: once the peer is gone, a transport may not know it any more. */
  readonly remoteAddr: Deno.Addr;
  readonly since: number;
  /** Its time limit. */
  readonly limit: Sleeper;
  settled: boolean;
}

/**
 * Prepares connections side by side, so that a slow one does not delay the next. A connection whose preparation fails
 * or takes too long is closed and rejected. While `maxPending` connections are pending, no other is accepted; one that
 * has been pending for {@linkcode MIN_PENDING_MS} is rejected then to make room, the longest first.
 *
 * It owns each connection until the server has accepted it, and calls `accept` of the inner listener only while the server
 * waits in its own.
 */
export class PreparingListener extends ForwardingListener {
  readonly #preparation: Preparation;
  /** Reads what has come before it ends a preparation, also if the process was held up. */
  readonly #alarms: Alarms;
  readonly #pending = new ArrivalList<PendingConnection>();
  /** Results of preparations. */
  readonly #queue = new AcceptQueue();
  #accepting = false;
  /** Settles when the loop that calls the inner listener has ended. */
  #acceptLoop = Promise.resolve();
  /** Whether the next inner `accept` needs no turn, because the server has taken one for its own call. */
  #hasTurn = false;
  #unref = false;
  #closed = false;
  #wakeAcceptLoop = () => {};

  constructor(inner: Listener, preparation: Preparation) {
    super(inner);
    this.#preparation = preparation;
    this.#alarms = new Alarms(preparation.clock);
  }

  /** The number of connections that this listener, and those within it, have accepted and the server has not got yet. */
  override get queued(): number {
    return this.#pending.size + this.#queue.length + super.queued;
  }

  override accept(): Promise<Transport> {
    const accepted = this.#queue.accept();
    this.#hasTurn = true;
    if (this.#queue.isAwaited && !this.#accepting) this.#acceptLoop = this.#accept();
    return accepted;
  }

  override async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const error = closedError("listener");
    for (const connection of this.#pending.all()) this.#settle(connection, { error });
    this.#queue.clear();
    this.#wakeAcceptLoop();
    await Promise.all([super.close(), this.#acceptLoop]);
  }

  override ref(): void {
    this.#unref = false;
    super.ref();
    for (const transport of this.#transports()) transport.ref?.();
  }

  override unref(): void {
    this.#unref = true;
    super.unref();
    for (const transport of this.#transports()) transport.unref?.();
  }

  /** Every connection that the listener owns: the pending ones, and those prepared but not accepted. */
  #transports(): Transport[] {
    return [...this.#pending.all().map(({ transport }) => transport), ...this.#queue.transports];
  }

  async #accept(): Promise<void> {
    this.#accepting = true;
    // Ends when the server does not wait: a connection that the inner listener gives meanwhile has to be kept here.
    while (this.#queue.isAwaited) {
      try {
        if (!this.#hasTurn) await ACCEPT_TURNS.take(1);
        this.#hasTurn = false;
        await this.#waitForRoom();
        const transport = await super.accept();
        // Otherwise each would be the failure of one connection, after which the server accepts the next without a pause.
        checkAccepted(transport);
        this.#begin(transport);
      } catch (error) {
        this.#deliver({ error });
      }
    }
    this.#accepting = false;
  }

  /** Waits until fewer than `maxPending` connections are pending. */
  async #waitForRoom(): Promise<void> {
    const { maxPending } = this.#preparation;
    while (this.#pending.size >= maxPending && !this.#closed) {
      const longest = this.#pending.first!;
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wakeAcceptLoop = resolve;
      const at = longest.since + MIN_PENDING_MS;
      const wake = () => this.#expire(longest, `while ${maxPending} connections were pending`);
      const limit: Sleeper = { wakeAt: Infinity, place: 0, deadline: () => at, wake };
      this.#alarms.watch(limit, at);
      await promise;
      this.#alarms.drop(limit);
    }
    if (this.#closed) throw closedError("listener");
  }

  /** Begins a preparation. If the transport has no address, as its peer is gone, only this connection fails. */
  #begin(transport: Transport): void {
    try {
      this.#prepare(transport);
    } catch (error) {
      closeQuietly(transport);
      // The server takes an error of any other class for a failure to accept, or for the end of the listener.
      this.#deliver({ error: isReset(error) ? error : new Deno.errors.NotConnected(`${error}`, { cause: error }) });
    }
  }

  #prepare(transport: Transport): void {
    // The inner listener has accepted it after `close`, which could not close it.
    if (this.#closed) return closeQuietly(transport);
    if (this.#unref) transport.unref?.();
    const { clock, timeout } = this.#preparation;
    const { remoteAddr } = transport;
    // If the clock throws, nothing waits for it.
    const prepared = harmless(this.#preparation.prepare(transport));
    const since = clock.now();
    const wake = () => this.#expire(connection, `within ${timeout} ms`);
    const limit: Sleeper = { wakeAt: Infinity, place: 0, deadline: () => since + timeout, wake };
    const connection: PendingConnection = {
      ...{ transport, remoteAddr, since, limit, settled: false },
      ...{ before: undefined, behind: undefined },
    };
    this.#alarms.watch(limit, since + timeout);
    this.#pending.add(connection);
    prepared.then(
      (transport) => this.#settle(connection, { transport }),
      (cause) => this.#fail(connection, cause),
    );
  }

  #expire(connection: PendingConnection, when: string): void {
    this.#fail(connection, new Deno.errors.TimedOut(`No ${this.#preparation.what} ${when}`));
  }

  #fail(connection: PendingConnection, error: unknown): void {
    const [reason, cause] = error instanceof PeerLeft
      ? ["gone", error.cause] as const
      : [this.#preparation.reason, error] as const;
    this.#settle(connection, { error: new AcceptRejection(reason, connection.remoteAddr, { cause }) });
  }

  #settle(connection: PendingConnection, outcome: Outcome): void {
    // It has expired already, and was closed. If its preparation still yields a transport, that wraps
    // the closed one and needs no close.
    if (connection.settled) return;
    connection.settled = true;
    this.#alarms.drop(connection.limit);
    this.#pending.delete(connection);
    if ("error" in outcome) closeQuietly(connection.transport);
    if (this.#closed) return;
    this.#wakeAcceptLoop();
    this.#deliver(outcome);
  }

  #deliver(outcome: Outcome): void {
    // The end of the inner listener, which no call waits for: it is no connection, and later calls get an error anyway.
    if (!this.#closed || this.#queue.isAwaited) this.#queue.add(outcome);
  }
}
