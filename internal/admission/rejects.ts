/**
 * Ends rejected connections.
 *
 * @module
 */

import type { Clock } from "../api/serve_options.ts";
import type { ResolvedFraming } from "../api/framing.ts";
import type { AdmissionRejectReason } from "../api/reasons.ts";
import { type Member, MemberList } from "../memory/member_list.ts";
import { linger, LINGER_MS } from "../io/linger.ts";
import { closeQuietly, type Transport } from "../api/transport.ts";
import { encodeLine } from "../lines/text.ts";

/**
 * Maximum number of graceful closes at a time; further connections are closed at once, so a storm of them costs little.
 */
const MAX_LINGERING = 100;

/** The reasons for which a connection is closed without an error line: a storm of these must cost little. */
const AT_ONCE: ReadonlySet<AdmissionRejectReason> = new Set<AdmissionRejectReason>(["accept-rate-per-ip", "penalty"]);

/** A connection that is being closed gracefully. */
interface Lingering extends Member {
  readonly transport: Transport;
  closed: boolean;
}

/** Words what rejected peers are told. */
export interface RejectReports {
  /** Returns the error line, without its end; null for none. */
  lastWords(reason: AdmissionRejectReason, limit: number): string | null;
}

/** Sends an error line to the peers of rejected connections, and closes their transports, which it owns. */
export class Rejects {
  readonly #clock: Clock;
  readonly #framing: ResolvedFraming;
  readonly #reports: RejectReports;
  readonly #lingering = new MemberList<Lingering>();
  #closed = false;

  /**
   * @param clock The source of time.
   * @param framing How the error line is encoded and ended.
   * @param reports Words the error line.
   */
  constructor(clock: Clock, framing: ResolvedFraming, reports: RejectReports) {
    this.#clock = clock;
    this.#framing = framing;
    this.#reports = reports;
  }

  /**
   * Sends an error line, and closes the transport gracefully; closes it at once for some reasons, if too many are being
   * closed already, or if the hook that was told of the rejection has shut the server down.
   */
  async add(transport: Transport, reason: AdmissionRejectReason, limit = 0): Promise<void> {
    if (AT_ONCE.has(reason)) return closeQuietly(transport);
    const word = this.#reports.lastWords(reason, limit);
    const line = word === null ? "" : encodeLine(word, this.#framing, true);
    if (this.#closed || this.#lingering.size >= MAX_LINGERING) return closeQuietly(transport);
    const lingering: Lingering = { transport, closed: false, place: 0 };
    this.#lingering.add(lingering);
    const isClosed = () => lingering.closed;
    const cancel = this.#clock.setTimer(() => this.#drop(lingering), LINGER_MS, false);
    try {
      const bytes = typeof line === "string" ? new TextEncoder().encode(line) : line;
      let count = 1;
      for (let sent = 0; sent < bytes.length && count > 0 && !isClosed(); sent += count) {
        count = await transport.write(bytes.subarray(sent));
      }
      if (!isClosed()) await linger(transport, () => transport.closeWrite(), isClosed);
    } catch {
      // The peer has left without waiting for the error line.
    }
    cancel();
    this.#drop(lingering);
  }

  /** Closes the connections that are still open; their error lines have been sent. */
  close(): void {
    this.#closed = true;
    for (const lingering of this.#lingering) this.#drop(lingering);
  }

  #drop(lingering: Lingering): void {
    if (lingering.closed) return;
    lingering.closed = true;
    this.#lingering.delete(lingering);
    closeQuietly(lingering.transport);
  }
}
