/**
 * One connection under TLS.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { type SecureContext, TLSSocket } from "node:tls";
import { peerLeftOr } from "../preparing_listener.ts";
import { closeQuietly, dontDelay, Forwarding, resetQuietly, type Transport } from "../../internal/api/transport.ts";
import { turn } from "../../internal/time/turns.ts";
import type { ClientVerifier } from "./clients.ts";
import { Wire } from "./wire.ts";

/**
 * Maximum bytes written at a time: three TLS records, as many as are encrypted at once. Of more, TLS would keep a copy
 * until the peer has taken it, and nothing would be known of the progress before.
 */
const LARGEST_WRITE = 3 * 16 * 1024;

/** What a connection is made secure with. */
export interface Security {
  readonly secureContext: SecureContext;
  /** Decides on the client's certificate; without it, none is asked for. */
  readonly clients?: ClientVerifier | undefined;
}

/**
 * The decrypted bytes of a connection, whose transport it owns.
 *
 * It reads from below only while somebody reads here and nothing is left, so that it never keeps more than one read and
 * an unfinished record.
 */
export class TlsTransport extends Forwarding {
  readonly #wire: Wire;
  readonly #socket: TLSSocket;
  /** Decrypted, and not asked for yet. */
  readonly #chunks: Uint8Array[] = [];
  #unreadBytes = 0;
  /** How many bytes have to have left until the write is done that is under way. */
  #goal = 0;
  /** How many had left when it began, or when `progress` was asked last. */
  #sentBefore = 0;
  #pulling = false;
  #secure = false;
  /** The peer has said that it ends, and so has this side. */
  #ended = false;
  #saidEnd = false;
  #failure: unknown;
  #closed = false;
  #change = Promise.withResolvers<void>();

  private constructor(transport: Transport, security: Security) {
    super(transport);
    this.#wire = new Wire(transport, () => this.#changed(), (error) => this.#fail(error));
    const { secureContext, clients } = security;
    this.#socket = new TLSSocket(this.#wire, { isServer: true, secureContext, requestCert: clients !== undefined });
    if (clients !== undefined) this.#wire.onRecord = () => clients.checkEarly(this.#socket);
    this.#socket.on("secure", () => this.#shaken(clients));
    this.#socket.on("data", (bytes) => this.#decrypted(bytes));
    this.#socket.on("end", () => this.#changed(this.#ended = true));
    this.#socket.on("error", (error) => this.#fail(error));
    // A socket without a `tls.Server` tells only so of damage after the handshake. Not to hear it would be to idle.
    this.#socket.on("_tlsError", (error) => this.#fail(error));
    this.#socket.on("close", () => this.#fail(new Deno.errors.BadResource("The TLS connection is closed")));
  }

