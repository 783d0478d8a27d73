/**
 * What a server gives each of its connections, and the parts that a connection is made of.
 *
 * @module
 */

import { type ConnLimits, type ConnOptions, mergeLimits } from "../api/conn_options.ts";
import { ConnectionClosedError, harmless } from "../api/errors.ts";
import type { HandlerErrorEvent, Traffic } from "../api/events.ts";
import type { ResolvedFraming } from "../api/framing.ts";
import type { Conn, ConnHandler, ConnStats, LineHandler } from "../api/handlers.ts";
import type { Breach, CloseReason } from "../api/reasons.ts";
import type { Clock } from "../api/serve_options.ts";
import { keepAlive, type TlsCredentialsHandle, type TlsInfo, type Transport } from "../api/transport.ts";
import { LineCutter } from "../lines/line_cutter.ts";
import { encodeLine } from "../lines/text.ts";
import { Account, type Budget, type Holder } from "../memory/budget.ts";
import type { Alarms } from "../time/alarms.ts";
import { ConnectionClocks } from "../time/conn_clocks.ts";
import type { EndingExpiry, Expiry } from "../time/expiry.ts";
import { Answers } from "./answers.ts";
import { type Core, Handle } from "./handle.ts";
import { FailedWrite } from "./failed_write.ts";
import { Input } from "../reads/input.ts";
import type { FinishReason } from "../io/finishing.ts";
import { linger, LINGER_MS } from "../io/linger.ts";
import { Outbox } from "../io/outbox.ts";
import { hasLeft, readAhead } from "../io/read_ahead.ts";
import { Reader, type ReaderOwner } from "../io/reader.ts";
import { Upgrade, type UpgradeOwner } from "./upgrade.ts";

/**
 * What uses a connection: a handler of one of two kinds, or, with `caller`, the code that has called `connect`: there
 * is no handler that returns, so the connection ends when it is closed, or when both its sides have ended. `outgoing` tells
 * that this side has opened the connection, so that it cannot begin TLS as a server.
 */
export type Handler<Data> =
  | { readonly lines: LineHandler<Data> }
  | { readonly conversation: ConnHandler<Data>; readonly outgoing?: true }
  | { readonly caller: true; readonly outgoing: true };

/** The server's caller, as a connection sees it. */
export interface ConnReports {
  /** Reports that a handler threw. */
  emit(event: HandlerErrorEvent): void;
  /** Returns the line that tells a peer why its connection ends, without its end; null if no line is to be sent. */
  lastWords(reason: CloseReason, limit: number): string | null;
}

/** What a server gives each of its connections. */
export interface Host<Data> {
  readonly framing: ResolvedFraming;
  /** Milliseconds of silence before the kernel probes whether the peer is still there. */
  readonly keepAliveMs: number;
  readonly alarms: Alarms;
  readonly clock: Clock;
  readonly budget: Budget;
  readonly handler: Handler<Data>;
  /** Makes the data of a connection, which has none yet. */
  readonly makeData: ((conn: Conn<never>) => Data) | undefined;
  /** Settles when the kernel has been asked about every socket and the callbacks have run. */
  socketsTurn(): Promise<void>;
  /** Tells the server's caller what happens, and asks it what a peer is told at its end. */
  readonly reports: ConnReports;
}

/** The connection, as its parts see it. */
interface Owner extends Core, Holder, ReaderOwner, UpgradeOwner {
  expire(expiry: EndingExpiry): void;
  stop(reason: Breach | FinishReason, limit: undefined, atOnce: boolean): void;
}

/** The parts of one connection. Each gets what it uses when it is made, and calls it directly. */
export class Parts<Data> {
  readonly #host: Host<Data>;
  readonly #owner: Owner;
  limits: ConnLimits;
  readonly clocks: ConnectionClocks;
  readonly reader: Reader;
  readonly cutter: LineCutter;
  readonly outbox: Outbox;
  #answers: Answers<Data> | undefined;
  #input: Input | undefined;
  #handle: Handle<Data> | undefined;
  #hasData = false;
  #upgrade: Upgrade | undefined;
  /** Settles when TLS has begun, or cannot begin; undefined while the connection does not begin it. Never rejects. */
  upgraded: Promise<void> | undefined;
  /** Resolves when the caller of `connect` needs the connection no longer. */
  #caller: PromiseWithResolvers<void> | undefined;
  /** Lets the input of an outgoing connection be read after a write has failed. */
  readonly #failedWrite: FailedWrite | undefined;

