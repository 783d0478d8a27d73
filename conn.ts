/**
 * One connection: lines in, a handler, replies out; and the one place where a connection ends.
 *
 * @module
 */

import { Answers } from "./internal/conn/answers.ts";
import { Account, type Budget, type Holder } from "./internal/memory/budget.ts";
import type { Alarms } from "./internal/time/alarms.ts";
import type { Clock } from "./internal/api/clock.ts";
import type { ConnLimits } from "./internal/api/conn_options.ts";
import { ConnectionClocks, type Expiry, jitter } from "./internal/time/conn_clocks.ts";
import { ConnectionClosedError, LimitError } from "./internal/api/errors.ts";
import type { ClosedEvent, ConnInfo, HandlerErrorEvent } from "./internal/api/events.ts";
import type { FinishReason } from "./internal/conn/finishing.ts";
import { Handle } from "./internal/conn/handle.ts";
import type { ConnHandler, LineHandler } from "./internal/api/handlers.ts";
import { linger, LINGER_MS } from "./internal/conn/linger.ts";
import { MisdirectedError } from "./internal/lines/misdirected.ts";
import { Outbox } from "./internal/conn/outbox.ts";
import { Reader } from "./internal/conn/reader.ts";
import type { CloseReason, ErrorLineReason } from "./internal/api/reasons.ts";
import type { Member } from "./internal/memory/member_list.ts";
import { closeQuietly, isReset, keepAlive, resetQuietly, type Transport } from "./internal/api/transport.ts";

/** Which of the two kinds of handlers a server has. */
export type Handler = { readonly lines: LineHandler } | { readonly conversation: ConnHandler };

/** What the connections of one server share. */
export interface Host {
  readonly limits: ConnLimits;
  /** How long a peer may be silent before the kernel asks whether it is there. */
  readonly keepAliveMs: number;
  readonly alarms: Alarms;
  readonly clock: Clock;
  readonly budget: Budget;
  readonly handler: Handler;
  /** Lets all sockets have their turn. */
  socketsTurn(): Promise<void>;
  /** Tells that a handler threw. */
  emit(event: HandlerErrorEvent): void;
  /** The line that tells a peer which limit it met, with its end; empty for none. */
  errorLine(reason: ErrorLineReason, limit: number): string;
}

/** Where a connection is in its life; it goes one way. While it leaves, what it owes is written. */
type Phase = "open" | "leaving" | "lingering" | "closed";

/**
 * A connection at work. It owns its transport, which is closed in one place, `#free`. Two ways lead there: `#leave`,
 * which is polite, and `abort`, which is not. Its signal is its end, with the reason.
 */
export class Connection implements ConnInfo, Holder, Member {
  readonly id: number;
  /** Asked for once: a socket that is closed may have none any more. */
  readonly remoteAddr: Deno.Addr;
  place = 0;
  /** Why it ends: set when it leaves `open`; an abort can change it until `signal` has aborted. */
  reason: CloseReason | undefined;
  #phase: Phase = "open";
  #error: unknown;
  readonly #aborter = new AbortController();
  readonly #closed = Promise.withResolvers<ClosedEvent>();
  readonly #host: Host;
  readonly #transport: Transport;
  readonly #since: number;
  readonly #maxLines: number;
  readonly #memory: Account;
  readonly #clocks: ConnectionClocks;
  readonly #reader: Reader;
  readonly #outbox: Outbox;
  #answers: Answers | undefined;
  #handle: Handle | undefined;
  #handled: Promise<void> | undefined;

  constructor(id: number, transport: Transport, host: Host) {
    const { limits, alarms, clock, budget } = host;
    this.id = id;
    this.remoteAddr = transport.remoteAddr;
    this.#transport = transport;
    this.#host = host;
    this.#since = alarms.clock.now();
    this.#maxLines = Math.round(jitter(limits.maxLines));
    const memory = this.#memory = new Account(budget, this);
    this.#clocks = new ConnectionClocks(alarms, limits, this);
    this.#reader = new Reader(transport, limits, this.#clocks, memory, clock, this, "conversation" in host.handler);
    this.#outbox = new Outbox(transport, this.#clocks, memory, this, limits.maxQueuedBytes);
  }

  get localAddr(): Deno.Addr {
    return this.#transport.localAddr;
  }

  /** Aborts with the close reason when that is certain. */
  get signal(): AbortSignal {
    return this.#aborter.signal;
  }

  /** Settles when its transport is closed; never rejects. */
  get closed(): Promise<ClosedEvent> {
    return this.#closed.promise;
  }

  /** Settles when its handler has settled, which may be after `closed`; undefined if no handler is at work. */
  get handled(): Promise<void> | undefined {
    return this.#answers === undefined || this.#answers.answering ? this.#handled : undefined;
  }

  /** What the handler sees, made when it is first asked for. */
  get handle(): Handle {
    const { handler } = this.#host;
    return this.#handle ??= new Handle(this, this.#outbox, this.#clocks, "lines" in handler ? undefined : this.#reader);
  }

  /** What has gone through it so far. */
  get totals(): { lines: number; bytesIn: number; bytesOut: number } {
    return { lines: this.#reader.lineCount, bytesIn: this.#reader.byteCount, bytesOut: this.#outbox.bytesOut };
  }

  ref(): void {
    this.#transport.ref?.();
  }

  unref(): void {
    this.#transport.unref?.();
  }

  /** Serves the peer until the connection ends. */
  serve(): void {
    const done = () => this.#handled = undefined;
    this.#handled = this.#run().then(
      () => (done(), void this.#leave(this.#reader.endReason ?? "closed")),
      (error) => (done(), this.#handlerFailed(error)),
    );
  }

  #run(): Promise<unknown> {
    const { handler } = this.#host;
    if ("conversation" in handler) return this.#converse(handler.conversation);
    this.#answers = new Answers(this, this.#reader, this.#outbox, this.#clocks, this.#memory, handler.lines);
    return this.#reader.each(this.#answers);
  }

  /** Makes a promise of what a handler does, whether it is one already or not, and whether it throws or rejects. */
  async #converse(handler: ConnHandler): Promise<void> {
    this.#clocks.work();
    await handler(this.handle);
  }

