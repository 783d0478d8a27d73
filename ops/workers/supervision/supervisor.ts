/**
 * Starts one worker, and another in its place when it has crashed.
 *
 * @module
 */

import { stripVTControlCharacters } from "node:util";
import type { Worker as Thread } from "node:worker_threads";
import type { Clock } from "../../../internal/api/serve_options.ts";
import type { Traffic } from "../../../internal/api/events.ts";
import { addTraffic } from "../../../internal/server/counters.ts";
import { RefClock } from "../../../internal/time/clock.ts";
import { Batcher } from "../shared/batcher.ts";
import { type Setup, type ToMain, type Totals, type ToWorker, unpackError } from "../shared/wire.ts";

/** The states of a worker's place. In `waiting`, its worker has crashed, and the next one begins after a pause. */
export type WorkerState = "starting" | "serving" | "waiting" | "ended";

/** The functions that a supervisor calls. */
interface SupervisorHooks {
  /** Makes what a new worker needs. */
  setup(): Setup;
  /** The worker serves. */
  ready(supervisor: Supervisor): void;
  /** The worker has sent a message that does not concern its start or end. */
  message(supervisor: Supervisor, message: ToMain): void;
  /** The worker has ended, after an error or, without one, because it was stopped. */
  down(supervisor: Supervisor, error: Error | undefined, retryMs: number | undefined): void;
}

/** Time in milliseconds until a worker has loaded its module and has called `serveInWorker`. */
const START_MS = 60_000;

const NO_CALL = "It ended without having called serveInWorker";

/** Minimum and maximum pause before a crashed worker is replaced, in milliseconds; each crash doubles it. */
const FIRST_MS = 100;
const LAST_MS = 30_000;

/** Time in milliseconds after which a worker counts as a good one: when it crashes, the pause is the first one again. */
const GOOD_MS = 60_000;

const NOTHING: Totals = { lines: 0, bytesIn: 0, bytesOut: 0, handlers: 0, hookErrors: 0, queued: 0 };

/** Runs one worker after the other, and has the figures of all of them. */
export class Supervisor {
  /** The number of the place, from 0. */
  readonly index: number;
  /** How many of its workers have crashed. */
  crashes = 0;
  /** The number of connections that its workers have served, and that of those that are open. */
  accepted = 0;
  active = 0;
  state: WorkerState = "starting";
  readonly #module: URL;
  readonly #maxHeapMb: number;
  readonly #clock: RefClock;
  readonly #hooks: SupervisorHooks;
  #thread: Thread | undefined;
  readonly #batcher = new Batcher<ToWorker>((messages) => this.#thread?.postMessage(messages));
  #delay = FIRST_MS;
  #since = 0;
  #cancelTimer = () => {};
  #keepsAlive = true;
  /** Whether the worker has its setup. */
  #begun = false;
  /** What the workers before this one have transferred; what this one has told last; and what its ended connections had. */
  #before = NOTHING;
  #told = NOTHING;
  #ended: Traffic = NOTHING;

  /**
   * @param index The number of the place.
   * @param options The module of the workers, and the maximum size of the heap of each.
   * @param clock The source of time.
   * @param hooks The functions that it calls.
   */
  constructor(index: number, options: { module: URL; maxHeapMb: number }, clock: Clock, hooks: SupervisorHooks) {
    this.index = index;
    this.#module = options.module;
    this.#maxHeapMb = options.maxHeapMb;
    this.#clock = new RefClock(clock);
    this.#hooks = hooks;
  }

