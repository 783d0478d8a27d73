/**
 * Several workers that are one server to the outside.
 *
 * @module
 */

import { changedBy, checkCount, checkOptions } from "../../internal/api/check.ts";
import type { ConnInfo, DrainingEvent, LameDuckEvent, ShutdownReport } from "../../internal/api/events.ts";
import { resolveShutdown, type ServerLimits, type ShutdownOptions } from "../../internal/api/serve_options.ts";
import { checkData } from "../../internal/lines/text.ts";
import type { ServerStats } from "../../internal/server/counters.ts";
import { Drain } from "../../internal/server/drain.ts";
import type { ServerState } from "../../internal/server/running.ts";
import { SYSTEM_CLOCK } from "../../internal/time/clock.ts";
import { type GroupParts, WorkerGroup } from "./worker_group.ts";
import type { WorkerEvent } from "./options.ts";
import type { WorkerConn } from "./supervision/remote_conn.ts";
import type { WorkerInfo, WorkersServer } from "./workers_server.ts";

/** Time in milliseconds that workers have beyond the drain timeout, before they are ended. */
const GRACE_MS = 5000;

/** Minimum time between two requests for figures that are sent without waiting for the answer, in milliseconds. */
const REFRESH_MS = 250;

/** The workers as one server. */
export class ParallelServer implements WorkersServer {
  readonly addrs: readonly Deno.Addr[];
  /** Resolves when all workers serve; rejects if one cannot. */
  readonly started: Promise<void>;
  readonly #parts: GroupParts;
  readonly #group: WorkerGroup;
  readonly #drain: Drain;
  readonly #finished = Promise.withResolvers<void>();
  readonly #report = Promise.withResolvers<ShutdownReport>();
  /** The shutdowns that were asked for before the drain began. */
  readonly #asked: ShutdownOptions[] = [];
  #state: ServerState = "listening";
  #since = 0;
  #closedBefore: ServerStats["closed"] | undefined;
  #refreshedAt = -Infinity;
  #cancelGrace = () => {};

