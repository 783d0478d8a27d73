/**
 * Ending a connection's input at a line boundary, once the handler has got everything that the peer has sent.
 *
 * @module
 */

import type { Breach } from "../api/reasons.ts";
import type { Clock } from "../api/serve_options.ts";
import { type Transport, wholeOf } from "../api/transport.ts";
import { type Begun, inMessage } from "../time/expiry.ts";

/** Why the input is ended at a line boundary. */
export type FinishReason = "drained" | "max-age" | "max-lines";

/** Why the input ended. */
export type EndReason = "end" | Breach | FinishReason;

/** The reader, as this class sees it. */
interface Source {
  /** Whether the server waits for the peer. */
  readonly waiting: boolean;
  /** What has begun and is waited for; undefined if nothing has begun. */
  readonly begun: Begun | undefined;
  readonly transport: Transport;
  /** Tells whether the kernel probably has more. */
  readonly input: { readonly full: boolean };
  /** The limits on rates; undefined if none is set. */
  readonly pace: { readonly filled: boolean; readonly secondBytes: number } | undefined;
  /** Whether reading is over. */
  readonly over: boolean;
  readonly byteCount: number;
  readonly lineCount: number;
}

/** The server, as this class sees it. */
export interface FinishHost {
  readonly clock: Clock;
  /** Settles when the kernel has been asked about every socket. */
  socketsTurn(): Promise<void>;
}

/** Maximum bytes that are still read and answered after the end was asked for. */
const MAX_BYTES = 1024 * 1024;

/**
 * Maximum number of waits for the peer at line boundaries; after them the input ends, even if the peer goes on sending.
 * When draining, they are enough for 1 MiB in TLS records of 16 KiB.
 */
const MAX_BOUNDARIES: Readonly<Record<FinishReason, number>> = { "drained": 64, "max-age": 8, "max-lines": 8 };

/**
 * Time after which the input ends at the next boundary, if at most {@linkcode FEW_BYTES} have come since the wait before, in
 * milliseconds. A peer that sends its next request as soon as it has a reply would otherwise be served until the deadline,
 * and lose its last reply there.
 */
const LATE_MS = 1000;

/** After a read of more bytes than this, the kernel may have more of this peer; with TLS it may after any read. */
const FEW_BYTES = 1024;

/**
 * Finds the line boundary. If a read is still outstanding after the kernel has been asked about every socket, the
 * kernel has no more bytes of this peer. With a peer that never stops sending, this does not happen: there, a number of
 * bytes or of waits ends the input. What the peer had sent before is read first; it takes several waits where one read
 * brings only a part of it, as with TLS.
 */
export class Finishing {
  readonly #reason: FinishReason;
  readonly #source: Source;
  readonly #host: FinishHost;
  readonly #done: () => void;
  /** The number of bytes that had come when the end was asked for. */
  readonly #bytesBefore: number;
  /** When {@linkcode LATE_MS} have passed since then. */
  readonly #lateAt: number;
  /** The numbers of lines and of bytes that had come at the last wait outside a message. */
  #lineCount: number;
  #byteCount = -1;
  #boundaries = 0;
  #watching = false;

  /**
   * @param reason Why the input is ended.
   * @param source The reader.
   * @param host The server.
   * @param done Called once, at the boundary; it ends reading.
   */
  constructor(
    reason: FinishReason,
    source: Source,
    host: FinishHost,
    done: () => void,
  ) {
    this.#reason = reason;
    this.#source = source;
    this.#host = host;
    this.#done = done;
    this.#bytesBefore = source.byteCount;
    this.#lateAt = host.clock.now() + LATE_MS;
    this.#lineCount = source.lineCount;
    this.waiting();
  }

  /** The reader calls this when the server starts to wait for the peer, perhaps between two lines. */
  async waiting(): Promise<void> {
    const source = this.#source;
    // A message is read to its end, however often the server waits for more of it.
    if (!inMessage(source.begun) && this.#hasHadEnough()) return this.#finish();
    if (this.#watching) return;
    this.#watching = true;
    while (this.#atBoundary && !source.over) {
      const { byteCount } = source;
      await this.#rest;
      await this.#host.socketsTurn();
      // The connection may have ended meanwhile, for another reason.
      if (this.#atBoundary && this.#rest === undefined && source.byteCount === byteCount) this.#finish();
    }
    this.#watching = false;
  }

  /** Counts a wait outside a message, if it is at a boundary; returns whether there have been too many, or too many bytes. */
  #hasHadEnough(): boolean {
    const source = this.#source;
    // A peer that sends the first byte of the next line, or of the next TLS record, together with the end of the last line
    // or message is never where the input may end, and could keep a draining connection open for ever.
    const boundary = this.#atBoundary || source.lineCount > this.#lineCount && !source.input.full;
    this.#lineCount = source.lineCount;
    // A wait that follows one that was interrupted is the same. While a rate allows only a part of what the kernel has,
    // the waits of a second are one.
    const { byteCount, pace } = source;
    const isLate = this.#isLate(byteCount - this.#byteCount);
    if (byteCount - this.#byteCount >= (pace?.filled ? pace.secondBytes : 1)) {
      this.#byteCount = byteCount;
      if (boundary) this.#boundaries++;
    }
    if (byteCount > this.#bytesBefore + MAX_BYTES || this.#boundaries > MAX_BOUNDARIES[this.#reason]) return true;
    return this.#atBoundary && isLate;
  }

  /** Whether the peer has probably sent nothing that has not come; `bytes` is the number that came since the last wait. */
  #isLate(bytes: number): boolean {
    const { input, pace, byteCount, transport } = this.#source;
    if (byteCount === this.#bytesBefore || bytes > FEW_BYTES || transport.tls !== undefined) return false;
    return !input.full && !pace?.filled && this.#host.clock.now() >= this.#lateAt;
  }

  /** Whether the server waits for the peer where the input may end: no line and no message has begun. */
  get #atBoundary(): boolean {
    return this.#source.waiting && this.#source.begun === undefined;
  }

  /**
   * Settles when the rest of a TLS record that has begun has come. Only a drain, which has a deadline, waits for that: no
   * clock of a line runs meanwhile, so a peer could leave a record unfinished to outstay `maxAge`.
   */
  get #rest(): Promise<unknown> | undefined {
    return this.#reason === "drained" ? wholeOf(this.#source.transport) : undefined;
  }

  #finish(): void {
    if (!this.#source.over) this.#done();
  }
}
