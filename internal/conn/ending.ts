/**
 * What is known of the end of a connection.
 *
 * @module
 */

import { type ConnLimits, limitOf } from "../api/conn_options.ts";
import { ConnectionClosedError } from "../api/errors.ts";
import type { ClosedEvent, ConnInfo, Traffic } from "../api/events.ts";
import type { ResolvedFraming } from "../api/framing.ts";
import { type CloseReason, hasLastWords } from "../api/reasons.ts";
import { encodeLine } from "../lines/text.ts";
import type { FinishReason } from "../io/finishing.ts";

/** Why a connection ends, as far as it is known, and what its peer and its server's caller are told of it. */
export class Ending {
  /**
   * Why the connection ends: set when it leaves `open`. While it is `leaving`, an abort replaces it, unless the signal has
   * aborted.
   */
  reason: CloseReason | undefined;
  error: unknown;
  /** Whether the handler has closed the connection. */
  closing = false;
  /** What the handler says of the end in the event; and its last line for the peer. */
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

  /** The handler's detail, or that of its deadline, whether or not the end has come. */
  get anyDetail(): string | undefined {
    return this.detail ?? this.deadline?.detail;
  }

  /** Whether an error only says that the connection ends: a write is refused then, and signals abort other work. */
  explains(error: unknown): boolean {
    const { reason, finishReason } = this;
    if (error === undefined) return false;
    return error === reason || error === finishReason || reason !== undefined && error instanceof ConnectionClosedError;
  }

  /** Returns the event that reports the end. */
  event(conn: ConnInfo, { lines, bytesIn, bytesOut }: Traffic, durationMs: number): ClosedEvent {
    const { error, detail = this.reason === "deadline" ? this.deadline!.detail : undefined } = this;
    const event = { type: "closed", conn, reason: this.reason!, lines, bytesIn, bytesOut, durationMs } as const;
    if (error === undefined && detail === undefined) return event;
    return { ...event, ...(error !== undefined && { error }), ...(detail !== undefined && { detail }) };
  }
}
