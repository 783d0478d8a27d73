/**
 * Decides about the connections of all workers.
 *
 * @module
 */

import { Admission, type AdmissionRules } from "../../internal/admission/admission.ts";
import { LONGEST_MS } from "../../internal/api/check.ts";
import type { AdmissionRejectReason, RejectReason } from "../../internal/api/reasons.ts";
import type { Clock } from "../../internal/api/serve_options.ts";
import type { Verdict } from "./wire.ts";

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
  readonly #clock: Clock;
  readonly #rejected: Rejected;
  #held: Question[] = [];
  #cancelTimer = () => {};
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
    this.#clock = clock;
    this.#rejected = rejected;
  }

  /** Begins to admit. */
  open(): void {
    this.#open = true;
    this.letIn();
  }

  /** Decides about a connection, now or when there is room. */
  ask(question: Question): void {
    if (this.#closed) return question.answer({ drop: true });
    this.#held.push(question);
    if (this.#held.length === 1) this.letIn();
  }

  /** Decides about the connections that wait, as far as there is room. */
  letIn(): void {
    this.#cancelTimer();
    this.#cancelTimer = () => {};
    while (this.#held.length > 0) {
      const delay = this.#open && !this.paused ? this.#admission.delay() : Infinity;
      if (delay > 0) return this.#letInAfter(delay);
      this.#decide(this.#held.shift()!);
    }
  }

  /** Drops the questions of a worker that has ended. */
  forget(gone: (question: Question) => boolean): void {
    this.#held = this.#held.filter((question) => !gone(question));
    this.letIn();
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
    this.#cancelTimer();
    for (const question of this.#held.splice(0)) question.answer({ drop: true });
  }

  #letInAfter(delay: number): void {
    if (delay === Infinity) return;
    // A hook that was called for a rejected connection may have set a timer.
    this.#cancelTimer();
    this.#cancelTimer = this.#clock.setTimer(() => this.letIn(), Math.min(delay, LONGEST_MS), true);
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
