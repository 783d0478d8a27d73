/**
 * The way of each accepted connection into the server, or out of it.
 *
 * @module
 */

import { checkOptions, DEFAULT_ADMIT_TIMEOUT, withChanges } from "../api/check.ts";
import { AcceptRejection } from "../api/errors.ts";
import { type ConnLimits, mergeLimits, resolveConnOptions } from "../api/conn_options.ts";
import type { ResolvedFraming } from "../api/framing.ts";
import type { AdmissionRejectReason } from "../api/reasons.ts";
import type { Clock, ServeOptions, ServerLimits } from "../api/serve_options.ts";
import { closeQuietly, type Transport } from "../api/transport.ts";
import { Admission, type AdmissionLimits, admissionRules, resolveAdmission } from "./admission.ts";
import { Candidates, type Verdict } from "./candidates.ts";
import { type RejectReports, Rejects } from "./rejects.ts";

/** The server behind the entrance. */
export interface EntranceHost {
  /** The connections that are open. */
  readonly open: Iterable<{ readonly remoteAddr: Deno.Addr }>;
  readonly framing: ResolvedFraming;
  readonly reports: EntranceReports;
  /** A connection is admitted. */
  serve(transport: Transport, limits: ConnLimits): void;
  /** A connection that was counted has not been admitted, so there is room for another. */
  madeRoom(): void;
}

/** Counts what happens at the entrance, and tells the caller of the server. */
interface EntranceReports extends RejectReports {
  acceptFailed(error: unknown, retryMs: number): void;
  rejected(remoteAddr: Deno.Addr, reason: AdmissionRejectReason, limit: number | undefined, error: unknown): void;
  hookFailed(): void;
}

/**
 * Admits or rejects accepted connections, by the server's rules and then by the hook `admit`. It owns a transport until
 * it has given it to the server.
 */
export class Entrance {
  readonly #host: EntranceHost;
  readonly #admit: ServeOptions["admit"];
  readonly #admission: Admission;
  readonly #candidates: Candidates;
  readonly #rejects: Rejects;
  #rules: AdmissionLimits;
  #limits: ConnLimits;
  #closed = false;
  /** Whether no connection is accepted for now. */
  paused = false;

  /**
   * @param options The options of the server, which are checked here.
   * @param clock The source of time.
   * @param host The server.
   */
  constructor(options: Omit<ServeOptions, "data">, clock: Clock, host: EntranceHost) {
    this.#host = host;
    this.#admit = options.admit;
    this.#limits = resolveConnOptions(options);
    this.#rules = resolveAdmission(options);
    this.#admission = new Admission(admissionRules(this.#rules), () => clock.now());
    this.#candidates = new Candidates(clock, options.admitTimeout ?? DEFAULT_ADMIT_TIMEOUT);
    this.#rejects = new Rejects(clock, host.framing, host.reports);
  }

  /** What holds now. */
  get limits(): Readonly<ServerLimits> {
    return { ...this.#limits, ...this.#rules };
  }

  /**
   * Changes limits. Admission rules hold at once; connection limits hold from the next connection.
   *
   * @throws {RangeError | TypeError} If a limit is wrong; nothing has changed then.
   */
  setLimits(changes: ServerLimits): void {
    const rules = resolveAdmission(withChanges(this.#rules, changes));
    const compiled = admissionRules(rules);
    this.#limits = mergeLimits(this.#limits, changes);
    this.#rules = rules;
    this.#admission.setRules(compiled, this.#counted());
  }

  /** The addresses of the connections that count in the limits. */
  *#counted(): Iterable<Deno.Addr> {
    for (const { remoteAddr } of this.#host.open) yield remoteAddr;
    yield* this.#candidates.addrs;
  }

  /** The number of connections about which `admit` has not decided. */
  get queued(): number {
    return this.#candidates.size;
  }

  /** How many milliseconds to wait before the next connection is accepted; `Infinity` until there is room. */
  delay(): number {
    return this.paused ? Infinity : this.#admission.delay();
  }

  /** Admits or rejects a connection. If its address cannot be read, it alone is closed, and accepting goes on. */
  enter(transport: Transport): void {
    try {
      this.#enter(transport);
    } catch (error) {
      this.#fail(transport, error);
    }
  }

  #fail(transport: Transport, error: unknown): void {
    closeQuietly(transport);
    this.#host.reports.acceptFailed(error, 0);
  }

  /** Has a connection served that is counted. Its address may be gone since; then it counts no longer. */
  #serve(transport: Transport, remoteAddr: Deno.Addr, limits: ConnLimits): void {
    try {
      this.#host.serve(transport, limits);
    } catch (error) {
      this.leave(remoteAddr);
      this.#fail(transport, error);
      this.#host.madeRoom();
    }
  }

  /** Accepting has failed, or the listener has rejected a connection. */
  acceptFailed(error: unknown, retryMs: number): void {
    if (error instanceof AcceptRejection) this.#admission.rejected(error.remoteAddr, error.reason);
    this.#host.reports.acceptFailed(error, retryMs);
  }

  /** An admitted connection has ended. */
  leave(addr: Deno.Addr): void {
    this.#admission.leave(addr);
  }

  /** Rejects the connections that are not admitted yet: the server has stopped accepting. */
  close(): void {
    this.#closed = true;
    this.#rejects.close();
    this.#candidates.close();
  }

  #enter(transport: Transport): void {
    const admit = this.#admit;
    const { remoteAddr } = transport;
    checkOptions("the remoteAddr of what accept returned", remoteAddr);
    // Both are read before the connection is counted: a transport can throw instead, and nothing would uncount it.
    const localAddr = admit === undefined ? remoteAddr : transport.localAddr;
    const decision = this.#admission.enter(remoteAddr);
    if (decision.kind === "reject") return this.#reject(transport, remoteAddr, decision.reason, decision.limit);
    if (admit === undefined) return this.#serve(transport, remoteAddr, this.#limits);
    const ask = () => admit({ remoteAddr, localAddr });
    this.#candidates.ask(remoteAddr, this.#limits, ask, (verdict) => this.#decided(transport, remoteAddr, verdict));
  }

  /** Serves or rejects a connection about which the hook `admit` has decided. */
  #decided(transport: Transport, remoteAddr: Deno.Addr, { limits, error }: Verdict): void {
    if (!this.#closed && limits !== undefined) return this.#serve(transport, remoteAddr, limits);
    if (error !== undefined) this.#host.reports.hookFailed();
    this.leave(remoteAddr);
    if (this.#closed) closeQuietly(transport);
    else this.#reject(transport, remoteAddr, "refused", undefined, error);
    this.#host.madeRoom();
  }

  #reject(
    transport: Transport,
    remoteAddr: Deno.Addr,
    reason: AdmissionRejectReason,
    limit?: number,
    error?: unknown,
  ): void {
    // If `admit` failed, the rejection does not count towards a penalty: an outage of its backend must not shut clients
    // out.
    if (error === undefined) this.#admission.rejected(remoteAddr, reason);
    this.#host.reports.rejected(remoteAddr, reason, limit, error);
    this.#rejects.add(transport, reason, limit);
  }
}
