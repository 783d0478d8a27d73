/**
 * One connection. It passes its peer's lines to a handler. Only this file ends a connection.
 *
 * @module
 */

import { Answers } from "./internal/conn/answers.ts";
import { Account, type Budget, type Holder } from "./internal/memory/budget.ts";
import type { Alarms } from "./internal/time/alarms.ts";
import type { Clock } from "./internal/api/serve_options.ts";
import { type ConnLimits, type ConnOptions, limitOf, mergeLimits } from "./internal/api/conn_options.ts";
import { ConnectionClocks, type Expiry, jitter } from "./internal/time/conn_clocks.ts";
import { ConnectionClosedError, LimitError } from "./internal/api/errors.ts";
import type { ClosedEvent, ConnInfo, HandlerErrorEvent } from "./internal/api/events.ts";
import { type Framing, type ResolvedFraming, resolveFraming } from "./internal/api/framing.ts";
import type { FinishReason } from "./internal/conn/finishing.ts";
import { Handle } from "./internal/conn/handle.ts";
import type { CloseOptions, Conn, ConnHandler, LineHandler } from "./internal/api/handlers.ts";
import { Input } from "./internal/conn/input.ts";
import { LineCutter } from "./internal/lines/line_cutter.ts";
import { linger, LINGER_MS } from "./internal/conn/linger.ts";
import { MisdirectedError } from "./internal/lines/misdirected.ts";
import { Outbox } from "./internal/conn/outbox.ts";
import { Reader } from "./internal/conn/reader.ts";
import { type Breach, type CloseReason, hasLastWords, isBreach } from "./internal/api/reasons.ts";
import type { Member } from "./internal/memory/member_list.ts";
import { encodeLine } from "./internal/lines/text.ts";
import { closeQuietly, isReset, keepAlive, resetQuietly, type Transport } from "./internal/api/transport.ts";

/** The server's handler, which is of one of two kinds. */
export type Handler<Data> =
  | { readonly lines: LineHandler<Data> }
  | { readonly conversation: ConnHandler<Data> };

/** What a server gives each of its connections. */
export interface Host<Data> {
  readonly framing: ResolvedFraming;
  /** Milliseconds of silence before the kernel probes whether the peer is still there. */
  readonly keepAliveMs: number;
  readonly alarms: Alarms;
  readonly clock: Clock;
  readonly budget: Budget;
  readonly handler: Handler<Data>;
  /** Makes the data of a connection. */
  readonly makeData: ((conn: Conn<Data>) => Data) | undefined;
  /** Settles when the kernel has been asked about every socket and the callbacks have run. */
  socketsTurn(): Promise<void>;
  /** Reports that a handler threw. */
  emit(event: HandlerErrorEvent): void;
  /** Returns the line that tells a peer why its connection ends, without its end; null if no line is to be sent. */
  lastWords(reason: CloseReason, limit: number): string | null;
}

/**
 * The phases of a connection, in their order; it never goes back. In `ending` a limit or a clock has ended the input,
 * and the handler may still write; in `leaving` the connection writes the output that waits and its last line; in
 * `lingering` it discards what the peer still sends.
 */
type Phase = "open" | "ending" | "leaving" | "lingering" | "closed";

/** Maximum time for which a handler may still write after a limit or a clock has ended the input, in milliseconds. */
const ENDING_MS = 1000;

/**
 * A connection at work. It owns its transport and closes it in one place, `#free`. Three ways lead there: `#end` lets
 * the handler have a last word, `#leave` closes gracefully, `abort` closes at once. The signal aborts with the reason.
 */
