/**
 * One connection. It passes its peer's lines to a handler. Only this file ends a connection.
 *
 * @module
 */

import type { ConnLimits, ConnOptions } from "./internal/api/conn_options.ts";
import type { EndingExpiry } from "./internal/time/expiry.ts";
import { ignoreErrors, LimitError, showAs } from "./internal/api/errors.ts";
import type { ClosedEvent, ConnInfo, Traffic } from "./internal/api/events.ts";
import type { FinishReason } from "./internal/io/finishing.ts";
import type { Handle } from "./internal/conn/handle.ts";
import { isEofOf, isLimitOf } from "./internal/reads/read_errors.ts";
import type { CloseOptions, ConnPhase, ConnStats } from "./internal/api/handlers.ts";
import { Ending } from "./internal/conn/ending.ts";
import { MisdirectedError } from "./internal/lines/misdirected.ts";
import { type Host, Parts } from "./internal/conn/parts.ts";
import { type CloseReason, isBreach } from "./internal/api/reasons.ts";
import type { Holder } from "./internal/memory/budget.ts";
import type { Member } from "./internal/memory/member_list.ts";
import { closeQuietly, isReset, resetQuietly, type Transport } from "./internal/api/transport.ts";

/** Maximum time for which a handler may still write after a limit or a clock has ended the input, in milliseconds. */
const ENDING_MS = 1000;

/**
 * A connection at work. It owns its transport and closes it in one place, `#free`. `stop` ends the input, and gives the
 * handler a second to write before `#leave`; `#leave` writes what waits, and then closes gracefully; `abort` closes at
 * once. The signal aborts with the reason.
 */
export class Connection<Data = unknown> implements ConnInfo, Holder, Member {
  readonly id: number;
  /** Read from the transport once, at the start: a closed socket may no longer have an address. */
  readonly remoteAddr: Deno.Addr;
  place = 0;
  #phase: ConnPhase = "open";
  #ending: Ending | undefined;
  readonly #aborter = new AbortController();
  /** Aborts, with the close reason, when that can no longer change. */
  readonly signal: AbortSignal = this.#aborter.signal;
  /** Resolves when the transport is closed; never rejects. */
  readonly closed: Promise<ClosedEvent>;
  #resolveClosed!: (event: ClosedEvent) => void;
  readonly #host: Host<Data>;
  readonly #since: number;
  readonly #parts: Parts<Data>;
  #handled: Promise<void> | undefined;

  constructor(id: number, transport: Transport, host: Host<Data>, limits: ConnLimits) {
    this.id = id;
    this.remoteAddr = transport.remoteAddr;
    this.closed = new Promise((resolve) => this.#resolveClosed = resolve);
    this.#host = host;
    this.#since = host.clock.now();
    this.#parts = new Parts(transport, host, limits, this);
  }

  get localAddr(): Deno.Addr {
    return this.#parts.transport.localAddr;
  }

  /** Aborts when the connection is asked to finish. */
  get finishing(): AbortSignal {
    return this.#end.finishing;
  }

  /** Why nothing can be written any more; undefined while writes are taken. */
  get writingEnded(): CloseReason | undefined {
    return this.#phase === "open" || this.#phase === "ending" ? undefined : this.#ending?.reason;
  }

  /** Why the input ended; undefined while there may be more. */
  get ending(): CloseReason | undefined {
    return this.#parts.reader.endReason ?? this.#ending?.reason ?? (this.#ending?.closing ? "closed" : undefined);
  }

  /** What is known of the end; made when something is, as most connections wait for their peer most of the time. */
  get #end(): Ending {
    return this.#ending ??= new Ending();
  }

  /** Settles when the handler has settled, which may be after `closed`; undefined if no handler is running. */
  get handled(): Promise<void> | undefined {
    return this.#parts.resting ? undefined : this.#handled;
  }

  /** The handler's view of the connection, made on first use. */
  get handle(): Handle<Data> {
    return this.#parts.handle;
  }

  /** Whether `conn.data` is what the option `data` has made, if there is that option. */
  get hasData(): boolean {
    return this.#parts.hasData;
  }

  /** Lines and bytes so far. */
  get totals(): Traffic {
    return this.#parts.totals;
  }

  /** Totals, times, and what the connection waits for. */
  stats(): ConnStats {
    const detail = this.#ending?.anyDetail;
    const state = { ...this.#parts.stats(), ageMs: this.#ageMs, phase: this.#phase };
    return detail === undefined ? state : { ...state, detail };
  }

  get #ageMs(): number {
    return this.#host.clock.now() - this.#since;
  }

