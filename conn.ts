/**
 * One connection. It passes its peer's lines to a handler. Only this file ends a connection.
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

/** The server's handler, which is of one of two kinds. */
export type Handler = { readonly lines: LineHandler } | { readonly conversation: ConnHandler };

/** What a server gives each of its connections. */
export interface Host {
  readonly limits: ConnLimits;
  /** Milliseconds of silence before the kernel probes whether the peer is still there. */
  readonly keepAliveMs: number;
  readonly alarms: Alarms;
  readonly clock: Clock;
  readonly budget: Budget;
  readonly handler: Handler;
  /** Settles when the kernel has been asked about every socket and the callbacks have run. */
  socketsTurn(): Promise<void>;
  /** Reports that a handler threw. */
  emit(event: HandlerErrorEvent): void;
  /** Returns the line that tells a peer which limit it met, with its LF; empty if no line is to be sent. */
  errorLine(reason: ErrorLineReason, limit: number): string;
}

/**
 * The phases of a connection, in their order; it never goes back. In `leaving` it writes the output that waits and its
 * last line; in `lingering` it discards what the peer still sends.
 */
type Phase = "open" | "leaving" | "lingering" | "closed";

/**
 * A connection at work. It owns its transport and closes it in one place, `#free`. Two ways lead there: `#leave` closes
 * gracefully, `abort` at once. The signal aborts at the end, with the reason.
 */
export class Connection implements ConnInfo, Holder, Member {
  readonly id: number;
  /** Read from the transport once, at the start: a closed socket may no longer have an address. */
  readonly remoteAddr: Deno.Addr;
  place = 0;
  /** Why the connection ends: set when it leaves `open`; an abort can change it until `signal` has aborted. */
  reason: CloseReason | undefined;
  #phase: Phase = "open";
  #error: unknown;
  readonly #aborter = new AbortController();
  /** Resolves when the transport is closed; never rejects. */
  readonly closed: Promise<ClosedEvent>;
  #resolveClosed!: (event: ClosedEvent) => void;
  readonly #host: Host;
  readonly #transport: Transport;
  readonly #since: number;
  readonly #maxLines: number;
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
    this.closed = new Promise((resolve) => this.#resolveClosed = resolve);
    this.#host = host;
    this.#since = alarms.clock.now();
    this.#maxLines = Math.round(jitter(limits.maxLines));
    const memory = new Account(budget, this);
    this.#clocks = new ConnectionClocks(alarms, limits, this);
    this.#reader = new Reader(transport, limits, this.#clocks, memory, clock, this, "conversation" in host.handler);
    this.#outbox = new Outbox(transport, this.#clocks, memory, this, limits.maxQueuedBytes);
  }

  get localAddr(): Deno.Addr {
    return this.#transport.localAddr;
  }

  /** Aborts, with the close reason, when that can no longer change. */
  get signal(): AbortSignal {
    return this.#aborter.signal;
  }

  /** Settles when the handler has settled, which may be after `closed`; undefined if no handler is running. */
  get handled(): Promise<void> | undefined {
    return this.#answers === undefined || this.#answers.answering ? this.#handled : undefined;
  }

  /** The handler's view of the connection, made on first use. */
  get handle(): Handle {
    const { handler } = this.#host;
    return this.#handle ??= new Handle(this, this.#outbox, this.#clocks, "lines" in handler ? undefined : this.#reader);
  }

  /** Lines and bytes so far. */
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
    this.#handled = this.#runToEnd();
  }

  /** Runs the handler until it has settled, or until there is no more input for it to answer. */
  async #runToEnd(): Promise<void> {
    const { handler } = this.#host;
    try {
      if ("conversation" in handler) {
        this.#clocks.work();
        await handler.conversation(this.handle);
      } else {
        this.#answers = new Answers(this, this.#reader, this.#outbox, this.#clocks, this.#host.budget, handler.lines);
        await this.#reader.each(this.#answers);
      }
    } catch (error) {
      this.#handled = undefined;
      return this.#handlerFailed(error);
    }
    this.#handled = undefined;
    this.#leave(this.#reader.endReason ?? "closed");
  }

  #handlerFailed(error: unknown): void {
    // No fault of the handler: it usually learns of the end when a write is refused, or its signal aborts something.
    if (this.reason !== undefined && (error instanceof ConnectionClosedError || error === this.reason)) return;
    if (error instanceof LimitError) return this.failed(error);
    this.#host.emit({ type: "handler-error", conn: this, error });
    this.#leave("handler-error", error);
  }

  // What ends the connection.

  /** Closes gracefully, as the handler asked: a line that is being answered gets its reply first. */
  close(): void {
    this.#reader.stop();
    if (!this.#answers?.answering) this.#leave("closed");
  }

  /** Ends the connection at the next line boundary at which everything that the peer has sent is answered. */
  finish(reason: FinishReason): void {
    this.#reader.finish(reason, () => this.#host.socketsTurn(), () => {
      if (this.#answers !== undefined) this.#leave(reason);
    });
  }

  /** Ends the connection at once. Output that waits is lost; if there is any, the peer gets a reset. */
  abort(reason: CloseReason, error?: unknown, cut: boolean = this.#outbox.size > 0): void {
    this.#settle(reason, error);
    this.#free(cut);
  }

  /** Ends the connection to free its memory. The peer gets an error line, unless replies still wait before it. */
  giveWay(): void {
    const cut = this.#outbox.size > 0;
    if (!cut) {
      // Free the input first: the error line needs memory, too.
      this.#reader.free();
      this.#outbox.add(this.#host.errorLine("memory", 0));
      this.#outbox.flush();
    }
    this.abort("memory", undefined, cut);
  }

  async #leave(
    reason: CloseReason,
    error?: unknown,
    lastLine: string | Uint8Array = this.#errorLine(reason),
  ): Promise<void> {
    // A listener of the signal may close the connection while it is being aborted.
    if (this.#phase !== "open" || this.signal.aborted) return;
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

  /** Fixes the reason, and ends reading for the handler and writing. */
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
    this.#resolveClosed(this.#error === undefined ? event : { ...event, error: this.#error });
  }

  /** The handler has aborted `conn.writable`: ends the connection, unless it is ending already. */
  writingAborted(error: unknown): void {
    if (this.reason !== undefined) return;
    if (error instanceof LimitError) this.failed(error);
    else this.abort("closed");
  }

  // What the parts of the connection report.

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
    if (this.reason === undefined) this.#reader.byteCount += error.bytes;
    this.#leave("misdirected", undefined, error.answer);
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

  /** Watches the peer while the handler works for long: it may reset the connection, or vanish without a FIN. */
  #listen(): void {
    if (this.#host.keepAliveMs !== Infinity) keepAlive(this.#transport);
    this.#reader.listen();
  }

  get midLine(): boolean {
    return this.#reader.limiter.midLine;
  }
}