  /**
   * Shakes hands.
   *
   * @param transport The client's connection; who calls closes it, if this fails.
   * @param security What to make it secure with.
   * @returns The secure connection.
   */
  static async accept(transport: Transport, security: Security): Promise<TlsTransport> {
    const tls = new TlsTransport(transport, security);
    try {
      // A handshake is a conversation of small messages.
      dontDelay(transport);
      // A socket that has something to decrypt before it has started, and cannot, brings the process down.
      await new Promise((resolve) => setImmediate(() => resolve(undefined)));
      await tls.#until(() => tls.#secure);
      // Tickets for a later session, which come with the end of the handshake.
      await tls.#taken();
      return tls;
    } catch (error) {
      tls.#fail(error);
      await tls.#lastWords();
      throw peerLeftOr(error, tls.#wire.received);
    }
  }

  /**
   * Output that waits for the peer, which TLS has a copy of and encrypts bit by bit; decrypted input that waits for a
   * read; and what the read buffer has grown by.
   */
  override get heldBytes(): number {
    const { sent, waitingBytes, grownBytes } = this.#wire;
    const output = this.#closed ? 0 : Math.max(waitingBytes, this.#goal - sent);
    return output + this.#unreadBytes + grownBytes + super.heldBytes;
  }

  override async read(into: Uint8Array): Promise<number | null> {
    await this.#until(() => this.#chunks.length > 0 || this.#ended);
    const [chunk] = this.#chunks;
    if (chunk === undefined) return null;
    const part = chunk.subarray(0, into.length);
    into.set(part);
    this.#unreadBytes -= part.length;
    if (part.length === chunk.length) this.#chunks.shift();
    else this.#chunks[0] = chunk.subarray(part.length);
    return part.length;
  }

  override async write(bytes: Uint8Array): Promise<number> {
    const wire = this.#wire;
    await this.#taken();
    // Encrypted it is longer, so when so many bytes have left, all of it has.
    const part = bytes.subarray(0, LARGEST_WRITE);
    this.#sentBefore = wire.sent;
    const goal = this.#goal = wire.sent + part.length;
    this.#socket.write(part);
    await this.#taken(() => wire.sent >= goal);
    return part.length;
  }

  override async closeWrite(): Promise<void> {
    await this.#taken();
    this.#saidEnd = true;
    this.#socket.end();
    await turn();
    await this.#taken();
    await this.inner.closeWrite();
  }

  /** A peer that is not told of the end has to take it for an attack, so it is told, if that costs no waiting. */
  override close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const tell = this.#secure && this.#failure === undefined && !this.#saidEnd && this.#wire.idle;
    if (tell) this.#socket.end();
    this.#fail(new Deno.errors.Interrupted("The connection was closed"));
    if (tell) setImmediate(() => this.#free());
    else this.#free();
  }

  /** It can always be reset, as far as TLS goes. */
  override get reset(): () => void {
    return this.#reset;
  }

  /** Tells of encrypted bytes: what has left below, and what the peer's side has taken of the rest. */
  override get progress(): (() => number) | undefined {
    return this.inner.progress && this.#progress;
  }

  /** Without TLS's close_notify, so that the peer does not take an answer that was cut off for a whole one. */
  #reset(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#fail(new Deno.errors.Interrupted("The connection was reset"));
    this.#wire.stop();
    this.#socket.destroy();
    resetQuietly(this.inner);
  }

  /** The handshake is done; what comes behind it, such as tickets, has not been sent. */
  #shaken(clients: ClientVerifier | undefined): void {
    this.#wire.onRecord = undefined;
    try {
      clients?.check(this.#socket);
      this.#secure = true;
      this.#changed();
    } catch (error) {
      this.#wire.stop();
      this.#fail(error);
    }
  }

  #progress(): number {
    const { sent } = this.#wire;
    const left = sent - this.#sentBefore;
    this.#sentBefore = sent;
    return left + this.inner.progress!();
  }

  #decrypted(bytes: Uint8Array): void {
    this.#chunks.push(bytes);
    this.#unreadBytes += bytes.length;
    this.#changed();
  }

  #free(): void {
    this.#wire.stop();
    this.#socket.destroy();
    closeQuietly(this.inner);
  }

  /** Reads until something has come about; throws if it never will. */
  async #until(done: () => boolean): Promise<void> {
    while (!done()) {
      this.#check();
      this.#pull();
      await this.#change.promise;
    }
  }

  /** At most one read is outstanding below, which goes on when nobody waits for it any more. */
  async #pull(): Promise<void> {
    if (this.#pulling) return;
    this.#pulling = true;
    try {
      if (!await this.#wire.pull()) await this.#inputEnded();
    } catch (error) {
      this.#wire.stop();
      this.#fail(error);
    }
    this.#pulling = false;
    this.#changed();
  }

  /** The end of input has to be said under TLS: otherwise anybody on the way could cut a line short. */
  async #inputEnded(): Promise<void> {
    await turn();
    if (this.#ended) return;
    const when = this.#secure ? "without TLS's close_notify" : "during the TLS handshake";
    throw new Deno.errors.UnexpectedEof(`The peer ended the connection ${when}`);
  }

  /** Waits until the transport has taken all there is, and something has come about; throws if it never will. */
  async #taken(done: () => boolean = () => true): Promise<void> {
    for (;;) {
      this.#check();
      if (this.#wire.idle && done()) return;
      await this.#change.promise;
    }
  }

  /** Lets an alert out, which comes when the handshake has failed already. */
  async #lastWords(): Promise<void> {
    await turn();
    while (!this.#wire.idle) await this.#change.promise;
    this.#socket.destroy();
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#changed();
  }

  #changed(_what?: unknown): void {
    this.#change.resolve();
    this.#change = Promise.withResolvers();
  }
}
