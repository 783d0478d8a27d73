/**
 * The workers of one server: what they are told, and what they tell.
 *
 * @module
 */

import { type AdmissionLimits, admissionRules, resolveAdmission } from "../../internal/admission/admission.ts";
import { DEFAULT_BUFFERED_BYTES, withChanges } from "../../internal/api/check.ts";
import { type ConnLimits, mergeLimits } from "../../internal/api/conn_options.ts";
import type { ServerEvent } from "../../internal/api/events.ts";
import { resolveFraming } from "../../internal/api/framing.ts";
import type { ServerLimits } from "../../internal/api/serve_options.ts";
import { Reports } from "../../internal/server/reports.ts";
import { SYSTEM_CLOCK } from "../../internal/time/clock.ts";
import { Balance } from "./supervision/balance.ts";
import { Refreshes } from "./supervision/refreshes.ts";
import { Registry } from "./supervision/registry.ts";
import { SharedAdmission } from "./shared_admission.ts";
import type { ServeWorkersOptions, WorkerEvent } from "./options.ts";
import { Replies } from "./supervision/replies.ts";
import type { SharedPlace } from "./shared/sharing.ts";
import { Supervisor } from "./supervision/supervisor.ts";
import { type Setup, type ToMain, type ToWorker, unpackError, unpackEvent, type WireEvent } from "./shared/wire.ts";

/** Maximum time in which workers tell their figures, in milliseconds. */
const REFRESH_MS = 1000;

/** The limits that hold now, with all defaults filled in. */
export interface Limits {
  readonly conn: ConnLimits;
  readonly rules: AdmissionLimits;
}

/** What a group is made of. */
export interface GroupParts {
  readonly options: ServeWorkersOptions;
  readonly shared: readonly SharedPlace[];
  readonly limits: Limits;
  readonly workers: number;
  /** Whether the sockets cannot be shared, and there is one worker. */
  readonly alone: boolean;
  readonly module: URL;
  readonly maxHeapMb: number;
}

/** The functions that a group calls. */
interface GroupHooks {
  /** All workers have begun to serve. */
  serving(): void;
  /** A worker could not begin, and the server has never served. */
  failed(error: Error): void;
  /** No worker is left. */
  ended(): void;
}

/** All workers. */
export class WorkerGroup {
  readonly supervisors: readonly Supervisor[];
  readonly registry: Registry;
  readonly admission: SharedAdmission;
  readonly reports: Reports;
  readonly #parts: GroupParts;
  readonly #hooks: GroupHooks;
  readonly #replies = new Replies();
  readonly #refreshes = new Refreshes((worker) => this.supervisors[worker].send({ type: "refresh" }));
  readonly #balance: Balance;
  #limits: Limits;
  /**
   * The data of the last reload that all workers have taken, at first that of the options, and those of the reloads under
   * way. A new worker gets the newest.
   */
  readonly #reloads: { readonly data: unknown }[];
  #serving = false;
  /** Whether workers that end are not replaced. */
  #ending = false;
  /** The number of handlers that were still at work when the workers had drained. */
  handlersLeft = 0;

  /**
   * @param parts What it is made of.
   * @param hooks The functions that it calls.
   */
  constructor(parts: GroupParts, hooks: GroupHooks) {
    this.#parts = parts;
    this.#hooks = hooks;
    this.#limits = parts.limits;
    const { onEvent, onListen, data } = parts.options;
    this.#reloads = [{ data }];
    const left = (addr: Deno.Addr) => {
      this.admission.leave(addr);
      this.#balance.left();
      this.admission.letIn();
    };
    const emit = (event: ServerEvent) => this.reports.emit(event);
    this.registry = new Registry({ emit, left }, () => SYSTEM_CLOCK.now(), resolveFraming(parts.options.framing));
    this.reports = new Reports({ onEvent, onListen }, this.registry.counters);
    this.admission = new SharedAdmission(
      admissionRules(parts.limits.rules),
      SYSTEM_CLOCK,
      (remoteAddr, reason, limit) => this.reports.rejected(remoteAddr, reason, limit),
    );
    this.supervisors = Array.from({ length: parts.workers }, (_, i) =>
      new Supervisor(i, parts, SYSTEM_CLOCK, {
        setup: () => this.#setup(i),
        ready: (supervisor) => this.#ready(supervisor),
        message: (supervisor, message) => this.#take(supervisor, message),
        down: (supervisor, error, retryMs) => this.#down(supervisor, error, retryMs),
      }));
    this.#balance = new Balance(this.supervisors, SYSTEM_CLOCK);
  }

