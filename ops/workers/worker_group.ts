/**
 * The workers of one server: what they are told, and what they tell.
 *
 * @module
 */

import { type AdmissionLimits, admissionRules, resolveAdmission } from "../../internal/admission/admission.ts";
import { checkOptions } from "../../internal/api/check.ts";
import { type ConnLimits, mergeLimits } from "../../internal/api/conn_options.ts";
import type { ServerEvent } from "../../internal/api/events.ts";
import type { ServerLimits } from "../../internal/api/serve_options.ts";
import { Reports } from "../../internal/server/reports.ts";
import { SYSTEM_CLOCK } from "../../internal/time/clock.ts";
import { Balance } from "./balance.ts";
import { Census } from "./registry.ts";
import { Gate } from "./shared_admission.ts";
import type { ServeWorkersOptions, WorkerEvent } from "./options.ts";
import { Replies } from "./replies.ts";
import type { SharedPlace } from "./sharing.ts";
import { Slot } from "./supervisor.ts";
import { type Setup, type ToMain, type ToWorker, unpackError, unpackEvent, type WireEvent } from "./wire.ts";

/** Maximum time in which workers tell their figures, in milliseconds. */
const REFRESH_MS = 1000;

/** The limits that hold now, with all defaults filled in. */
export interface Limits {
  readonly conn: ConnLimits;
  readonly rules: AdmissionLimits;
}

/** What a crew is made of. */
export interface CrewParts {
  readonly options: ServeWorkersOptions;
  readonly shared: readonly SharedPlace[];
  readonly limits: Limits;
  readonly workers: number;
  /** Whether the sockets cannot be shared, and there is one worker. */
  readonly alone: boolean;
  readonly module: URL;
  readonly maxHeapMb: number;
}

/** The functions that a crew calls. */
export interface CrewHooks {
  /** All workers have begun to serve. */
  serving(): void;
  /** A worker could not begin, and the server has never served. */
  failed(error: Error): void;
  /** No worker is left. */
  ended(): void;
}

/** All workers. */
export class Crew {
  readonly slots: readonly Slot[];
  readonly census: Census;
  readonly gate: Gate;
  readonly reports: Reports;
  readonly #parts: CrewParts;
  readonly #hooks: CrewHooks;
  readonly #replies = new Replies();
  readonly #balance: Balance;
  #limits: Limits;
  #data: unknown;
  #serving = false;
  /** Whether workers that end are not replaced. */
  #ending = false;
  /** The number of handlers that were still at work when the workers had drained. */
  handlersLeft = 0;

  /**
   * @param parts What it is made of.
   * @param hooks The functions that it calls.
   */
  constructor(parts: CrewParts, hooks: CrewHooks) {
    this.#parts = parts;
    this.#hooks = hooks;
    this.#limits = parts.limits;
    const { onEvent, onListen, data } = parts.options;
    this.#data = data;
    const left = (addr: Deno.Addr) => {
      this.gate.leave(addr);
      this.#balance.update();
      this.gate.letIn();
    };
    this.census = new Census({ emit: (event) => this.reports.emit(event), left }, () => SYSTEM_CLOCK.now());
    this.reports = new Reports({ onEvent, onListen }, this.census.counters);
    this.gate = new Gate(admissionRules(parts.limits.rules), SYSTEM_CLOCK, (remoteAddr, reason, limit) => {
      this.reports.rejected({ remoteAddr, reason, limit: limit!, error: undefined });
    });
    this.slots = Array.from({ length: parts.workers }, (_, i) =>
      new Slot(i, parts, SYSTEM_CLOCK, {
        setup: () => this.#setup(i),
        ready: (slot) => this.#ready(slot),
        message: (slot, message) => this.#take(slot, message),
        down: (slot, error, retryMs) => this.#down(slot, error, retryMs),
      }));
    this.#balance = new Balance(this.slots, SYSTEM_CLOCK);
  }

  /** Starts the workers. */
  start(): void {
    for (const slot of this.slots) slot.start();
  }