  /** Sets whether the connection keeps the process alive. */
  setRef(ref: boolean): void {
    const { transport } = this.#parts;
    // An error of a custom transport would keep the server from the connections behind it, or from serving this one.
    ignoreErrors(() => ref ? transport.ref?.() : transport.unref?.());
  }

  /** Serves the peer until the connection ends. */
  serve(): void {
    this.#handled = this.#parts.run();
  }

  /** The handler has settled, or there is no more input for it to answer. */
  handlerSettled(): void {
    this.#handled = undefined;
    const { closing, finishReason } = this.#end;
    const reason = closing ? "closed" : this.#parts.reader.endReason ?? finishReason ?? "closed";
    if (isBreach(reason)) this.stop(reason);
    this.#leave(reason);
  }

  /** The handler has failed. */
  handlerFailed(error: unknown): void {
    this.#handled = undefined;
    const { input } = this.#parts;
    if (this.#end.explains(error) || isEofOf(input, error)) return this.handlerSettled();
    if (isLimitOf(input, error)) return this.failed(error);
    this.#host.reports.emit({ type: "handler-error", conn: this, error });
    this.#leave("handler-error", error);
  }

  // What ends the connection.

  /** Closes gracefully, as the handler asked: a line that is being answered gets its reply first. */
  close({ lastWord, detail }: CloseOptions = {}): void {
    this.#parts.callerDone();
    if (this.writingEnded !== undefined || this.#end.closing) return;
    this.#end.closing = true;
    this.#end.lastWord = lastWord;
    this.#end.detail ??= detail;
    if (this.#parts.endAfterFailedWrite()) return;
    this.#parts.reader.stop();
    // What comes from now on is dropped, so that a full buffer no longer keeps the peer's end from being noticed.
    this.#parts.answering ? this.#parts.clocks.readAheadLater() : this.#leave("closed");
  }

  /** Ends the connection at the next line boundary at which everything that the peer has sent is answered. */
  finish(reason: FinishReason): void {
    if (this.#phase === "closed") return;
    this.#end.finish(reason);
    this.#parts.finish(reason, () => this.#leave(reason));
  }

  /** Ends the connection at once. Output that waits is lost; if there is any, the peer gets a reset. */
  abort(reason: CloseReason, error?: unknown, resets: boolean = this.#parts.outbox.size > 0): void {
    if (this.#phase === "open" || this.#phase === "leaving" && !this.signal.aborted) {
      this.#end.reason = reason;
      this.#end.error = error;
    }
    this.#free(resets);
  }

  /** Ends the connection to free its memory. The peer gets its last line, unless replies still wait before it. */
  giveWay(): void {
    const { outbox, reader } = this.#parts;
    if (outbox.size > 0) return this.abort("memory");
    const { wanting } = reader;
    reader.free();
    this.stop("memory");
    // A handler that waits for no input would keep the buffer of an outstanding read for another second.
    if (!wanting && this.#end.reason === "memory") this.#leave();
  }

  /**
   * Ends the input for a limit or a clock. The handler may still write until it settles, or the time for it is up.
   *
   * @param reason Why.
   * @param limit The value of the limit that was passed.
   * @param atOnce Whether the signal aborts at once.
   */
  stop(reason: CloseReason, limit?: number, atOnce = true): void {
    if (this.#phase !== "open" || this.#parts.endAfterFailedWrite()) return;
    if (this.#parts.upgrading) return this.abort(reason);
    this.#phase = "ending";
    this.#end.reason = reason;
    this.#end.limit = limit;
    this.#end.keepLimit(this.#parts.limits, this.#parts.peerHasLeft);
    this.#parts.reader.stop();
    if (atOnce) this.#aborter.abort(reason);
    // A listener of the signal may have closed the connection.
    if (this.writingEnded !== undefined) return;
    if (this.handled === undefined) this.#leave(reason);
    else this.#parts.clocks.close(ENDING_MS);
  }

  /** Closes gracefully: writes what waits and the last line, and lets the peer read it. */
  #leave(reason: CloseReason = "closed", error?: unknown, answer?: string | Uint8Array): void {
    const { reader, outbox, clocks, cutter, limits } = this.#parts;
    const end = this.#end;
    if (this.#phase !== "open" && this.#phase !== "ending") return;
    if (this.#parts.upgrading) return this.abort(reason, error);
    const mayHaveWritten = this.#phase === "ending";
    const { aborted } = this.signal;
    if (!mayHaveWritten) end.reason = reason;
    end.error ??= error;
    this.#phase = "leaving";
    // At a breach in a stream of bytes, the signal has not aborted yet.
    if (mayHaveWritten) this.#aborter.abort(end.reason);
    // With a read outstanding, no input is unread, so that a plain close sends no reset.
    const quiet = aborted && reader.outstanding !== undefined && outbox.size === 0;
    reader.stop();
    clocks.leave();
    end.keepLimit(limits, this.#parts.peerHasLeft);
    outbox.add(answer ?? end.lastLine(this.#host.reports, cutter.framing));
    outbox.seal();
    const flushed = outbox.size > 0 ? outbox.flush() : undefined;
    // Memory must be free soon: its last line is sent if the kernel takes it at once.
    if (end.reason === "memory") this.#left(false);
    else if (flushed === undefined) this.#left(!quiet);
    else flushed.then(() => this.#left(true)), clocks.lastWrites();
  }

  /** Everything is written. To linger would keep the buffer of an outstanding read in memory. */
  #left(lingers: boolean): void {
    const { reader, outbox, transport } = this.#parts;
    if (this.#phase === "closed") return;
    outbox.close(this.#end.reason!);
    // The signal aborts when the handler has settled.
    if (this.handled === undefined) this.#aborter.abort(this.#end.reason);
    else this.handled.then(() => this.#aborter.abort(this.#end.reason));
    // With both sides ended there is nothing to wait for, but that the peer takes TLS's close_notify.
    if (!lingers || reader.peerEnded && transport.tls === undefined) return this.#free();
    this.#phase = "lingering";
    this.#parts.linger(() => this.#phase === "closed").then(() => this.#free());
  }

  #free(resets = false): void {
    if (this.#phase === "closed") return;
    this.#phase = "closed";
    this.#parts.clocks.stop();
    this.#parts.reader.free();
    this.#parts.outbox.close(this.#end.reason!, true);
    this.#aborter.abort(this.#end.reason);
    (resets ? resetQuietly : closeQuietly)(this.#parts.transport);
    this.#resolveClosed(this.#end.event(this, this.totals, this.#ageMs));
  }

  /** The handler has aborted `conn.writable`: ends the connection, unless it is ending already. */
  writingAborted(error: unknown): void {
    // A pipeline passes on that a body is cut off, and its handler still tells whether that is the end.
    if (this.#end.reason !== undefined || isEofOf(this.#parts.input, error)) return;
    if (isLimitOf(this.#parts.input, error)) this.failed(error);
    // The peer must not take what it has got so far for everything.
    else this.abort("closed", error, true);
  }

  // What the handler changes.

  setLimits(changes: ConnOptions): void {
    this.#parts.setLimits(changes, this.#phase !== "closed");
  }

  setDeadline(milliseconds: number, detail?: string): void {
    if (this.#phase !== "open") return;
    this.#end.deadline = { milliseconds, detail };
    this.#parts.clocks.setDeadline(milliseconds);
  }

  // What the parts of the connection report.

  /** TLS cannot begin. What was written meanwhile must not leave in plain text. */
  notUpgraded(reason: CloseReason, error?: unknown): void {
    if (this.#phase !== "closed") this.#parts.outbox.close(reason);
    // The peer is gone. If a write has found that, a read of the handshake is outstanding, and there can be no other.
    if (isReset(error)) this.abort(reason, error);
    else this.#leave(reason, error);
  }

  /** Reading or writing has failed. */
  failed(error: unknown): void {
    if (error instanceof LimitError) {
      this.stop(error.reason, error.limit);
      return void this.#leave(error.reason);
    }
    if (!(error instanceof MisdirectedError)) return this.abort(isReset(error) ? "reset" : "transport-error", error);
    if (this.#end.reason === undefined) this.#parts.reader.byteCount += error.bytes;
    this.#leave("misdirected", undefined, error.answer);
  }

  /** A clock has expired that may end the connection. */
  expire(expiry: EndingExpiry): void {
    if (expiry === "max-age") this.finish(expiry);
    else if (expiry === "overdue") this.abort("max-age");
    else if (expiry === "closing") this.#phase === "ending" ? void this.#leave() : this.#free();
    // With the write clock off, a peer that takes the last writes slowly has as many periods as with it.
    else if (expiry === "write-timeout" || expiry === "idle" && this.#phase === "leaving") {
      if (!this.#parts.outbox.progressed()) this.abort(expiry);
    } else if (!this.#parts.input?.droppedAt(expiry)) this.stop(expiry);
  }

  get holdsInput(): boolean {
    return this.#parts.reader.holdsInput;
  }
}

showAs<Connection>(Connection, "Connection", ["id", "remoteAddr", "localAddr"]);