  /** Starts the workers. */
  start(): void {
    for (const supervisor of this.supervisors) supervisor.start();
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
    const rules = resolveAdmission(withChanges(this.#limits.rules, changes));
    const compiled = admissionRules(rules);
    this.#limits = { conn: mergeLimits(this.#limits.conn, changes), rules };
    this.send({ type: "limits", limits: this.#limits.conn, waits: this.#waits });
    this.admission.setRules(compiled, this.registry.addrs());
  }

  /** Sends a message to all workers that serve. */
  send(message: ToWorker): void {
    for (const supervisor of this.supervisors) supervisor.send(message);
  }

  /** Asks all workers for their present figures, and waits for `REFRESH_MS` at most: a busy worker answers late. */
  async refresh(): Promise<void> {
    const late = Promise.withResolvers<void>();
    const cancel = SYSTEM_CLOCK.setTimer(late.resolve, REFRESH_MS, false);
    await Promise.race([Promise.all(this.#numbers.map((worker) => this.#refreshes.ask(worker))), late.promise]);
    cancel();
  }

  /** Gives all workers new data; a worker that begins meanwhile, or later, has it in its setup. */
  async reload(data: unknown): Promise<void> {
    const reload = { data };
    this.#reloads.push(reload);
    try {
      await this.#ask((key) => ({ type: "reload", key, data }));
      // This reload replaces all earlier ones, including unanswered ones.
      this.#reloads.splice(0, Math.max(0, this.#reloads.indexOf(reload)));
    } catch (error) {
      const at = this.#reloads.indexOf(reload);
      if (at >= 0) this.#reloads.splice(at, 1);
      throw error;
    }
  }

  /** Calls the hook about workers. */
  tell(event: WorkerEvent): void {
    const { options } = this.#parts;
    this.reports.guard(options.onWorker?.bind(options), event);
  }

  /** Admits no more connections, and replaces no more workers. */
  end(): void {
    this.#ending = true;
    this.admission.close();
    this.#balance.close();
    for (const { close } of this.#parts.shared) close();
    // The others have been told to shut down. Also one that does not serve yet frees the port before it ends: if its thread
    // were ended now, the port would be free when the thread is gone, which nothing tells.
    for (const supervisor of this.supervisors) if (!supervisor.begun) supervisor.stop();
    this.#endIfAlone();
  }

  /** Ends all workers at once. One that serves still does not read its messages: a handler keeps its thread busy. */
  stop(): void {
    this.#balance.close();
    for (const supervisor of this.supervisors) {
      if (supervisor.state === "serving") this.handlersLeft += Math.max(1, supervisor.totals.handlers);
      supervisor.stop();
    }
  }

  get #waits(): boolean {
    return this.#limits.rules.atCapacity === "wait" || this.#limits.rules.acceptRate !== Infinity;
  }

  /** The numbers of the workers that serve. */
  get #numbers(): number[] {
    return this.supervisors.filter(({ state }) => state === "serving").map(({ index }) => index);
  }

  #ask(message: (key: number) => ToWorker): Promise<void> {
    return this.#replies.all(this.#numbers, (key) => {
      for (const supervisor of this.supervisors) supervisor.sendNow(message(key));
    });
  }

  #setup(index: number): Setup {
    const { options, shared, workers, alone } = this.#parts;
    const { keepAliveMs, maxBufferedBytes = DEFAULT_BUFFERED_BYTES, framing, admitTimeout } = options;
    const plain = { keepAliveMs, framing, admitTimeout, maxBufferedBytes: Math.ceil(maxBufferedBytes / workers) };
    return {
      index,
      places: shared.map(({ place }) => place),
      shared: !alone,
      options: { ...this.#limits.conn, ...plain },
      data: this.#reloads.at(-1)!.data,
      paused: this.admission.paused,
      waits: this.#waits,
      maxHeapMb: this.#parts.maxHeapMb,
      loads: this.#balance.loads.cells,
    };
  }

  #ready(supervisor: Supervisor): void {
    this.tell({ type: "worker-started", worker: supervisor.index, crashes: supervisor.crashes });
    this.#balance.update();
    if (this.#serving || this.supervisors.some(({ state }) => state !== "serving")) return;
    this.#serving = true;
    this.#hooks.serving();
    this.admission.open();
  }

  #take(supervisor: Supervisor, message: ToMain): void {
    if (message.type === "pong") this.#balance.answered(supervisor);
    else if (message.type === "ahead") this.#balance.leaves(supervisor);
    else if (message.type === "ask") this.#decide(supervisor, message.key, message.addr);
    else if (message.type === "event") this.#tookEvent(supervisor, message.event);
    else if (message.type === "refreshed") {
      this.registry.told(message.conns);
      this.#refreshes.answered(supervisor.index);
    } else if (message.type === "reloaded") {
      this.#replies.replied(message.key, supervisor.index, message.error && unpackError(message.error));
    } else if (message.type === "stopped") {
      this.handlersLeft += message.handlersLeft;
      supervisor.stop();
    }
  }

  #decide(supervisor: Supervisor, key: number, addr: Deno.Addr): void {
    this.admission.ask({
      addr,
      asker: supervisor,
      admit: () => this.#admit(supervisor, addr),
      answer: (verdict) => supervisor.answer({ type: "verdict", key, verdict }),
    });
  }

  #admit(supervisor: Supervisor, addr: Deno.Addr): number {
    const id = this.registry.expect(supervisor, addr);
    this.#balance.update();
    return id;
  }