  /**
   * @param transport Transfers the connection's bytes.
   * @param host The server.
   * @param limits The limits of the connection.
   * @param owner The connection.
   */
  constructor(transport: Transport, host: Host<Data>, limits: ConnLimits, owner: Owner) {
    const memory = new Account(host.budget, owner);
    this.#host = host;
    this.#owner = owner;
    this.limits = limits;
    this.clocks = new ConnectionClocks(host.alarms, limits, this);
    this.reader = new Reader(transport, limits, this.clocks, memory, host.clock, owner);
    this.reader.outgoing = "outgoing" in host.handler;
    this.cutter = new LineCutter(this.reader.input, host.framing, limits.maxLineBytes, limits.independentLines, this);
    this.#failedWrite = this.reader.outgoing ? new FailedWrite(this, host.clock, owner) : undefined;
    this.outbox = new Outbox(transport, this.clocks, memory, this.#failedWrite ?? owner, limits.maxQueuedBytes);
    this.#keepAlive();
  }

  /** Has the kernel probe a silent peer. With a shorter `idleTimeout`, the server notices first that it has vanished. */
  #keepAlive(): void {
    if (this.#host.keepAliveMs < this.limits.idleTimeout) keepAlive(this.transport);
  }

  /**
   * Ends the connection if a write to the server has failed, after which its input was still read; returns whether that is
   * so.
   */
  endAfterFailedWrite(): boolean {
    return this.#failedWrite?.end() ?? false;
  }

  get transport(): Transport {
    return this.reader.transport;
  }

  /** Has the bytes transferred by another transport from now on; no read and no write may be outstanding. */
  set transport(transport: Transport) {
    this.reader.transport = this.outbox.transport = transport;
  }

  /** The handler's view of the connection, made on first use. */
  get handle(): Handle<Data> {
    if (this.#handle !== undefined) return this.#handle;
    if (!("lines" in this.#host.handler)) {
      this.#input = new Input(this.reader, this.cutter, this.clocks, this);
    }
    return this.#handle = new Handle(this.#owner, this);
  }

  /** Why the input or the connection ended; undefined while there may be more. */
  get ending(): CloseReason | undefined {
    return this.#owner.ending;
  }

  /** The reads of a conversation handler; undefined for a line handler, and before the handler reads. */
  get input(): Input | undefined {
    return this.#input;
  }

  /** Whether a line handler waits for its peer, and so is not at work. */
  get resting(): boolean {
    return this.#answers !== undefined && !this.#answers.answering;
  }

  /** Whether a line handler is working on a line. */
  get answering(): boolean {
    return this.#answers?.answering ?? false;
  }

  /** Whether the peer has ended its side, also if that was after the end of the input. */
  get peerHasLeft(): boolean {
    return hasLeft(this.reader);
  }

  /** Lines and bytes so far. */
  get totals(): Traffic {
    return { lines: this.reader.lineCount, bytesIn: this.reader.byteCount, bytesOut: this.outbox.bytesOut };
  }

  /** Lines and bytes so far, what the connection waits for, and for how long. */
  stats(): Omit<ConnStats, "ageMs" | "phase" | "detail"> {
    const { idleMs, waitsFor } = this.clocks;
    return { ...this.totals, idleMs, waitsFor };
  }

  /**
   * Runs the handler, and tells the owner when it has settled, or when there is no more input for it to answer.
   *
   * @returns A promise that settles after that, and never rejects.
   */
  run(): Promise<void> {
    const { handler, makeData } = this.#host;
    try {
      if (makeData !== undefined) this.#setData(makeData(this.handle as Conn<unknown> as Conn<never>));
      if (!("lines" in handler)) return this.#settled(this.#converse(handler));
      const { reader, cutter, outbox, clocks } = this;
      this.#answers = new Answers(this, reader, cutter, outbox, clocks, this.#host.budget, handler.lines);
      // The reader tells the owner itself: to wait for it would take memory, for as long as the connection lives.
      return reader.read(this.#answers);
    } catch (error) {
      return this.#settled(Promise.reject(error));
    }
  }

  /** Whether the handler has got the data that the option `data` makes, if there is that option. */
  get hasData(): boolean {
    return this.#hasData || this.#host.makeData === undefined;
  }

  #setData(data: Data): void {
    this.handle.data = data;
    this.#hasData = true;
    // Perhaps the handler awaits it only later, or never. Unhandled, its rejection would end the process.
    if (data instanceof Promise) harmless(data);
  }

  #converse(handler: Exclude<Handler<Data>, { readonly lines: unknown }>): Promise<unknown> {
    this.clocks.work();
    if (!("caller" in handler)) {
      // Called by itself: all connections would share the object of which it is a method.
      const { conversation } = handler;
      return Promise.resolve(conversation(this.handle));
    }
    this.#caller = Promise.withResolvers();
    return this.#caller.promise;
  }

  /** Tells the owner when a handler has settled. */
  #settled(handled: Promise<unknown>): Promise<void> {
    // Two callbacks: an async function would take twice their memory.
    return handled.then(() => {
      this.endAfterFailedWrite();
      this.#owner.handlerSettled();
    }, (error) => {
      this.endAfterFailedWrite();
      this.#owner.handlerFailed(error);
    });
  }

  /** Ends the input at the next line boundary; `leave` is called if a line handler waits for its peer there. */
  finish(reason: FinishReason, leave: () => void): void {
    this.#input?.dropAbandoned();
    this.reader.finish(reason, this.#host, () => {
      if (this.resting) leave();
    });
  }

