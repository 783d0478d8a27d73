/**
 * What a shutdown does while connections are open.
 *
 * @module
 */

import type { Clock, DrainMode, ResolvedShutdown } from "../api/serve_options.ts";
import { setDeadline } from "../time/alarms.ts";

/** A connection that the shutdown ends. */
interface Draining {
  /** Ends it at a line boundary. */
  finish(reason: "drained"): void;
  /** Ends it at once. */
  abort(reason: "drain-timeout"): void;
}

/** The functions that a drain calls. */
export interface DrainHooks {
  /** The shutdown has begun with a delay, in milliseconds: the server goes on for so long. */
  delayed(milliseconds: number): void;
  /** The drain begins: no connection is accepted from now on. */
  begin(): void;
  /** Called every 500 ms while the drain waits. */
  waiting(): void;
}

/** Time between two reports of the number of open connections, in milliseconds. */
const WAITING_MS = 500;

/**
 * Time beyond the deadline in which listeners have to close, in milliseconds: also after a short drain, the ports should be
 * free when it is over.
 */
const LISTENERS_MS = 1000;

/**
 * The course of a shutdown: a delay, and then a drain with a mode and a deadline. A further call can only make it faster.
 */
export class Drain {
  readonly #conns: Iterable<Draining>;
  readonly #clock: Clock;
  readonly #hooks: DrainHooks;
  #mode: DrainMode = "linger";
  #timeout = Infinity;
  #spread = Infinity;
  #beginAt = Infinity;
  #begun = false;
  #deadline = Infinity;
  /** When the last connection is asked to finish, in the mode `finish`. */
  #finishedBy = -Infinity;
  readonly #finishing: Spread;
  readonly #aborting: Spread;
  #cancelDelay = () => {};
  #cancelDeadline = () => {};
  #cancelReport = () => {};
  #cancelLate = () => {};
  #ended = false;
  #stopped = false;
  readonly #over = Promise.withResolvers<void>();
  readonly #late = Promise.withResolvers<void>();

  /**
   * @param conns The open connections.
   * @param clock The source of time.
   * @param hooks The functions that it calls.
   */
  constructor(conns: Iterable<Draining>, clock: Clock, hooks: DrainHooks) {
    this.#conns = conns;
    this.#clock = clock;
    this.#hooks = hooks;
    this.#finishing = new Spread(clock, (conn) => conn.finish("drained"), () => {});
    this.#aborting = new Spread(clock, (conn) => conn.abort("drain-timeout"), () => this.#end());
  }

  /** Settles at the deadline, after the connections that are left have been aborted. */
  get over(): Promise<void> {
    return this.#over.promise;
  }

  /** Settles a second after the deadline, when listeners that have not closed are given up. */
  get late(): Promise<void> {
    return this.#late.promise;
  }

  /** Begins the shutdown. A later call can only shorten its times, or turn `linger` into `finish`. */
  start({ drain, drainTimeout, delay, spread = Infinity }: ResolvedShutdown): void {
    const now = this.#clock.now();
    const finish = drain === "finish" && this.#mode !== "finish";
    if (finish) this.#mode = "finish";
    this.#timeout = Math.min(this.#timeout, drainTimeout);
    this.#spread = Math.min(this.#spread, spread);
    if (!this.#begun) return this.#beginAfter(delay, now);
    this.#endBy(now + drainTimeout, now);
    if (finish || Math.min(this.#deadline, now + this.#spread) < this.#finishedBy) this.#finish(now);
  }

  /** Cancels the timers, because no connection is left. */
  stop(): void {
    this.#stopped = true;
    this.#cancelLate();
    this.#finishing.stop();
    this.#aborting.stop();
    this.#cancelDeadline();
    this.#cancelReport();
  }

  #beginAfter(delay: number, now: number): void {
    if (now + delay >= this.#beginAt) return;
    this.#cancelDelay();
    const first = this.#beginAt === Infinity;
    this.#beginAt = now + delay;
    if (delay === 0) return this.#begin();
    this.#cancelDelay = this.#clock.setTimer(() => this.#begin(), delay, true);
    if (first) this.#hooks.delayed(delay);
  }

  #begin(): void {
    // Set before any hook is called: a hook may start the drain again.
    this.#begun = true;
    this.#reportLater();
    this.#hooks.begin();
    // Nothing was open, so it is over already.
    if (this.#stopped) return;
    const now = this.#clock.now();
    // First the deadline: the spread must not be longer.
    this.#endBy(now + this.#timeout, now);
    if (this.#mode === "finish") this.#finish(now);
  }

  /** Asks the connections to finish, one after another, the last one at the deadline at the latest. */
  #finish(now: number): void {
    const before = this.#finishedBy === -Infinity ? Infinity : this.#finishedBy;
    this.#finishedBy = Math.min(before, now + this.#spread, this.#deadline);
    this.#finishing.start(this.#conns, this.#finishedBy - now);
    // While the drain lingered, it was to abort connections from before the deadline on. They have until then now.
    this.#aborting.stop();
    this.#abortAfter(Math.max(0, this.#deadline - now), 0);
  }

  /** Brings the deadline forward. */
  #endBy(deadline: number, now: number): void {
    if (deadline >= this.#deadline) return;
    this.#deadline = deadline;
    const left = deadline - now;
    const spread = this.#mode === "finish" ? 0 : Math.min(this.#spread, left);
    this.#abortAfter(left - spread, spread);
  }

  /** Aborts the connections that are open after a time, in milliseconds, one after another over `spread`. */
  #abortAfter(delay: number, spread: number): void {
    this.#cancelDeadline();
    this.#cancelDeadline = setDeadline(this.#clock, () => this.#aborting.start(this.#conns, spread), delay);
  }

  /** The connections that were left have been aborted. */
  #end(): void {
    // A call that turns `linger` into `finish` after the deadline aborts them once more. It must not delay the end.
    if (this.#ended) return;
    this.#ended = true;
    this.#over.resolve();
    this.#cancelLate = this.#clock.setTimer(() => this.#late.resolve(), LISTENERS_MS, true);
  }

  #reportLater(): void {
    this.#cancelReport = this.#clock.setTimer(
      () => {
        this.#hooks.waiting();
        this.#reportLater();
      },
      WAITING_MS,
      true,
    );
  }
}

/** Time between two steps of a spread, in milliseconds. */
const STEP_MS = 20;

/** Does something to each connection, evenly over a time. */
class Spread {
  readonly #clock: Clock;
  readonly #act: (conn: Draining) => void;
  readonly #done: () => void;
  #cancel = () => {};

  /**
   * @param clock The source of time.
   * @param act What to do to each; a connection may have ended already.
   * @param done Called after the last.
   */
  constructor(clock: Clock, act: (conn: Draining) => void, done: () => void) {
    this.#clock = clock;
    this.#act = act;
    this.#done = done;
  }

  /** Begins, or begins anew with the connections that are still open. */
  start(conns: Iterable<Draining>, milliseconds: number): void {
    this.stop();
    const rest = Array.from(conns).reverse();
    const count = rest.length;
    const since = this.#clock.now();
    const step = () => {
      const passed = this.#clock.now() - since;
      const left = passed >= milliseconds ? 0 : Math.floor(count * (1 - passed / milliseconds));
      while (rest.length > left) this.#act(rest.pop()!);
      if (left > 0) this.#cancel = this.#clock.setTimer(step, Math.min(STEP_MS, milliseconds - passed), true);
      else this.#done();
    };
    step();
  }

  stop(): void {
    this.#cancel();
  }
}
