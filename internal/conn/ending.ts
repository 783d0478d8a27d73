/**
 * How a connection ends: what is known of its end, and the graceful close, after which the peer can still read
 * everything that was written to it.
 *
 * @module
 */

import { type ConnLimits, limitOf } from "../api/conn_options.ts";
import type { ClosedEvent, ConnInfo, Traffic } from "../api/events.ts";
import type { ResolvedFraming } from "../api/framing.ts";
import { type CloseReason, hasLastWords } from "../api/reasons.ts";
import { BLOCK_BYTES } from "../memory/buffer_pool.ts";
import type { Transport } from "../api/transport.ts";
import { encodeLine } from "../lines/text.ts";
import { TURNS } from "../time/turns.ts";
import type { FinishReason } from "../io/finishing.ts";

/** What is known of the end of a connection. */
export class Ending {
  /**
   * Why the connection ends: set when it leaves `open`. While it is `leaving`, an abort replaces it, unless the signal has
   * aborted.
   */
  reason: CloseReason | undefined;
  error: unknown;
  /** Whether the handler has closed the connection. */
  closing = false;
  /** The handler's word for the end, and its last line for the peer. */
  detail: string | undefined;
  lastWord: string | undefined;
  /** The value of the limit that the reason names, when the end began; 0 if it names none. */
  limit: number | undefined;
  /** The handler's deadline. */
  deadline: { readonly milliseconds: number; readonly detail: string | undefined } | undefined;
  /** Why the connection was asked to finish. */
  finishReason: FinishReason | undefined;
  #finisher: AbortController | undefined;
  /** Aborts when the connection is asked to finish. */
  get finishing(): AbortSignal {
    this.#finisher ??= new AbortController();
    if (this.finishReason !== undefined) this.#finisher.abort(this.finishReason);
    return this.#finisher.signal;
  }

  /** The connection is asked to finish. */
  finish(reason: FinishReason): void {
    this.finishReason ??= reason;
    this.#finisher?.abort(this.finishReason);
  }

  /**
   * Keeps the value of the limit that the reason names, unless it is known: the handler may change it before its end.
   *
   * @param limits The limits of the connection.
   * @param peerEnded Whether the peer has ended its side, so that the shorter one of two times has bounded the handler.
   */
  keepLimit(limits: ConnLimits, peerEnded: boolean): void {
    const { handlerTimeout, halfCloseTimeout } = limits;
    if (this.reason === "deadline") this.limit ??= this.deadline!.milliseconds;
    if (this.reason === "handler-timeout" && peerEnded) this.limit ??= Math.min(handlerTimeout, halfCloseTimeout);
    this.limit ??= limitOf(this.reason!, limits);
  }

  /**
   * Returns the last line for the peer, with its end; empty if there is none.
   *
   * @param reports Returns the line for a reason and a limit, without its end; null for none.
   * @param framing How the line is encoded and ended.
   */
  lastLine(
    reports: { lastWords(reason: CloseReason, limit: number): string | null },
    framing: ResolvedFraming,
  ): string | Uint8Array {
    const reason = this.reason!;
    const word = this.lastWord ?? (hasLastWords(reason) ? reports.lastWords(reason, this.limit!) : null);
    return word === null ? "" : encodeLine(word, framing, true);
  }

  /** The handler's word, whether or not the end has come. */
  get word(): string | undefined {
    return this.detail ?? this.deadline?.detail;
  }

  /** Returns the event that reports the end. */
  event(conn: ConnInfo, { lines, bytesIn, bytesOut }: Traffic, durationMs: number): ClosedEvent {
    const { error, detail = this.reason === "deadline" ? this.deadline!.detail : undefined } = this;
    const event = { type: "closed", conn, reason: this.reason!, lines, bytesIn, bytesOut, durationMs } as const;
    if (error === undefined && detail === undefined) return event;
    return { ...event, ...(error !== undefined && { error }), ...(detail !== undefined && { detail }) };
  }
}

/** Maximum milliseconds for which a graceful close goes on reading after the last write. */
export const LINGER_MS = 2000;

/** Maximum bytes that it reads meanwhile. */
const LINGER_BYTES = 1024 * 1024;

/** The buffer into which discarded input is read; all connections share it. */
const DISCARD = new Uint8Array(BLOCK_BYTES);

/**
 * Ends this side, and discards input until the peer ends its side or a maximum is reached.
 *
 * A plain `close()` while input is unread makes the kernel send RST, which can destroy replies that the peer has not
 * read yet. The caller limits the time by closing the transport during a read, and closes it afterwards in any case.
 *
 * @param transport The transport to read from.
 * @param closeWrite Ends this side.
 * @param isClosed Whether the caller has closed the transport: a read may have settled just before that.
 * @param reading The outstanding read, if there is one: a transport has at most one.
 */
export async function linger(
  transport: Pick<Transport, "read">,
  closeWrite: () => Promise<void>,
  isClosed: () => boolean,
  reading?: Promise<number | null>,
): Promise<void> {
  try {
    await closeWrite();
    for (let left = LINGER_BYTES; left > 0 && !isClosed();) {
      const count = await (reading ?? transport.read(DISCARD));
      // A custom transport may return anything, such as 0 at the end of input, and that at once and for ever.
      if (count === null || !Number.isInteger(count) || count < 1) return;
      left -= count;
      reading = undefined;
      if (count === DISCARD.length) await TURNS.take(count);
    }
  } catch {
    // The peer is gone, or the caller has closed the transport.
  }
}
