/**
 * One connection under TLS.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import type { TLSSocket } from "node:tls";
import { peerLeftOr } from "../../wrappers/preparing_listener.ts";
import {
  closeQuietly,
  dontDelay,
  Forwarding,
  type PeerCertificate,
  resetQuietly,
  type TlsInfo,
  type Transport,
} from "../../../internal/api/transport.ts";
import { turn } from "../../../internal/time/event_loop.ts";
import type { PeerVerifier } from "../peer/peer.ts";
import { Wire } from "./wire.ts";

/**
 * Maximum bytes of one write: three TLS records, which `node:tls` encrypts at once. Of a larger write it would keep a
 * copy, and report no progress, until the peer has taken all of it.
 */
const LARGEST_WRITE = 3 * 16 * 1024;

/** Makes a TLS socket that encrypts and decrypts a wire, and begins the handshake. */
type SocketMaker = (wire: Wire) => TLSSocket;

/**
 * A connection's decrypted bytes. It owns the transport that carries the encrypted ones, called the inner transport here.
 *
 * It reads from the inner transport only during a `read` that finds no decrypted bytes, so that it never holds more than
 * the bytes of one inner read and an unfinished record.
 */
export class TlsTransport extends Forwarding {
  readonly #wire: Wire;
  readonly #socket: TLSSocket;
  /** Decrypted bytes that no `read` has returned yet. */
  readonly #chunks: Uint8Array[] = [];
  #unreadBytes = 0;
  /** The value of `Wire.sent` at which the last write is done. */
  #goal = 0;
  /** The value of `Wire.sent` when the last write began, or at the last call of `progress`. */
  #sentBefore = 0;
  #pulling = false;
  /** Whether the handshake is done. */
  #secure = false;
  /** Whether the peer has sent close_notify, and whether this side has. */
  #peerEnded = false;
  #ended = false;
  #failure: unknown;
  #closed = false;
  #tls: TlsInfo | undefined;
  #change = Promise.withResolvers<void>();

  private constructor(
    transport: Transport,
    makeSocket: SocketMaker,
    verifier: PeerVerifier | undefined,
  ) {
    super(transport);
    this.#wire = new Wire(transport, () => this.#changed(), (error) => this.#fail(error));
    this.#socket = makeSocket(this.#wire);
    if (verifier !== undefined) this.#wire.onRecord = () => verifier.checkEarly(this.#socket);
    this.#socket.on("secure", () => this.#handshakeDone(verifier));
    // Text comes only if `setEncoding` was called; the types of Node that are on npm do not know that.
    this.#socket.on("data", (bytes) => this.#decrypted(bytes as Uint8Array));
    this.#socket.on("end", () => this.#changed(this.#peerEnded = true));
    this.#socket.on("error", (error) => this.#fail(error));
    // Without a `tls.Server`, a damaged record after the handshake is reported only here. Ignored, reads would hang.
    this.#socket.on("_tlsError", (error) => this.#fail(error));
    this.#socket.on("close", () => this.#socketClosed());
  }

