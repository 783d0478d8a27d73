/**
 * The object beneath `node:tls`, which encrypts and decrypts in memory.
 *
 * `TLSWrap` holds one TLS connection. Encrypted and decrypted bytes are put in and taken out by calls, so it needs no
 * stream on either side: the streams that `node:tls` puts around it are most of the cost of a TLS connection. It is not
 * documented. Therefore it is used only where the self-test has passed; see `self_test.ts`.
 *
 * @module
 */

import { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";

/** What is known of it, from the source of Deno 2.8 to 2.9. A call returns 0 on success where it returns a number. */
export interface TlsWrap {
  /** Called on the object given to `setHandle` when decrypted bytes are in the user buffer, and at close_notify. */
  onread: () => void;
  /** Reads the context of a server: certificate and key in PEM, authorities, whether to ask for a certificate. */
  initServerTls(context: object): number;
  /** The same for a client; an empty name is not sent. */
  initClientTls(serverName: string, context: object): number;
  /** Must be called before `start`. */
  setAlpnProtocols(protocols: string[]): void;
  /** Makes it keep its output for `drainEncOut`. */
  attachJsStream(): number;
  /** Sets the object whose methods it calls: `onhandshakedone` and `onerror`. */
  setHandle(handle: object): void;
  useUserBuffer(bytes: Uint8Array): void;
  /** Number of decrypted bytes, including those for which `onread` is yet to be called. */
  getBytesRead(): number;
  start(): number;
  readStart(): number;
  readBuffer(encrypted: Uint8Array): void;
  writeBuffer(request: object, bytes: Uint8Array): number;
  drainEncOut(): Uint8Array;
  /** Puts close_notify into the output. */
  shutdown(request: object): number;
  destroySsl(): void;
  verifyError(): string;
  isSessionReused(): boolean;
  getPeerCertificateChain(): { readonly certificates: readonly Uint8Array<ArrayBuffer>[] } | null;
  getServername(): string | null;
  getCipher(out: object): number;
  getAlpnNegotiatedProtocol(out: object): number;
}

/** The constructor; the first argument is 1 for a server and 0 for a client. */
export type TlsWrapClass = new (kind: 0 | 1, provider: 0) => TlsWrap;

/** Whether the class may be used; tests switch it off to run on streams. */
export const ENGINE: { enabled: boolean } = { enabled: true };

let found: TlsWrapClass | undefined;

/** The class, if Deno still has it. */
export function tlsWrapClass(): TlsWrapClass | undefined {
  return ENGINE.enabled ? found ??= find() : undefined;
}

/** Finds the class: only an instance leads to it. */
function find(): TlsWrapClass | undefined {
  const socket = new TLSSocket(new Duplex({ read() {}, write() {} }), { isServer: true });
  socket.on("error", () => {});
  const { _handle: handle } = socket as TLSSocket & { _handle?: { constructor?: unknown } | null };
  const made = handle?.constructor;
  socket.destroy();
  return typeof made === "function" ? made as TlsWrapClass : undefined;
}