  #handlerFailed(error: unknown): void {
    // This is how a handler usually learns of the end: a write is refused, or its signal aborts something.
    if (this.reason !== undefined && (error instanceof ConnectionClosedError || error === this.reason)) return;
    if (error instanceof LimitError) return this.failed(error);
    this.#host.emit({ type: "handler-error", conn: this, error });
    this.#leave("handler-error", error);
  }

  // What ends it.

  /** Closes politely, for its handler: a line that is being answered gets its reply first. */
  close(): void {
    this.#reader.stop();
    if (!this.#answers?.answering) this.#leave("closed");
  }

  /** Ends it at the next line boundary at which everything that the peer has sent is answered. */
  finish(reason: FinishReason): void {
    this.#reader.finish(reason, () => this.#host.socketsTurn(), () => {
      if (this.#answers !== undefined) this.#leave(reason);
    });
  }

  /** Ends it at once; what waits to be written is lost, and the peer sees a reset then. */
  abort(reason: CloseReason, error?: unknown): void {
    const cut = this.#outbox.size > 0;
    this.#settle(reason, error);
    this.#free(cut);
  }

  /** Gives its memory back at once; its peer is told, unless it has replies to read before that. */
  giveWay(): void {
    if (this.#outbox.size === 0) {
      // First of all the memory: the line needs some, too.
      this.#reader.free();
      this.#outbox.add(this.#host.errorLine("memory", 0));
      this.#outbox.flush();
    }
    this.abort("memory");
  }

  async #leave(
    reason: CloseReason,
    error?: unknown,
    lastLine: string | Uint8Array = this.#errorLine(reason),
  ): Promise<void> {
    if (this.#phase !== "open") return;
    this.#phase = "leaving";
    this.reason = reason;
    this.#reader.stop();
    this.#clocks.leave();
    this.#outbox.add(lastLine);
    if (this.#outbox.size > 0) await this.#outbox.flush();
    if (this.signal.aborted) return;
    this.#settle(reason, error);
    if (!this.#reader.peerEnded) {
      this.#phase = "lingering";
      this.#clocks.linger(LINGER_MS);
      await linger(
        this.#transport,
        () => this.#outbox.closeWrite(),
        () => this.#phase === "closed",
        this.#reader.outstanding,
      );
    }
    this.#free();
  }

  #errorLine(reason: CloseReason): string {
    const { maxLineBytes, maxConnectionBytes } = this.#host.limits;
    if (reason === "line-too-long") return this.#host.errorLine(reason, maxLineBytes);
    return reason === "byte-limit" ? this.#host.errorLine(reason, maxConnectionBytes) : "";
  }

  /** From here on the reason is certain, and nothing is read for the handler or written any more. */
  #settle(reason: CloseReason, error: unknown): void {
    if (this.signal.aborted) return;
    this.reason = reason;
    this.#error = error;
    this.#reader.stop();
    this.#outbox.close(reason);
    this.#aborter.abort(reason);
  }

  #free(cut = false): void {
    if (this.#phase === "closed") return;
    this.#phase = "closed";
    this.#clocks.stop();
    this.#reader.free();
    (cut ? resetQuietly : closeQuietly)(this.#transport);
    const durationMs = this.#host.alarms.clock.now() - this.#since;
    const { lines, bytesIn, bytesOut } = this.totals;
    const event = { type: "closed", conn: this, reason: this.reason!, lines, bytesIn, bytesOut, durationMs } as const;
    this.#closed.resolve(this.#error === undefined ? event : { ...event, error: this.#error });
  }

  /** For a handler that has given up writing; an end that is under way goes on as it is. */
  writingAborted(error: unknown): void {
    if (this.reason !== undefined) return;
    if (error instanceof LimitError) this.failed(error);
    else this.abort("closed");
  }

  // What its parts report.

  /** Whole lines have come. */
  came(): void {
    if (this.#reader.lineCount >= this.#maxLines) this.finish("max-lines");
  }

  /** Reading or writing has failed. */
  failed(error: unknown): void {
    if (error instanceof LimitError) {
      return void this.#leave(error.reason, undefined, this.#host.errorLine(error.reason, error.limit));
    }
    if (!(error instanceof MisdirectedError)) return this.abort(isReset(error) ? "reset" : "transport-error", error);
    this.#reader.byteCount += error.bytes;
    this.#leave("misdirected", undefined, error.answer);
  }

  overflowed(): void {
    this.abort("write-queue");
  }

  /** A clock has expired. */
  expire(expiry: Expiry): void {
    if (expiry === "listen") this.#listen();
    else if (expiry === "stuck") this.#outbox.stuck();
    else if (expiry === "max-age") this.finish(expiry);
    else if (expiry === "overdue") this.abort("max-age");
    else if (expiry === "linger") this.#free();
    else if (expiry !== "write-timeout" || !this.#outbox.progressed()) this.abort(expiry);
  }

  /** The handler has worked for a while: its peer may reset the connection, or vanish without a word. */
  #listen(): void {
    if (this.#host.keepAliveMs !== Infinity) keepAlive(this.#transport);
    this.#reader.listen();
  }

  get midLine(): boolean {
    return this.#reader.limiter.midLine;
  }
}
