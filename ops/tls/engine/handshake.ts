/**
 * Handshakes over an engine.
 *
 * @module
 */

import { checkTransferred } from "../../../internal/api/check.ts";
import { dontDelay, type TlsInfo, type Transport } from "../../../internal/api/transport.ts";
import { TURNS } from "../../../internal/time/turns.ts";
import { peerLeftOr } from "../../wrappers/preparing_listener.ts";
import type { PeerVerifier } from "../peer/peer.ts";
import { ReadBuffer } from "./encrypted_input.ts";
import type { EngineOptions } from "./engine.ts";
import { Session } from "./session.ts";
import { EngineTransport } from "./transport.ts";
import type { TlsWrapClass } from "./wrap.ts";

/**
 * Performs the server's side of a handshake.
 *
 * @param transport The client's connection; the caller closes it if this fails.
 * @param Wrap The class of the object beneath an engine.
 * @param options What to encrypt and decrypt with.
 * @param verifier Verifies the client; undefined if it is not asked for a certificate.
 * @returns The secure connection, which owns the transport.
 */
export async function acceptOverEngine(
  transport: Transport,
  Wrap: TlsWrapClass,
  options: EngineOptions,
  verifier: PeerVerifier | undefined,
): Promise<Transport & { readonly tls: TlsInfo }> {
  // A handshake is an exchange of small messages, which Nagle's algorithm would delay.
  dontDelay(transport);
  const buffer = new ReadBuffer();
  // The engine is made after that: it takes up to a millisecond, and a client that sends nothing must not cost as much.
  const count = await readFirst(transport, buffer);
  return await complete(transport, new Session(transport, buffer, Wrap, options, verifier), count);
}

/** The same for the client's side, to a server. */
export async function connectOverEngine(
  transport: Transport,
  Wrap: TlsWrapClass,
  options: EngineOptions & { readonly serverName: string },
  verifier: PeerVerifier,
): Promise<Transport & { readonly tls: TlsInfo }> {
  dontDelay(transport);
  const session = new Session(transport, new ReadBuffer(), Wrap, options, verifier);
  session.output.flush();
  return await complete(transport, session, 0);
}

async function readFirst(transport: Transport, buffer: ReadBuffer): Promise<number> {
  try {
    return await read(transport, buffer);
  } catch (error) {
    throw peerLeftOr(error, 0);
  }
}

async function read(transport: Transport, { bytes, work }: ReadBuffer): Promise<number> {
  if (work > 0) await TURNS.take(work);
  const count = await transport.read(bytes);
  if (count === null) throw new Deno.errors.UnexpectedEof("The peer ended the connection during the TLS handshake");
  checkTransferred("read", count, bytes.length);
  return count;
}

/** Reads; rejects also if what is being sent meanwhile cannot be sent: then nothing may ever come. */
function readOrFail(transport: Transport, session: Session): Promise<number> {
  const reading = read(transport, session.buffer);
  const { flushing } = session.output;
  const sending = flushing?.then(() => {
    session.check();
    return reading;
  });
  return sending === undefined ? reading : Promise.race([reading, sending]);
}

/** Completes a handshake of which some bytes have come. */
async function complete(transport: Transport, session: Session, received: number): Promise<EngineTransport> {
  try {
    for (let count = received;; count = await readOrFail(transport, session)) {
      if (count > 0) session.feed(count);
      session.check();
      if (session.tls !== undefined) break;
    }
    // The end of the handshake may be this side's, and the server's session tickets follow it.
    await session.output.flushing;
    session.check();
    return new EngineTransport(transport, session);
  } catch (error) {
    session.failed(error);
    await sendAlert(transport, session);
    session.free();
    throw session.failure;
  }
}

/** Maximum bytes of input that are dropped for an alert's sake. */
const DROPPED_BYTES = 16 * 1024;

/** Waits until an alert has been sent whole. Input that is unread when the connection is closed would destroy it. */
async function sendAlert(transport: Transport, { output }: Session): Promise<void> {
  if (output.flushing === undefined) return;
  // It may go on until the caller closes the connection.
  transport.read(new Uint8Array(DROPPED_BYTES)).catch(() => {});
  await output.flushing;
}