  get limits(): Readonly<ServerLimits> {
    return { ...this.#limits.conn, ...this.#limits.rules };
  }

  /**
   * Changes limits, here and in the workers.
   *
   * @throws {RangeError | TypeError} If a limit is wrong; nothing has changed then.
   */
  setLimits(changes: ServerLimits): void {
    checkOptions("limits", changes);
    const given = Object.entries(changes).filter(([, value]) => value !== undefined);
    const rules = resolveAdmission({ ...this.#limits.rules, ...Object.fromEntries(given) });
    const compiled = admissionRules(rules);
    this.#limits = { conn: mergeLimits(this.#limits.conn, changes), rules };
    this.send({ type: "limits", limits: this.#limits.conn, waits: this.#waits });
    this.gate.setRules(compiled, this.census.addrs());
  }

  /** Sends a message to all workers that serve. */
  send(message: ToWorker): void {
    for (const slot of this.slots) slot.send(message);
  }

  /** Asks all workers for the figures of now; a busy one that has not answered in time keeps nobody waiting. */
  async refresh(): Promise<void> {
    const late = Promise.withResolvers<void>();
    const cancel = SYSTEM_CLOCK.setTimer(late.resolve, REFRESH_MS, false);
    await Promise.race([this.#ask((key) => ({ type: "refresh", key })), late.promise]);
    cancel();
  }

  /** Gives all workers new data; a worker that begins meanwhile, or later, has it in its setup. */
  async reload(data: unknown): Promise<void> {
    const before = this.#data;
    this.#data = data;
    try {
      await this.#ask((key) => ({ type: "reload", key, data }));
    } catch (error) {
      this.#data = before;
      throw error;
    }
  }

  /** Calls the hook about workers. */
  tell(event: WorkerEvent): void {
    this.reports.guard(() => this.#parts.options.onWorker?.(event));
  }

  /** Admits no more connections, and replaces no more workers. */
  end(): void {
    this.#ending = true;
    this.gate.close();
    this.#balance.close();
    for (const { close } of this.#parts.shared) close();
    for (const slot of this.slots) if (slot.state !== "serving") slot.stop();
    this.#endIfAlone();
  }

  /** Ends all workers at once. */
  stop(): void {
    this.#balance.close();
    for (const slot of this.slots) slot.stop();
  }

  get #waits(): boolean {
    return this.#limits.rules.atCapacity === "wait" || this.#limits.rules.acceptRate !== Infinity;
  }

  #ask(message: (key: number) => ToWorker): Promise<void> {
    const serving = this.slots.filter(({ state }) => state === "serving").map(({ index }) => index);
    return this.#replies.all(serving, (key) => this.send(message(key)));
  }

  #setup(index: number): Setup {
    const { options, shared, workers, alone } = this.#parts;
    const { keepAliveMs, maxBufferedBytes = 128 * 1024 * 1024, framing, admitTimeout } = options;
    const plain = { keepAliveMs, framing, admitTimeout, maxBufferedBytes: Math.ceil(maxBufferedBytes / workers) };
    return {
      index,
      places: shared.map(({ place }) => place),
      shared: !alone,
      options: { ...this.#limits.conn, ...plain },
      data: this.#data,
      paused: this.gate.paused,
      waits: this.#waits,
    };
  }

  #ready(slot: Slot): void {
    this.tell({ type: "worker-started", worker: slot.index, crashes: slot.crashes });
    this.#balance.update();
    if (this.#serving || this.slots.some(({ state }) => state !== "serving")) return;
    this.#serving = true;
    this.#hooks.serving();
    this.gate.open();
  }

  #take(slot: Slot, message: ToMain): void {
    if (message.type === "pong") this.#balance.answered(slot);
    else if (message.type === "ask") this.#judge(slot, message.key, message.addr);
    else if (message.type === "event") this.#tookEvent(slot, message.event);
    else if (message.type === "refreshed") {
      this.census.told(message.conns);
      this.#replies.replied(message.key, slot.index);
    } else if (message.type === "reloaded") {
      this.#replies.replied(message.key, slot.index, message.error && unpackError(message.error));
    } else if (message.type === "stopped") {
      this.handlersLeft += message.handlersLeft;
      slot.stop();
    }
  }

  #judge(slot: Slot, key: number, addr: Deno.Addr): void {
    this.gate.ask({
      addr,
      asker: slot,
      admit: () => this.#admit(slot, addr),
      answer: (verdict) => slot.answer({ type: "verdict", key, verdict }),
    });
  }

  #admit(slot: Slot, addr: Deno.Addr): number {
    const id = this.census.expect(slot, addr);
    this.#balance.update();
    return id;
  }

  #tookEvent(slot: Slot, wire: WireEvent): void {
    const event = unpackEvent(wire);
    if (event.type === "accepted") return this.census.accepted(slot, event.conn);
    if (event.type === "closed") return this.census.closed(slot, event);
    if (event.type === "rejected") this.#rejected(slot, event);
    else if (event.type === "gone") this.census.counters.gone++;
    this.reports.emit(event);
  }

  #rejected(slot: Slot, { remoteAddr, reason }: Extract<ServerEvent, { type: "rejected" }>): void {
    this.census.counters.rejected++;
    this.gate.rejected(remoteAddr, reason);
    if (reason === "refused") this.census.refused(slot, remoteAddr);
  }

  #down(slot: Slot, error: Error | undefined, retryMs: number | undefined): void {
    this.#replies.gone(slot.index);
    this.#balance.gone(slot);
    this.gate.forget(({ asker }) => asker === slot);
    const lost = this.census.lost(slot, new Error(`Worker ${slot.index} has crashed: ${error?.message}`));
    const worker = slot.index;
    if (!this.#serving) {
      if (error !== undefined) this.#hooks.failed(error);
    } else if (error === undefined) {
      this.tell({ type: "worker-stopped", worker, accepted: slot.accepted, lines: slot.totals.lines });
    } else {
      this.tell({ type: "worker-crashed", worker, error, lost, ...!this.#ending && { retryMs: retryMs! } });
      if (this.#ending) return slot.stop();
    }
    this.#endIfAlone();
  }

  #endIfAlone(): void {
    if (this.#ending && this.slots.every(({ state }) => state === "ended")) this.#hooks.ended();
  }
}