export class Connection<Data = unknown> implements ConnInfo, Holder, Member {
  readonly id: number;
  /** Read from the transport once, at the start: a closed socket may no longer have an address. */
  readonly remoteAddr: Deno.Addr;
  place = 0;
  /** Why the connection ends: set when it leaves `open`; an abort can change it until `signal` has aborted. */
  reason: CloseReason | undefined;
  #phase: Phase = "open";
  #error: unknown;
  #detail: string | undefined;
  /** The handler's last line for the peer; and the limit that `lastWords` is told of. */
  #lastWord: string | undefined;
  #limit: number | undefined;
  #deadline: { readonly milliseconds: number; readonly detail: string | undefined } | undefined;
  readonly #aborter = new AbortController();
  #finishReason: FinishReason | undefined;
  #finisher: AbortController | undefined;
  /** Resolves when the transport is closed; never rejects. */
  readonly closed: Promise<ClosedEvent>;
  #resolveClosed!: (event: ClosedEvent) => void;
  readonly #host: Host<Data>;
  #limits: ConnLimits;
  readonly #transport: Transport;
  readonly #since: number;
  readonly #clocks: ConnectionClocks;
  readonly #reader: Reader;
  readonly #cutter: LineCutter;
  readonly #outbox: Outbox;
  #answers: Answers<Data> | undefined;
  #input: Input | undefined;
  #handle: Handle<Data> | undefined;
  #handled: Promise<void> | undefined;

