/**
 * Tells a hook of each TLS handshake.
 *
 * @module
 */

import { ignoreErrors } from "../../internal/api/errors.ts";
import { isReset, type TlsInfo } from "../../internal/api/transport.ts";
import { PeerLeft } from "../wrappers/preparing_listener.ts";

/**
 * Why a handshake failed:
 *
 * - `peer-left`: the peer left without sending a byte, as health checks do
 * - `peer-ended`: the peer left during the handshake, or reset the connection
 * - `cut-off`: this side ended it, because it took too long, to make room for others, or because the server was closed
 * - `refused`: anything else: no common version or cipher, a client's certificate that is missing or not accepted, an
 *   alert of the peer's, or bytes that are not TLS
 */
export type HandshakeFailure = "peer-left" | "peer-ended" | "cut-off" | "refused";

/** A TLS handshake has begun, or has ended. Each beginning is followed by one end. */
export type HandshakeEvent = HandshakeBegunEvent | HandshakeEndedEvent;

/** A TLS handshake has begun. */
export interface HandshakeBegunEvent {
  /** The kind of event. */
  readonly type: "begun";
}

/** A TLS handshake has ended. */
export interface HandshakeEndedEvent {
  /** The kind of event. */
  readonly type: "ended";
  /** The time that it took, in milliseconds. */
  readonly durationMs: number;
  /** What it has agreed on; undefined if it failed. */
  readonly tls?: TlsInfo;
  /** Why it failed; undefined if it did not. */
  readonly failure?: HandshakeFailure;
  /** The error, if it failed. */
  readonly error?: unknown;
}

/** A hook that gets the events of handshakes. What it throws is ignored. */
export type OnHandshake = (event: HandshakeEvent) => void;

/**
 * Performs a handshake, and tells a hook of it.
 *
 * @param handshake Performs it.
 * @param onHandshake The hook.
 * @returns What the handshake resolves to.
 */
export async function observe<T extends { readonly tls: TlsInfo }>(
  handshake: () => Promise<T>,
  onHandshake: OnHandshake,
): Promise<T> {
  const since = performance.now();
  tell(onHandshake, { type: "begun" });
  const end = (outcome: Omit<HandshakeEndedEvent, "type" | "durationMs">) =>
    tell(onHandshake, { type: "ended", durationMs: performance.now() - since, ...outcome });
  try {
    const secure = await handshake();
    end({ tls: secure.tls });
    return secure;
  } catch (error) {
    end({ failure: failureOf(error), error });
    throw error;
  }
}

/** Calls the hook. An error that it throws does not change the handshake. */
function tell(onHandshake: OnHandshake, event: HandshakeEvent): void {
  ignoreErrors(() => onHandshake(event));
}

function failureOf(error: unknown): HandshakeFailure {
  if (error instanceof PeerLeft) return "peer-left";
  if (error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted) return "cut-off";
  return isReset(error) ? "peer-ended" : "refused";
}