  #tookEvent(supervisor: Supervisor, wire: WireEvent): void {
    const event = unpackEvent(wire);
    if (event.type === "accepted") return this.registry.accepted(supervisor, event.conn);
    if (event.type === "closed") return this.registry.closed(supervisor, event);
    if (event.type === "rejected") this.#rejected(supervisor, event);
    else if (event.type === "gone") this.registry.counters.gone++;
    this.reports.emit(event);
  }

  #rejected(supervisor: Supervisor, { remoteAddr, reason, error }: Extract<ServerEvent, { type: "rejected" }>): void {
    this.registry.counters.rejected++;
    // As in a server without workers: a hook `admit` that has failed brings no client nearer to a penalty.
    if (reason !== "refused" || error === undefined) this.admission.rejected(remoteAddr, reason);
    if (reason === "refused") this.registry.refused(supervisor, remoteAddr);
  }

  #down(supervisor: Supervisor, error: Error | undefined, retryMs: number | undefined): void {
    this.#replies.gone(supervisor.index);
    this.#refreshes.gone(supervisor.index);
    this.#balance.gone(supervisor);
    this.admission.forget(({ asker }) => asker === supervisor);
    const worker = supervisor.index;
    const why = error === undefined ? "was ended: it did not stop in time" : `has crashed: ${error.message}`;
    const lost = this.registry.lost(supervisor, new Error(`Worker ${worker} ${why}`));
    if (!this.#serving) {
      if (error !== undefined) this.#hooks.failed(error);
    } else if (error === undefined) {
      this.tell({ type: "worker-stopped", worker, accepted: supervisor.accepted, lines: supervisor.totals.lines });
    } else {
      this.tell({ type: "worker-crashed", worker, error, lost, ...!this.#ending && { retryMs: retryMs! } });
      if (this.#ending) return supervisor.stop();
    }
    this.#endIfAlone();
  }

  #endIfAlone(): void {
    if (this.#ending && this.supervisors.every(({ state }) => state === "ended")) this.#hooks.ended();
  }
}