  /**
   * Performs a handshake.
   *
   * @param transport The connection to the peer; the caller closes it if this fails.
   * @param makeSocket Makes the TLS socket; a server's or a client's.
   * @param verifier Verifies the peer; undefined if it is not asked for a certificate.
   * @returns The secure connection, which owns the transport.
   */
  static async open(
    transport: Transport,
    makeSocket: SocketMaker,
    verifier: PeerVerifier | undefined,
  ): Promise<TlsTransport> {
    const tls = new TlsTransport(transport, makeSocket, verifier);
    try {
      // A handshake is an exchange of small messages, which Nagle's algorithm would delay.
      dontDelay(transport);
      // A `TLSSocket` starts in a later turn. A record that it cannot decrypt before that crashes the process.
      await new Promise((resolve) => setImmediate(() => resolve(undefined)));
      await tls.#until(() => tls.#secure);
      // Waits until the session tickets are sent, which follow the handshake.
      await tls.#taken();
      return tls;
    } catch (error) {
      tls.#fail(error);
      await tls.#sendAlert();
      throw peerLeftOr(error, tls.#wire.received);
    }
  }

  /** What the handshake has agreed on. It is read at the end of the handshake, and does not change after that. */
  override get tls(): TlsInfo {
    return this.#tls!;
  }

  /**
   * Output that waits for the peer, of which TLS holds a copy; decrypted input that waits for a read; and the bytes by
   * which the read buffer has grown.
   */
  override get heldBytes(): number {
    const { sent, waitingBytes, grownBytes } = this.#wire;
    const output = this.#closed ? 0 : Math.max(waitingBytes, this.#goal - sent);
    return output + this.#unreadBytes + grownBytes + super.heldBytes;
  }

  override get whole(): Promise<unknown> | undefined {
    return this.#wire.whole ?? super.whole;
  }

  override async read(into: Uint8Array): Promise<number | null> {
    await this.#until(() => this.#chunks.length > 0 || this.#peerEnded);
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
    // Encrypted, the bytes are more. So once this many have been sent and none waits, all of the part has been sent.
    const part = bytes.subarray(0, LARGEST_WRITE);
    this.#sentBefore = wire.sent;
    const goal = this.#goal = wire.sent + part.length;
    this.#socket.write(part);
    await this.#taken(() => wire.sent >= goal);
    return part.length;
  }

  override async closeWrite(): Promise<void> {
    await this.#taken();
    this.#ended = true;
    this.#socket.end();
    await turn();
    await this.#taken();
    await this.inner.closeWrite();
  }

  /** Sends close_notify if that needs no waiting: without it, the peer has to take the end for an attack. */
  override close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const tell = this.#secure && this.#failure === undefined && !this.#ended && this.#wire.idle;
    if (tell) this.#socket.end();
    this.#fail(new Deno.errors.Interrupted("The connection was closed"));
    if (tell) setImmediate(() => this.#free());
    else this.#free();
  }

  /** Always there: an inner transport that cannot be reset is closed, without close_notify. */
  override get reset(): () => void {
    return this.#reset;
  }

  /** Counts encrypted bytes: those that the inner transport has taken, and those that it reports as taken by the peer. */
  override get progress(): (() => number) | undefined {
    return this.inner.progress && this.#progress;
  }

  /** Resets without close_notify, so that the peer cannot take an answer that was cut off for a whole one. */
  #reset(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#fail(new Deno.errors.Interrupted("The connection was reset"));
    this.#wire.stop();
    this.#socket.destroy();
    resetQuietly(this.inner);
  }

  /** Called at the end of the handshake, before session tickets are sent. */
  #handshakeDone(verifier: PeerVerifier | undefined): void {
    this.#wire.onRecord = undefined;
    try {
      this.#tls = infoOf(this.#socket, verifier?.check(this.#socket));
      this.#secure = true;
      this.#changed();
    } catch (error) {
      this.#wire.stop();
      this.#fail(error);
    }
  }

  /** Called when TLS is over. If both sides have said so, that is no failure. */
  #socketClosed(): void {
    if (!this.#peerEnded || !this.#ended) this.#fail(new Deno.errors.BadResource("The TLS connection is closed"));
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

  /** Reads from the inner transport until a condition holds; throws if the connection fails first. */
  async #until(done: () => boolean): Promise<void> {
    while (!done()) {
      this.#check();
      this.#pull();
      await this.#change.promise;
    }
  }

  /** Reads once. One inner read is outstanding at most; a later call of `#until` waits for the same. */
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

  /** Input may end only after close_notify: otherwise an attacker on the network could cut a line short. */
  async #inputEnded(): Promise<void> {
    await turn();
    if (this.#peerEnded) return;
    const when = this.#secure ? "without TLS's close_notify" : "during the TLS handshake";
    throw new Deno.errors.UnexpectedEof(`The peer ended the connection ${when}`);
  }

  /** Waits until the inner transport has taken all output and a condition holds; throws if the connection fails first. */
  async #taken(done: () => boolean = () => true): Promise<void> {
    for (;;) {
      this.#check();
      if (this.#wire.idle && done()) return;
      await this.#change.promise;
    }
  }

  /** Sends the alert, which `node:tls` writes after the handshake has failed. */
  async #sendAlert(): Promise<void> {
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

/** Reads what the handshake has agreed on. */
function infoOf(socket: TLSSocket, peer: PeerCertificate | undefined): TlsInfo {
  // Declared for clients only, but a server has it, too.
  const { servername } = socket as TLSSocket & { servername?: string | null };
  const { version, standardName } = socket.getCipher();
  return Object.freeze({
    version: version as TlsInfo["version"],
    cipher: standardName,
    serverName: servername || undefined,
    alpn: socket.alpnProtocol || undefined,
    ...(peer === undefined ? {} : { peer }),
  });
}