  /** The handler has found that there is no more input. A breach ends the connection, which the owner is told. */
  inputEnded(breach: Breach | undefined, atOnce: boolean): void {
    const { endReason } = this.reader;
    // The caller of `connect` does not return as a handler does, which a limit on the life of the connection waits for.
    const reason = breach ?? (this.#caller !== undefined && endReason !== "end" ? endReason : undefined);
    if (reason !== undefined) this.#owner.stop(reason, undefined, atOnce);
    this.sideEnded();
  }

  /**
   * A side has ended, or something was read after that. Once both sides have ended and all is read, the caller of
   * `connect` needs the connection no longer; nor does a handler to which nothing can be written any more.
   */
  sideEnded(): void {
    const { reader, cutter, outbox } = this;
    if (!reader.peerEnded || cutter.begun || reader.input.overLimit) return;
    if (this.endAfterFailedWrite()) return;
    if (this.#caller === undefined || !outbox.ended) return;
    reader.endInput();
    if (reader.endReason === "end") this.#caller.resolve();
  }

  /** The caller of `connect`, if that is what uses the connection, needs it no longer. */
  callerDone(): void {
    this.#caller?.resolve();
  }

  /** Whether TLS is about to begin. */
  get upgrading(): boolean {
    return this.#upgrade?.active ?? false;
  }

  /** Begins TLS. */
  async startTls(credentials: TlsCredentialsHandle): Promise<TlsInfo> {
    if (this.upgrading) throw new TypeError("Cannot begin TLS: the connection begins it already");
    if (this.transport.tls !== undefined) throw new TypeError("Cannot begin TLS: the connection is encrypted already");
    const { handler } = this.#host;
    if ("outgoing" in handler) {
      throw new TypeError("Cannot begin TLS: this side is the client, which has the option tls");
    }
    if ("lines" in handler) this.#checkAnswering();
    if (this.outbox.ending) throw new ConnectionClosedError(this.outbox.closed, "begin TLS");
    this.#upgrade = new Upgrade(this, this.#owner, credentials);
    const upgrade = this.#upgrade.run();
    const over = () => this.upgraded = undefined;
    this.upgraded = upgrade.then(over, over);
    return await upgrade;
  }

  /** Checks that no line reaches a line handler before TLS has begun: an attacker can have put it behind the command. */
  #checkAnswering(): void {
    if (!this.answering) {
      throw new TypeError("Cannot begin TLS: a line handler can do that only while it answers a line");
    }
    if (this.#answers!.inBlock) {
      throw new TypeError("Cannot begin TLS in handler.block: lines that it has got already came in plain text");
    }
  }

  /** Watches the peer while the handler works for long: it may reset the connection, or vanish without a FIN. */
  #watchPeer(): void {
    if (this.#host.keepAliveMs !== Infinity) keepAlive(this.transport);
    this.readAhead().then(() => this.sideEnded());
  }

  /** Reads what has come and was not asked for. */
  readAhead(): Promise<void> {
    return readAhead(this.reader, this.clocks, this.#host.budget, (error) => this.#owner.failed(error));
  }

  /**
   * Ends this side, and lets the peer read what was written. If nothing was, a reset can destroy no reply, and may be all
   * that tells the peer of the end: a sender of logs does not read, and would lose what it sends meanwhile.
   */
  async linger(isClosed: () => boolean): Promise<void> {
    this.clocks.linger(LINGER_MS);
    const silent = this.outbox.bytesOut === 0;
    const over = () => silent || isClosed();
    await linger(this.transport, () => this.outbox.closeWrite(), over, this.reader.outstanding);
  }

  /** A clock has expired. The connection is told of those that may end it. */
  expire(expiry: Expiry): void {
    if (expiry === "read-ahead") this.#watchPeer();
    else if (expiry === "stuck") this.outbox.stuck();
    else if (expiry !== "read-timeout") this.#owner.expire(expiry);
    else if (this.upgrading) this.#upgrade!.late();
    else this.#input?.timedOut();
  }

  /** A line that was too long has been discarded. */
  discarded(): void {
    const word = this.#host.reports.lastWords("line-too-long", this.limits.maxLineBytes);
    if (word === null) return;
    const { outbox, cutter, input } = this;
    outbox.post(encodeLine(word, cutter.framing, true));
    // A line handler's replies are flushed before the next read. A conversation may only read, and never wait for a write.
    if (!outbox.hasRoom) input?.waitFor(outbox.ready());
  }

  /** Changes limits of the connection; once it is closed, a clock that starts would never stop. */
  setLimits(changes: ConnOptions, isOpen: boolean): void {
    const before = this.limits;
    const limits = this.limits = mergeLimits(before, changes);
    if (!isOpen) return;
    this.clocks.timeouts = limits;
    this.cutter.setLimits(limits);
    this.outbox.maxQueuedBytes = limits.maxQueuedBytes;
    if (limits.writeTimeout !== before.writeTimeout) this.outbox.timeoutChanged();
    if (limits.idleTimeout !== before.idleTimeout) this.#keepAlive();
    this.reader.setLimits(before, limits, this.#host.clock);
    // Perhaps more lines have come than may come now.
    if (!this.reader.over) this.reader.linesCame(0);
    this.#answers?.limitsChanged();
    this.#input?.reader.handlerWait.lookAgain();
  }
}
