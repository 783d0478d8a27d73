/**
 * One TLS connection in memory.
 *
 * @module
 */

import { X509Certificate } from "node:crypto";
import type { SecureContext } from "node:tls";
import type { PeerCertificate, TlsInfo } from "../../../internal/api/transport.ts";
import type { Handle, VerifiedSocket } from "../peer/peer.ts";
import type { TlsWrap, TlsWrapClass } from "./wrap.ts";

/** Maximum bytes that are encrypted at once: `TlsWrap` would keep the rest, and drop it at the next write. */
const LARGEST_WRITE = 48 * 1024;

/** Maximum bytes that are decrypted at once: `TlsWrap` keeps a buffer as large as the largest part it ever got. */
const LARGEST_FEED = 4 * 1024;

/** Gets what happens while an engine is fed. None of these methods may throw. */
export interface EngineOwner {
  /**
   * Bytes have been decrypted.
   *
   * @param bytes The bytes, which are overwritten after the call.
   */
  decrypted(bytes: Uint8Array): void;
  /** The peer has sent close_notify. */
  peerEnded(): void;
  /** The handshake is done. What follows it, such as session tickets, is in the output already. */
  established(): void;
  /** The connection has failed. An alert may be in the output. */
  failed(error: Error): void;
}

/** What an engine encrypts and decrypts with. */
export interface EngineOptions {
  /** The context of `createSecureContext`, with `requestCert` and `rejectUnauthorized`. */
  readonly context: object;
  readonly alpnProtocols?: readonly string[] | undefined;
  /** For a client, the name to ask for, or an empty text; undefined for a server. */
  readonly serverName?: string | undefined;
}

/** The context of an engine, like the one that `TLSSocket` makes. */
export function contextOf({ context }: SecureContext, requestCert: boolean, rejectUnauthorized = false): object {
  return { ...context, requestCert, rejectUnauthorized };
}

/** Where decrypted bytes are put. All engines share it: their owners copy the bytes at once. */
const DECRYPTED = new Uint8Array(64 * 1024);

/** The request of writes and shutdowns, which are done when the call returns. */
const REQUEST = {};
const NO_OWNER = {};
const NO_BYTES = new Uint8Array();

function onRead(this: Engine): void {
  this.onRead();
}

/** One side of a TLS connection. It is to be freed, for a `TlsWrap` that is not destroyed is never collected. */
export class Engine implements VerifiedSocket {
  readonly #wrap: TlsWrap;
  readonly #owner: EngineOwner;
  /** For a client, the name that it asks for. */
  readonly #serverName: string | undefined;
  /** Number of decrypted bytes that the owner has got. */
  #delivered = 0;
  #freed = false;

  /**
   * @param Wrap The class of the object beneath.
   * @param options What to encrypt and decrypt with.
   * @param owner Gets what happens; nothing before the first call of `feed`.
   * @throws {Error} If the key, or another part of the context, cannot be used.
   */
  constructor(Wrap: TlsWrapClass, { context, alpnProtocols, serverName }: EngineOptions, owner: EngineOwner) {
    this.#owner = owner;
    this.#serverName = serverName;
    const wrap = this.#wrap = new Wrap(serverName === undefined ? 1 : 0, 0);
    const made = serverName === undefined ? wrap.initServerTls(context) : wrap.initClientTls(serverName, context);
    if (made !== 0) throw unusable();
    if (alpnProtocols !== undefined) wrap.setAlpnProtocols([...alpnProtocols]);
    wrap.attachJsStream();
    wrap.onread = onRead;
    wrap.useUserBuffer(DECRYPTED);
    wrap.setHandle(this);
    wrap.readStart();
    if (wrap.start() === 0) return;
    this.free();
    throw unusable();
  }

  /** The object beneath, for a verifier. */
  get ssl(): Handle {
    return this.#wrap;
  }

  /** Decrypts bytes of the peer, and tells the owner what comes of them before it returns. */
  feed(bytes: Uint8Array): void {
    if (bytes.length <= LARGEST_FEED) return this.#feed(bytes);
    for (let at = 0; at < bytes.length; at += LARGEST_FEED) this.#feed(bytes.subarray(at, at + LARGEST_FEED));
  }

  /**
   * Encrypts some of the bytes; the result has to be drained before the next call.
   *
   * @param bytes The bytes, which may change after the call.
   * @returns How many of them, from the first on.
   */
  encrypt(bytes: Uint8Array): number {
    const part = bytes.length > LARGEST_WRITE ? bytes.subarray(0, LARGEST_WRITE) : bytes;
    this.#wrap.writeBuffer(REQUEST, part);
    return part.length;
  }

  /** Puts close_notify into the output. */
  end(): void {
    this.#wrap.shutdown(REQUEST);
  }

  /** Takes the output: encrypted bytes for the peer; maybe none. */
  drain(): Uint8Array {
    return this.#freed ? NO_BYTES : this.#wrap.drainEncOut();
  }

  isSessionReused(): boolean {
    return this.#wrap.isSessionReused();
  }

  getPeerX509Certificate(): X509Certificate | undefined {
    const [own] = this.#wrap.getPeerCertificateChain()?.certificates ?? [];
    return own && new X509Certificate(own);
  }

  /** What the handshake has agreed on, and who the peer is, if it has shown a certificate. */
  info(peer?: PeerCertificate): TlsInfo {
    const out: { version?: string; standardName?: string; alpnProtocol?: string | false } = {};
    this.#wrap.getCipher(out);
    this.#wrap.getAlpnNegotiatedProtocol(out);
    return Object.freeze({
      version: out.version as TlsInfo["version"],
      cipher: out.standardName!,
      serverName: this.#wrap.getServername() || this.#serverName || undefined,
      alpn: out.alpnProtocol || undefined,
      ...(peer === undefined ? {} : { peer }),
    });
  }

  /** Gives the memory back. */
  free(): void {
    if (this.#freed) return;
    this.#freed = true;
    this.#wrap.destroySsl();
    // A connection that has not started keeps the object, which keeps the connection.
    this.#wrap.setHandle(NO_OWNER);
  }

  /** Called by the object beneath. */
  onhandshakedone(): void {
    this.#owner.established();
  }

  /** Called by the object beneath. */
  onerror(error: Error): void {
    this.#owner.failed(error);
  }

  /** Called by the object beneath: bytes have been decrypted, or there are none, and close_notify has come. */
  onRead(): void {
    const count = Math.min(this.#wrap.getBytesRead() - this.#delivered, DECRYPTED.length);
    if (count === 0) return this.#owner.peerEnded();
    this.#delivered += count;
    this.#owner.decrypted(DECRYPTED.subarray(0, count));
  }

  #feed(bytes: Uint8Array): void {
    if (!this.#freed) this.#wrap.readBuffer(bytes);
  }
}

/** The same error as that of `node:tls`, which has no other for a key that it cannot use. */
function unusable(): Error {
  return Object.assign(new Error("unsupported protocol"), { code: "ERR_SSL_UNSUPPORTED_PROTOCOL" });
}
