/**
 * Decides about the connections of all workers.
 *
 * @module
 */

import { Admission, type AdmissionRules } from "../../internal/admission/admission.ts";
import type { AdmissionRejectReason, RejectReason } from "../../internal/api/reasons.ts";
import type { Clock } from "../../internal/api/serve_options.ts";
import { DelayedQueue } from "../../internal/time/delayed_queue.ts";
import type { Verdict } from "./shared/wire.ts";

/** A connection that a worker has accepted and asks about. */
export interface Question {
  readonly addr: Deno.Addr;
  /** The worker that asks. */
  readonly asker: unknown;
  /** It is admitted; returns its number. */
  admit(): number;
  answer(verdict: Verdict): void;
}

/** Called for each connection that is rejected. */
type Rejected = (addr: Deno.Addr, reason: AdmissionRejectReason, limit: number | undefined) => void;

/**
 * Admits or rejects connections by the rules of the server, whichever worker has accepted them. It exists once, in the
 * main isolate, so the limits are exact. While a connection has to wait, it waits here, and those that come after
 * it wait behind it; a worker that asks about one that may have to wait accepts no other meanwhile.
 */
export class SharedAdmission {
  readonly #admission: Admission;
  readonly #rejected: Rejected;
  readonly #held: DelayedQueue<Question>;
  #closed = false;
  #open = false;
  /** Whether no connection is admitted for now. */
  paused = false;

  /**
   * @param rules The rules.
   * @param clock The source of time.
   * @param rejected Called for each connection that is rejected.
   */
  constructor(rules: AdmissionRules, clock: Clock, rejected: Rejected) {
    this.#admission = new Admission(rules, () => clock.now());
    this.#rejected = rejected;
    this.#held = new DelayedQueue(clock, () => this.#delay, (question) => this.#decide(question));
  }

  /** Begins to admit. */
  open(): void {
    this.#open = true;
    this.letIn();
  }

  /** Decides about a connection, now or when there is room. */
  ask(question: Question): void {
    if (this.#closed) return question.answer({ drop: true });
    this.#held.add(question);
  }

  /** Decides about the connections that wait, as far as there is room. */
  letIn(): void {
    this.#held.hurry();
  }

  get #delay(): number {
    return this.#open && !this.paused ? this.#admission.delay() : Infinity;
  }

  /** Drops the questions of a worker that has ended. */
  forget(gone: (question: Question) => boolean): void {
    this.#held.remove(gone);
  }

  /** An admitted connection has ended. The caller calls `letIn` when it has told of that. */
  leave(addr: Deno.Addr): void {
    this.#admission.leave(addr);
  }

  /** A worker has rejected a connection. */
  rejected(addr: Deno.Addr, reason: RejectReason | "gone"): void {
    this.#admission.rejected(addr, reason);
  }

  /** Changes the rules; `counted` are the addresses of the connections that are open. */
  setRules(rules: AdmissionRules, counted: Iterable<Deno.Addr>): void {
    this.#admission.setRules(rules, counted);
    this.letIn();
  }

  /** Drops the connections that wait, and all that come. */
  close(): void {
    this.#closed = true;
    for (const question of this.#held.clear()) question.answer({ drop: true });
  }

  #decide(question: Question): void {
    const { addr } = question;
    const decision = this.#admission.enter(addr);
    if (decision.kind === "admit") return question.answer({ id: question.admit() });
    const { reason, limit } = decision;
    this.#admission.rejected(addr, reason);
    question.answer(limit === undefined ? { reason } : { reason, limit });
    this.#rejected(addr, reason, limit);
  }
}
