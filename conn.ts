/**
 * One connection: a door in, an outbox out, the clocks beside them; and the one place where a connection ends.
 *
 * @module
 */

import { Blocks, type Peer } from "./internal/blocks.ts";
import type { Budget, Share } from "./internal/budget.ts";
import { type Alarms, type Clock, ConnectionClocks, type Expiry, jitter } from "./internal/clocks.ts";
import { Lines } from "./internal/conversation.ts";
import type { ConnLimits } from "./internal/conn_options.ts";
import { linger, LINGER_MS } from "./internal/courtesy.ts";
import { ConnectionClosedError } from "./internal/errors.ts";
import type { ClosedEvent, ServerEvent } from "./internal/events.ts";
import { type Finishable, Finishing, type FinishReason } from "./internal/finishing.ts";
import type { Conn, ConnHandler, LineHandler } from "./internal/handlers.ts";
import { LineDoor } from "./internal/line_door.ts";
import { Outbox, type Sink } from "./internal/outbox.ts";
import type { CloseReason, ErrorLineReason } from "./internal/reasons.ts";
import type { Member } from "./internal/roster.ts";
import { closeQuietly, dontDelay, isReset, type Transport } from "./internal/transport.ts";

/** Which of the two handlers a server has. */
export type Door = { lines: LineHandler } | { conversation: ConnHandler };

/** What the connections of one server share. */
export interface Host {
  readonly limits: ConnLimits;
  readonly alarms: Alarms;
  readonly clock: Clock;
  readonly budget: Budget;
  readonly door: Door;
  /** How many connections there are. */
  readonly active: number;
  /** Lets the sockets have their turn; connections that ask at the same time share it. */
  socketsTurn(): Promise<void>;
  /** Tells what happened. */
  emit(event: ServerEvent): void;
  /** The line that tells a peer which limit it met, with its end; empty for none. */
  errorLine(reason: ErrorLineReason, limit: number): string;
  /** A connection has ended, and its transport is closed. */
  ended(conn: Connection, event: ClosedEvent): void;
}

/**
 * A connection at work.
 *
 * It owns its transport, and closes it in one place, `#free`. Two ways lead there: `#leave`, which is polite, and
 * `abort`, which is not. The first to be sure sets the reason, and the host is told once, when the transport is closed.
 */
export class Connection implements Conn, Peer, Sink, Finishable, Member {
  readonly id: number;
  /** Asked for once: a socket that is closed may have none any more. */
  readonly remoteAddr: Deno.Addr;
  place = 0;
  readonly #host: Host;
  readonly #transport: Transport;
  readonly #outbox: Outbox;
  readonly #clocks: ConnectionClocks;
  readonly #since: number;
  readonly #blocks: Blocks;
  #door: LineDoor | Lines | undefined;
  /** The one outstanding read; whoever comes next waits for it too, so that no bytes are lost in between. */
  #reading: Promise<number | null> | undefined;
  #bytesIn = 0;
  #bytesOut = 0;
  #writes = 0;
  #peerEnded = false;
  /** What it takes of the budget. */
  #share: Share | undefined;
  readonly #maxLines: number;
  #finishing: Finishing | undefined;
  /** Why it is about to end; an abort meanwhile has the last word. */
  #leaving: CloseReason | undefined;
  #reason: CloseReason | undefined;
  #error: unknown;
  #freed = false;
  #controller: AbortController | undefined;

  constructor(id: number, transport: Transport, host: Host) {
    this.id = id;
    this.remoteAddr = transport.remoteAddr;
    this.#transport = transport;
    this.#host = host;
    this.#since = host.alarms.now();
    this.#clocks = new ConnectionClocks(host.alarms, host.limits, this);
    this.#blocks = new Blocks(this, host.limits, host.clock);
    this.#outbox = new Outbox(this, host.limits.maxQueuedBytes);
    this.#maxLines = Math.round(jitter(host.limits.maxLines));
  }

  get localAddr(): Deno.Addr {
    return this.#transport.localAddr;
  }

  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    if (this.#reason !== undefined) this.#controller.abort(this.#reason);
    return this.#controller.signal;
  }

