/**
 * Counts what happens to a server, and tells its caller.
 *
 * @module
 */

import { show } from "../api/check.ts";
import { AcceptRejection, harmless } from "../api/errors.ts";
import type { GoneEvent, ServerEvent } from "../api/events.ts";
import type { AdmissionRejectReason, CloseReason, RejectReason } from "../api/reasons.ts";
import { defaultLastWords, type ServeOptions } from "../api/serve_options.ts";
import { isReset } from "../api/transport.ts";
import type { Counters } from "./counters.ts";

/** The functions of the options that the server calls. What they throw is counted, and harms nothing. */
type Hooks = Pick<ServeOptions, "onListen" | "onEvent" | "lastWords">;

/** Counts events, and passes them to the caller's functions. */
export class Reports {
  readonly #hooks: Hooks;
  readonly #counters: Counters;
  #over = false;

  /**
   * @param hooks The caller's functions.
   * @param counters Counts the events.
   */
  constructor(hooks: Hooks, counters: Counters) {
    // Copies: the caller may change the object, or use it for another server.
    this.#hooks = {
      onListen: hooks.onListen?.bind(hooks),
      onEvent: hooks.onEvent?.bind(hooks),
      lastWords: hooks.lastWords?.bind(hooks),
    };
    this.#counters = counters;
  }

  /** Emits an event. `stopped` is the last one: a handler whose connection was aborted may still throw after it. */
  emit(event: ServerEvent): void {
    if (this.#over) return;
    this.#over = event.type === "stopped";
    this.guard(this.#hooks.onEvent, event);
  }

  /** The server listens on an address. */
  listening(addr: Deno.Addr): void {
    this.guard(this.#hooks.onListen, addr);
    this.emit({ type: "listening", addr });
  }

  /** Returns what a peer is told at its end, without the line end; null for nothing. */
  lastWords(reason: CloseReason | AdmissionRejectReason, limit: number): string | null {
    const { lastWords = defaultLastWords } = this.#hooks;
    return this.guard((reason) => checkLine(lastWords(reason, limit)), reason) ?? null;
  }

  /** A function of the options has failed. */
  hookFailed(): void {
    this.#counters.hookErrors++;
  }

  /** A connection was rejected. */
  rejected(remoteAddr: Deno.Addr, reason: RejectReason, limit: number | undefined, error?: unknown): void {
    this.#counters.rejected++;
    const more = { ...(limit !== undefined && { limit }), ...(error !== undefined && { error }) };
    this.emit({ type: "rejected", remoteAddr, reason, ...more });
  }

  /** Accepting failed. A listener that rejected a connection has closed it, so its peer gets no line. */
  acceptFailed(error: unknown, retryMs: number): void {
    if (error instanceof AcceptRejection) {
      const { remoteAddr, reason, cause } = error;
      if (reason === "gone") return this.#gone({ remoteAddr, error: cause });
      this.rejected(remoteAddr, reason, undefined, cause);
    } else if (isReset(error)) this.#gone({ error });
    else this.emit({ type: "accept-error", error, retryMs });
  }

  #gone(left: Omit<GoneEvent, "type">): void {
    this.#counters.gone++;
    this.emit({ type: "gone", ...left });
  }

  /** Calls a function of the caller's, if there is one, and counts its error instead of passing it on. */
  guard<A, T>(call: ((argument: A) => T) | undefined, argument: A): T | undefined {
    try {
      const result = call?.(argument);
      // The promise of an async function is handled only here; unhandled, its rejection would end the process.
      if (result instanceof Promise) result.catch(() => this.hookFailed());
      return result;
    } catch {
      this.hookFailed();
    }
  }
}

/** Checks what `lastWords` has returned. A mistake is counted once: the rejection of an async function adds nothing. */
function checkLine(line: unknown): string | null | undefined {
  if (typeof line === "string" || line === null || line === undefined) return line;
  if (line instanceof Promise) harmless(line);
  throw new TypeError(`Cannot use what lastWords returned: expected a string or null, got ${show(line)}`);
}