  /** @param parts The options, and where the workers listen. */
  constructor(parts: GroupParts) {
    this.#parts = parts;
    this.addrs = parts.shared.map(({ place: { hostname, port } }) => ({ transport: "tcp", hostname, port }));
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.started = promise;
    this.#group = new WorkerGroup(parts, { serving: resolve, failed: reject, ended: () => this.#ended() });
    this.#drain = new Drain([], SYSTEM_CLOCK, {
      delayed: (delayMs) => {
        this.#enterState({ type: "lame-duck", delayMs });
        this.resume();
      },
      begin: () => this.#begin(),
      waiting: () => this.#group.reports.emit({ type: "waiting", active: this.active }),
    });
    this.#group.start();
    promise.then(() => this.#serving(), () => {});
  }

  get addr(): Deno.Addr {
    return this.addrs[0];
  }

  get state(): ServerState {
    return this.#state;
  }

  get finished(): Promise<void> {
    return this.#finished.promise;
  }

  get workers(): readonly WorkerInfo[] {
    return this.#group.supervisors.map(
      ({ index, state, crashes, accepted, active, totals: { lines, bytesIn, bytesOut } }) => {
        return { worker: index, state, crashes, accepted, active, lines, bytesIn, bytesOut };
      },
    );
  }

  get connections(): Iterable<WorkerConn> {
    this.#refreshSoon();
    return this.#group.registry.open.values().toArray();
  }

  /** The number of open connections; see `Readiness`. */
  get active(): number {
    return this.#group.registry.open.size;
  }

  get paused(): boolean {
    return this.#group.admission.paused;
  }

  get limits(): Readonly<ServerLimits> {
    return this.#group.limits;
  }

  stats(): ServerStats {
    this.#refreshSoon();
    return this.#group.registry.stats(this.#group.supervisors);
  }

  pause(): void {
    if (!this.paused && this.#accepts) this.#setPaused(true);
  }

  resume(): void {
    if (this.paused && this.#accepts) this.#setPaused(false);
  }

  setLimits(limits: ServerLimits): void {
    this.#group.setLimits(limits);
    this.#group.reports.emit({ type: "limits-changed", limits: changedBy(limits, this.limits) });
  }

  broadcast(data: string | Uint8Array, options: { except?: Pick<ConnInfo, "id"> | undefined } = {}): void {
    checkData(data);
    checkOptions("broadcast options", options);
    const { except } = options;
    if (except !== undefined) {
      checkOptions("except", except);
      // The message is sent later: no caller could catch the error of a value that cannot be sent.
      checkCount("except.id", except.id);
    }
    // A copy: the message is sent at the end of this turn, when the caller may have changed the bytes; and of bytes
    // that are a part of a buffer, the whole buffer would be sent. What `slice` returns of a `Buffer` is no copy.
    const copy = typeof data === "string" ? data : new Uint8Array(data);
    this.#group.send({ type: "broadcast", data: copy, except: except?.id });
  }

  async refresh(): Promise<void> {
    this.#refreshedAt = SYSTEM_CLOCK.now();
    await this.#group.refresh();
  }

  reload(data: unknown): Promise<void> {
    return this.#group.reload(data);
  }

  shutdown(options: ShutdownOptions = {}): Promise<ShutdownReport> {
    const resolved = resolveShutdown(options, this.#parts.options, this.#state === "listening");
    if (this.#state === "closed") return this.#report.promise;
    const now = { ...resolved, delay: 0 };
    if (this.#state === "draining") this.#group.send({ type: "shutdown", options: now });
    else this.#asked.push(now);
    this.#drain.start(resolved);
    return this.#report.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.shutdown();
  }

  ref(): void {
    for (const supervisor of this.#group.supervisors) supervisor.ref();
  }

  unref(): void {
    for (const supervisor of this.#group.supervisors) supervisor.unref();
  }

  /** Calls the hook about workers. */
  tell(event: WorkerEvent): void {
    this.#group.tell(event);
  }

  /** Ends everything at once, because a worker could not begin. */
  abandon(): void {
    this.#group.stop();
  }

  get #accepts(): boolean {
    return this.#state === "listening" || this.#state === "lame-duck";
  }

  #serving(): void {
    for (const addr of this.addrs) this.#group.reports.listening(addr);
    const { signal } = this.#parts.options;
    if (signal === undefined) return;
    const stop = () => this.shutdown();
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop);
    this.#report.promise.then(() => signal.removeEventListener("abort", stop));
  }

  #setPaused(paused: boolean): void {
    const { admission, reports } = this.#group;
    admission.paused = paused;
    this.#group.send({ type: paused ? "pause" : "resume" });
    reports.emit({ type: paused ? "paused" : "resumed" });
    admission.letIn();
  }

  /** Asks the workers for new figures without waiting: this call shows the last ones, and a later call the new ones. */
  #refreshSoon(): void {
    if (SYSTEM_CLOCK.now() - this.#refreshedAt >= REFRESH_MS) this.refresh();
  }

  #enterState(event: LameDuckEvent | DrainingEvent): void {
    this.#state = event.type;
    this.#group.reports.emit(event);
  }

  /** The drain begins. */
  #begin(): void {
    this.#since = SYSTEM_CLOCK.now();
    this.#closedBefore = { ...this.#group.registry.counters.closed };
    this.#group.admission.paused = false;
    this.#enterState({ type: "draining", active: this.active });
    for (const options of this.#asked) this.#group.send({ type: "shutdown", options });
    this.#group.end();
    this.#drain.over.then(() => {
      if (this.#state === "closed") return;
      this.#cancelGrace = SYSTEM_CLOCK.setTimer(() => this.#group.stop(), GRACE_MS, false);
    });
  }

  #ended(): void {
    this.#drain.stop();
    this.#cancelGrace();
    this.#state = "closed";
    const { registry, handlersLeft, reports } = this.#group;
    const closed = registry.counters.closedSince(this.#closedBefore!);
    const report = { closed, handlersLeft, durationMs: SYSTEM_CLOCK.now() - this.#since };
    reports.emit({ type: "stopped", report });
    this.#report.resolve(report);
    this.#finished.resolve();
  }
}