  get lines(): Lines {
    this.#door ??= new Lines(this.#blocks);
    if (this.#door instanceof Lines) return this.#door;
    throw new TypeError("Cannot use conn.lines in a line handler: it gets each line as its argument");
  }

  write(data: string | Uint8Array): Promise<void> {
    if (typeof data !== "string" && !(data instanceof Uint8Array)) {
      return harmless(
        Promise.reject(new TypeError(`Cannot write: expected a string or a Uint8Array, got ${typeof data}`)),
      );
    }
    if (this.#leaving !== undefined) return harmless(Promise.reject(new ConnectionClosedError(this.#leaving)));
    const { maxQueuedBytes } = this.#host.limits;
    // Who waits for each write never finds it full when the next one comes, however large that is.
    const patient = !this.#outbox.full;
    this.#outbox.post(data);
    if (!patient && this.#outbox.size > maxQueuedBytes) this.abort("write-queue");
    return this.#outbox.full || this.leaving ? harmless(this.#writable()) : WRITTEN;
  }

  async #writable(): Promise<void> {
    await this.#outbox.ready();
    if (this.#reason !== undefined) throw new ConnectionClosedError(this.#reason);
  }

  close(): void {
    const door = this.#door;
    door?.stop();
    // The line that is being answered gets its reply first.
    if (!(door instanceof LineDoor && door.answering)) this.#leave("closed");
  }

  /** Serves the peer to the end, which the host is told of. */
  serve(): void {
    this.#open().then(
      () => this.#leave(this.#inputEnd()),
      (error) => this.#handlerFailed(error),
    );
  }

  #open(): Promise<unknown> {
    const { door } = this.#host;
    if ("conversation" in door) return converse(door.conversation, this);
    this.#door = new LineDoor(this, this.#blocks, this.#outbox, door.lines);
    return this.#door.serve();
  }

  /** What the peer sent behind the last line that the handler wanted is not the reason, whether it has come yet or not. */
  #inputEnd(): CloseReason {
    if (this.#blocks.misdirected !== undefined) return "misdirected";
    if (!this.#blocks.exhausted) return "closed";
    if (this.#blocks.breach !== undefined) return this.#blocks.breach;
    return this.#finishing?.over ? this.#finishing.reason : this.#peerEnded ? "end" : "closed";
  }

  /** Ends it at the next line boundary at which everything that the peer has sent is answered. */
  finish(reason: FinishReason): void {
    this.#finishing ??= new Finishing(reason, this);
  }

  async #leave(reason: CloseReason, error?: unknown): Promise<void> {
    if (this.leaving) return;
    this.#leaving = reason;
    this.#clocks.rest();
    this.#outbox.add(this.#errorLine(reason));
    if (this.#outbox.size > 0) await this.#outbox.flush();
    if (this.#reason !== undefined) return;
    this.#settle(reason, error);
    if (!this.#peerEnded) {
      this.#clocks.linger(LINGER_MS);
      await linger(this.#transport, () => this.#freed, this.#reading);
    }
    this.#free();
  }

  #errorLine(reason: CloseReason): string | Uint8Array {
    if (reason === "misdirected") return this.#blocks.misdirected!;
    const { maxLineBytes, maxConnectionBytes } = this.#host.limits;
    if (reason === "line-too-long") return this.#host.errorLine(reason, maxLineBytes);
    return reason === "byte-limit" ? this.#host.errorLine(reason, maxConnectionBytes) : "";
  }

  /** Ends it at once; what waits to be written is lost. */
  abort(reason: CloseReason, error?: unknown): void {
    this.#settle(reason, error);
    this.#free();
  }

  #settle(reason: CloseReason, error: unknown): void {
    if (this.#reason !== undefined) return;
    this.#leaving ??= reason;
    this.#reason = reason;
    this.#error = error;
    this.#outbox.close();
    this.#controller?.abort(reason);
  }

  #free(): void {
    if (this.#freed) return;
    this.#freed = true;
    this.#clocks.stop();
    this.#blocks.free();
    this.holds(0);
    closeQuietly(this.#transport);
    const { lines, bytesIn, bytesOut } = this.totals;
    const durationMs = this.#host.alarms.now() - this.#since;
    const reason = this.#reason!;
    const error = this.#error;
    this.#host.ended(this, { type: "closed", conn: this, reason, error, lines, bytesIn, bytesOut, durationMs });
  }

  #handlerFailed(error: unknown): void {
    // A write that comes too late, or what its signal called off, is how a handler usually learns of the end.
    if (this.leaving && (error instanceof ConnectionClosedError || error === this.#reason)) return;
    this.#host.emit({ type: "handler-error", conn: this, error });
    this.#leave("handler-error", error);
  }

  /** Whether a line has begun and not ended. */
  get midLine(): boolean {
    return this.#blocks.midLine;
  }

  /** Gives its memory back at once; its peer is told, if the kernel takes the line without waiting. */
  giveWay(): void {
    this.#outbox.add(this.#host.errorLine("memory", 0));
    this.#outbox.flush();
    this.abort("memory");
  }

  /** What has gone through it so far. */
  get totals(): { lines: number; bytesIn: number; bytesOut: number } {
    return { lines: this.#blocks.lines, bytesIn: this.#bytesIn, bytesOut: this.#bytesOut };
  }

  ref(): void {
    this.#transport.ref?.();
  }

  unref(): void {
    this.#transport.unref?.();
  }

  // For the clocks, which close silently.

  expire(expiry: Expiry): void {
    if (expiry === "max-age") this.finish(expiry);
    else if (expiry === "linger") this.#free();
    else this.abort(expiry);
  }

  // For the blocks.

  get leaving(): boolean {
    return this.#leaving !== undefined;
  }

  read(into: Uint8Array): Promise<number | null> {
    return this.#reading = this.#transport.read(into);
  }

  took(count: number | null): void {
    this.#reading = undefined;
    if (count === null) this.#peerEnded = true;
    else this.#bytesIn += count;
    this.#finishing?.took();
  }

  failed(error: unknown): void {
    this.abort(isReset(error) ? "reset" : "transport-error", error);
  }

  wait(midLine: boolean): void {
    this.#clocks.wait(midLine);
    this.#finishing?.rested();
  }

  rest(): void {
    this.#clocks.rest();
  }

  linesEnded(lines: number): void {
    if (lines === 1) this.#outbox.newTurn();
    this.#clocks.lineEnded();
    if (this.#blocks.lines >= this.#maxLines) this.finish("max-lines");
  }

  get tight(): boolean {
    return this.#host.budget.tight;
  }

  holds(bytes: number): void {
    const { budget } = this.#host;
    const before = this.#share;
    this.#share = bytes > 0 ? budget.take(this, bytes) : undefined;
    if (before !== undefined) budget.giveBack(before);
    if (bytes > (before?.bytes ?? 0)) budget.settle();
  }

  // For the finishing.

  get atRest(): boolean {
    return this.#blocks.atRest;
  }

  get bytesIn(): number {
    return this.#bytesIn;
  }

  get full(): boolean {
    return this.#blocks.full;
  }

  get linesIn(): number {
    return this.#blocks.lines;
  }

  async socketsTurn(): Promise<void> {
    // The first may have begun before now; and the kernel tells of some 1000 sockets at a time.
    for (let turns = 2 + (this.#host.active >> 9); turns > 0; turns--) await this.#host.socketsTurn();
  }

  finishNow(reason: FinishReason): void {
    if (this.#door?.end() === false) this.#leave(reason);
  }

  // For the outbox.

  send(bytes: Uint8Array): Promise<number> {
    // Nagle's algorithm holds no first write back, and many a connection has no other.
    if (this.#writes++ === 1) dontDelay(this.#transport);
    try {
      return this.#transport.write(bytes);
    } catch (error) {
      // Whose transport it is may see to it at once that it cannot write.
      return Promise.reject(error);
    }
  }

  writing(): void {
    this.#clocks.writing();
  }

  sent(bytes: number): void {
    this.#bytesOut += bytes;
  }

  wrote(): void {
    this.#clocks.wrote();
  }

  writeFailed(error: unknown): void {
    this.failed(error);
  }
}

const WRITTEN = Promise.resolve();

/** Makes a promise of what a handler does, whether it is one already or not, and whether it throws or rejects. */
async function converse(handler: ConnHandler, conn: Conn): Promise<void> {
  await handler(conn);
}

/** A promise whose rejection nobody has to look at: a connection that has ended is no reason to end the process. */
function harmless<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}