  constructor(id: number, transport: Transport, host: Host<Data>, limits: ConnLimits) {
    const { alarms, clock, budget } = host;
    this.id = id;
    this.remoteAddr = transport.remoteAddr;
    this.#transport = transport;
    this.closed = new Promise((resolve) => this.#resolveClosed = resolve);
    this.#host = host;
    this.#limits = limits;
    this.#since = alarms.clock.now();
    const memory = new Account(budget, this);
    this.#clocks = new ConnectionClocks(alarms, limits, this);
    this.#reader = new Reader(transport, limits, this.#clocks, memory, clock, this);
    this.#reader.maxLines = Math.round(jitter(limits.maxLines));
    const { independentLines = "conversation" in host.handler } = limits;
    this.#cutter = new LineCutter(this.#reader.input, host.framing, limits.maxLineBytes, independentLines, this);
    this.#outbox = new Outbox(transport, this.#clocks, memory, this, limits.maxQueuedBytes);
  }

  get localAddr(): Deno.Addr {
    return this.#transport.localAddr;
  }

  /** Aborts, with the close reason, when that can no longer change. */
  get signal(): AbortSignal {
    return this.#aborter.signal;
  }

  /** Aborts when the connection is asked to finish. */
  get finishing(): AbortSignal {
    this.#finisher ??= new AbortController();
    if (this.#finishReason !== undefined) this.#finisher.abort(this.#finishReason);
    return this.#finisher.signal;
  }

  /** Why the input ended; undefined while there may be more. */
  get ending(): CloseReason | undefined {
    return this.#reader.endReason ?? this.reason;
  }

  /** Why nothing can be written any more; undefined while writes are taken. */
  get writingEnded(): CloseReason | undefined {
    return this.#phase === "open" || this.#phase === "ending" ? undefined : this.reason;
  }

  /** Settles when the handler has settled, which may be after `closed`; undefined if no handler is running. */
  get handled(): Promise<void> | undefined {
    return this.#answers === undefined || this.#answers.answering ? this.#handled : undefined;
  }

  /** The handler's view of the connection, made on first use. */
  get handle(): Handle<Data> {
    if (this.#handle !== undefined) return this.#handle;
    const isConversation = "conversation" in this.#host.handler;
    if (isConversation) this.#input = new Input(this.#reader, this.#cutter, this.#clocks, this);
    return this.#handle = new Handle(this, this.#outbox, this.#clocks, this.#cutter, this.#input);
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
    const { handler, makeData, budget } = this.#host;
    try {
      if (makeData !== undefined) this.handle.data = makeData(this.handle);
      if ("conversation" in handler) {
        this.#clocks.work();
        await handler.conversation(this.handle);
      } else {
        const [reader, cutter, outbox] = [this.#reader, this.#cutter, this.#outbox];
        this.#answers = new Answers(this, reader, cutter, outbox, this.#clocks, budget, handler.lines);
        this.#answers.arrange(this.#limits);
        await reader.each(this.#answers);
      }
    } catch (error) {
      this.#handled = undefined;
      return this.#handlerFailed(error);
    }
    this.#handled = undefined;
    const reason = this.#reader.endReason ?? this.#finishReason ?? "closed";
    if (isBreach(reason)) this.#end(reason);
    this.#leave(reason);
  }

  #handlerFailed(error: unknown): void {
    // No fault of the handler: it usually learns of the end when a write is refused, or its signal aborts something.
    const byEnd = error instanceof ConnectionClosedError || error === this.reason;
    if (this.reason !== undefined && byEnd || error !== undefined && error === this.#input?.endError) {
      return void this.#leave(this.ending);
    }
    if (error instanceof LimitError) this.failed(error);
    else if (this.#phase === "open" || this.#phase === "ending") {
      this.#host.emit({ type: "handler-error", conn: this, error });
      this.#leave("handler-error", error);
    } else this.#host.emit({ type: "handler-error", conn: this, error });
  }

  // What ends the connection.

  /** Closes gracefully, as the handler asked: a line that is being answered gets its reply first. */
  close({ lastWord, detail }: CloseOptions = {}): void {
    if (lastWord !== undefined) encodeLine(lastWord, this.#cutter.framing);
    if (this.writingEnded !== undefined) return;
    this.#lastWord = lastWord;
    this.#detail ??= detail;
    this.#reader.stop();
    if (!this.#answers?.answering) this.#leave("closed");
  }

  /** Ends the connection at the next line boundary at which everything that the peer has sent is answered. */
  finish(reason: FinishReason): void {
    this.#finishReason ??= reason;
    this.#finisher?.abort(this.#finishReason);
    this.#reader.finish(reason, () => this.#host.socketsTurn(), () => {
      if (this.#answers !== undefined) this.#leave(reason);
    });
  }

  /** Ends the connection at once. Output that waits is lost; if there is any, the peer gets a reset. */
  abort(reason: CloseReason, error?: unknown, cut: boolean = this.#outbox.size > 0): void {
    if (this.#phase === "open" || this.#phase === "leaving" && !this.signal.aborted) {
      this.reason = reason;
      this.#error = error;
    }
    this.#free(cut);
  }

  /** Ends the connection to free its memory. The peer gets its last line, unless replies still wait before it. */
  giveWay(): void {
    if (this.#outbox.size > 0) return this.abort("memory", undefined, true);
    this.#reader.free();
    this.#end("memory");
  }

  /** Ends the input for a limit or a clock. The handler may still write until it settles, or the time for it is up. */
  #end(reason: CloseReason, limit = limitOf(reason, this.#limits), detail?: string, atOnce = true): void {
    if (this.#phase !== "open") return;
    this.#phase = "ending";
    this.reason = reason;
    this.#limit = limit;
    this.#detail ??= detail;
    this.#reader.stop();
    this.#clocks.close(ENDING_MS);
    if (atOnce) this.#aborter.abort(reason);
    if (this.handled === undefined) this.#leave(reason);
  }

  async #leave(reason: CloseReason = "closed", error?: unknown, answer?: string | Uint8Array): Promise<void> {
    if (this.#phase !== "open" && this.#phase !== "ending") return;
    if (this.#phase === "open") this.reason = reason;
    this.#error ??= error;
    this.#phase = "leaving";
    // With a read outstanding, no input is unread, so that a plain close sends no reset.
    const quiet = this.signal.aborted && this.#reader.outstanding !== undefined && this.#outbox.size === 0;
    const sent = this.#outbox.bytesOut;
    this.#reader.stop();
    this.#clocks.leave();
    this.#outbox.add(answer ?? this.#lastLine());
    // Memory must be free soon: its last line is sent if the kernel takes it at once.
    const flushed = this.#outbox.size > 0 ? this.#outbox.flush() : undefined;
    if (this.reason !== "memory") await flushed;
    if (this.#isClosed) return;
    this.#outbox.close(this.reason!);
    const { handled } = this;
    if (handled === undefined) this.#aborter.abort(this.reason);
    else handled.then(() => this.#aborter.abort(this.reason));
    // To linger would keep the buffer of the outstanding read.
    const atOnce = this.reason === "memory" || quiet && sent === this.#outbox.bytesOut;
    if (!this.#reader.peerEnded && !atOnce) await this.#linger();
    this.#free();
  }

  async #linger(): Promise<void> {
    this.#phase = "lingering";
    this.#clocks.linger(LINGER_MS);
    const { outstanding } = this.#reader;
    await linger(this.#transport, () => this.#outbox.closeWrite(), () => this.#isClosed, outstanding);
  }

  get #isClosed(): boolean {
    return this.#phase === "closed";
  }

  #lastLine(): string | Uint8Array {
    const reason = this.reason!;
    const limit = this.#limit ?? limitOf(reason, this.#limits);
    const word = this.#lastWord ?? (hasLastWords(reason) ? this.#host.lastWords(reason, limit) : null);
    return word === null ? "" : encodeLine(word, this.#cutter.framing, true);
  }

  #free(cut = false): void {
    if (this.#phase === "closed") return;
    this.#phase = "closed";
    this.#clocks.stop();
    this.#reader.free();
    this.#outbox.close(this.reason!);
    this.#aborter.abort(this.reason);
    (cut ? resetQuietly : closeQuietly)(this.#transport);
    const durationMs = this.#host.alarms.clock.now() - this.#since;
    const { lines, bytesIn, bytesOut } = this.totals;
    const event = { type: "closed", conn: this, reason: this.reason!, lines, bytesIn, bytesOut, durationMs } as const;
    const error = this.#error === undefined ? undefined : { error: this.#error };
    this.#resolveClosed({ ...event, ...error, ...(this.#detail !== undefined && { detail: this.#detail }) });
  }

  /** The handler has aborted `conn.writable`: ends the connection, unless it is ending already. */
  writingAborted(error: unknown): void {
    if (this.reason !== undefined) return;
    if (error instanceof LimitError) this.failed(error);
    else this.abort("closed");
  }

  // What the handler changes.

  setLimits(changes: ConnOptions): void {
    const before = this.#limits;
    const limits = this.#limits = mergeLimits(before, changes);
    this.#clocks.timeouts = limits;
    this.#cutter.maxLineBytes = limits.maxLineBytes;
    this.#cutter.independentLines = limits.independentLines ?? this.#answers === undefined;
    this.#outbox.maxQueuedBytes = limits.maxQueuedBytes;
    this.#reader.setLimits(before, limits, this.#host.clock);
    if (limits.maxLines !== before.maxLines) this.#reader.maxLines = Math.round(jitter(limits.maxLines));
    this.#answers?.arrange(limits);
  }

  setFraming(framing: Partial<Framing>): void {
    this.#cutter.framing = resolveFraming(framing, this.#cutter.framing);
    this.#answers?.arrange(this.#limits);
  }

  setDeadline(milliseconds: number, detail?: string): void {
    this.#deadline = { milliseconds, detail };
    if (this.#phase === "open") this.#clocks.setDeadline(milliseconds);
  }

  // What the parts of the connection report.

  /** `maxLines` lines have come. */
  enough(): void {
    this.finish("max-lines");
  }

  /** A line that was too long has been discarded. */
  discarded(): void {
    const word = this.#host.lastWords("line-too-long", this.#limits.maxLineBytes);
    if (word !== null) this.#outbox.post(encodeLine(word, this.#cutter.framing, true));
  }

  /** Something was wrong with the input, which has ended. */
  breached(breach: Breach, atOnce: boolean): void {
    this.#end(breach, undefined, undefined, atOnce);
  }

  /** Reading or writing has failed. */
  failed(error: unknown): void {
    if (error instanceof LimitError) {
      this.#end(error.reason, error.limit);
      return void this.#leave(error.reason);
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
    else if (expiry === "read-timeout") this.#input?.timedOut();
    else if (expiry === "closing") this.#stepIsOver();
    else if (expiry === "deadline") this.#end(expiry, this.#deadline?.milliseconds, this.#deadline?.detail);
    else if (expiry !== "write-timeout") this.#end(expiry);
    else if (!this.#outbox.progressed()) this.abort(expiry);
  }

  #stepIsOver(): void {
    if (this.#phase === "ending") this.#leave();
    else this.#free();
  }

  /** Watches the peer while the handler works for long: it may reset the connection, or vanish without a FIN. */
  #listen(): void {
    if (this.#host.keepAliveMs !== Infinity) keepAlive(this.#transport);
    this.#reader.listen();
  }

  get midLine(): boolean {
    return this.#reader.holdsUnfinished;
  }
}