  /** What its workers have transferred and do: never less than what is known of the connections that have ended. */
  get totals(): Totals {
    const { handlers, hookErrors, queued } = this.#told;
    const before = this.#before;
    return { ...addTraffic(before, this.#traffic), handlers, queued, hookErrors: before.hookErrors + hookErrors };
  }

  get #traffic(): Traffic {
    const [told, ended] = [this.#told, this.#ended];
    const most = (name: keyof Traffic) => Math.max(told[name], ended[name]);
    return { lines: most("lines"), bytesIn: most("bytesIn"), bytesOut: most("bytesOut") };
  }

  /** Whether its worker has its setup, and so listens, or soon will. */
  get begun(): boolean {
    return this.#begun;
  }

  /** Starts a worker. */
  async start(): Promise<void> {
    this.state = "starting";
    this.#since = this.#clock.now();
    this.#waitAtMost(START_MS);
    try {
      const { Worker } = await import("node:worker_threads");
      // It may have been stopped meanwhile.
      if (this.state !== "starting") return;
      // With a limit, a worker whose heap is full ends alone; without one, the whole process would.
      const resourceLimits = { maxOldGenerationSizeMb: this.#maxHeapMb };
      // Without it, `node:worker_threads` reads all variables, and Deno would prompt for the permission.
      const env = mayReadVariables() ? {} : { env: {} };
      const thread = this.#thread = new Worker(this.#module, { resourceLimits, ...env });
      if (!this.#keepsAlive) thread.unref();
      thread.on("message", (messages: readonly ToMain[]) => this.#take(thread, messages));
      thread.on("error", (error: Error) => this.#end(thread, plain(error)));
      thread.on("exit", () => this.#end(thread, new Error(this.#begun ? "It ended by itself" : NO_CALL)));
    } catch (error) {
      this.#end(this.#thread, error instanceof Error ? error : new Error(String(error)));
    }
  }

  /** Sends a message, if there is a worker; one that has no setup yet will find what it needs there. */
  send(message: ToWorker): void {
    if (this.#begun) this.#batcher.add(message);
  }

  /**
   * The same, for a message with values of the caller's.
   *
   * @throws {TypeError} If one of them cannot be copied.
   */
  sendNow(message: ToWorker): void {
    if (this.#begun) this.#batcher.send(message);
  }

  /** Answers a question of the worker. */
  answer(message: ToWorker): void {
    this.#batcher.add(message);
  }

  /** Ends the worker for good. */
  stop(): void {
    if (this.state === "ended") return;
    this.state = "ended";
    this.#terminate();
    this.#hooks.down(this, undefined, undefined);
  }

  /** A connection of the worker has ended. */
  count(traffic: Traffic): void {
    this.#ended = addTraffic(this.#ended, traffic);
  }

  /** Has its workers keep the process alive, also those that it starts later, and its pauses between them. */
  ref(): void {
    this.#keepsAlive = true;
    this.#thread?.ref();
    this.#clock.ref();
  }

  unref(): void {
    this.#keepsAlive = false;
    this.#thread?.unref();
    this.#clock.unref();
  }

  #take(thread: Thread, messages: readonly ToMain[]): void {
    // Messages of a worker that counts as crashed may still come.
    for (const message of messages) if (thread === this.#thread) this.#takeOne(thread, message);
  }

  #takeOne(thread: Thread, message: ToMain): void {
    if ("totals" in message) this.#told = message.totals;
    if (message.type === "hello") {
      this.#begin(thread);
    } else if (message.type === "ready") {
      this.#cancelTimer();
      this.state = "serving";
      this.#hooks.ready(this);
    } else if (message.type === "failed") {
      this.#end(thread, unpackError(message.error));
    } else this.#hooks.message(this, message);
  }

  #begin(thread: Thread): void {
    try {
      this.#batcher.add({ type: "start", setup: this.#hooks.setup() });
      this.#batcher.flush();
      this.#begun = true;
    } catch (error) {
      // The data cannot be copied.
      this.#end(thread, error as Error);
    }
  }

  #waitAtMost(ms: number): void {
    const late = () =>
      this.#end(this.#thread, new Error(`It did not call serveInWorker, or served nothing, in ${ms} ms`));
    this.#cancelTimer = this.#clock.setTimer(late, ms, true);
  }

  /** The worker has crashed, or could not start: the next one begins after a pause. */
  #end(thread: Thread | undefined, error: Error): void {
    if (thread !== this.#thread || this.state === "ended" || this.state === "waiting") return;
    this.#terminate();
    this.crashes++;
    this.state = "waiting";
    this.#before = this.totals;
    this.#told = this.#ended = NOTHING;
    if (this.#clock.now() - this.#since > GOOD_MS) this.#delay = FIRST_MS;
    const retryMs = this.#delay;
    this.#delay = Math.min(2 * retryMs, LAST_MS);
    this.#cancelTimer = this.#clock.setTimer(() => this.start(), retryMs, true);
    this.#hooks.down(this, error, retryMs);
  }

  #terminate(): void {
    this.#cancelTimer();
    this.#begun = false;
    // Whatever was at work there ends with the thread.
    this.#told = { ...this.#told, handlers: 0, queued: 0 };
    const thread = this.#thread;
    this.#thread = undefined;
    thread?.terminate();
  }
}

function mayReadVariables(): boolean {
  return Deno.permissions.querySync({ name: "env" }).state === "granted";
}

/** Removes colors and the place in the code from the message of Deno's error about a module that it cannot load. */
function plain(error: Error): Error {
  error.message = stripVTControlCharacters(error.message).split("\n", 1)[0];
  return error;
}
