/**
 * A worker's side of admission: it asks the main isolate, and ends the connections that are rejected.
 *
 * @module
 */

import { type Framing, resolveFraming } from "../../../internal/api/framing.ts";
import type { ServeOptions } from "../../../internal/api/serve_options.ts";
import type { Transport } from "../../../internal/api/transport.ts";
import type { ServerEvent } from "../../../internal/api/events.ts";
import { Rejects } from "../../../internal/admission/rejects.ts";
import { Counters } from "../../../internal/server/counters.ts";
import { Reports } from "../../../internal/server/reports.ts";
import { SYSTEM_CLOCK } from "../../../internal/time/clock.ts";
import type { Admitter } from "./asking_listener.ts";
import type { Turn } from "./turn_listener.ts";
import type { WorkerLoads } from "../shared/loads.ts";
import type { Rejection, ToMain, Verdict } from "../shared/wire.ts";

/** Maximum number of connections that one listener has asked about, unless connections may have to wait. */
const MOST = 64;

/** Asks the main isolate. */
export class WorkerAdmission implements Admitter, Turn {
  readonly #send: (message: ToMain) => void;
  readonly #loads: WorkerLoads;
  /** Counts what the hook throws. */
  readonly counters: Counters = new Counters();
  readonly #rejects: Rejects;
  /** What settles each question, by its key; and the keys of answered questions, which later questions get. */
  readonly #asked: ((verdict: Verdict) => void)[] = [];
  readonly #freeKeys: number[] = [];
  /** Whether connections may have to wait, or do while the server is paused: each listener accepts only one then. */
  waits = false;
  paused = false;
  /** The number of connections that are open, or about which this worker asks. */
  #load = 0;
  /** Returns the number of connections that this worker has accepted and not asked about yet, as those in a handshake. */
  queued: () => number = () => 0;
  /** Resolves when this worker may accept again; undefined if it may. */
  #ahead: PromiseWithResolvers<void> | undefined;

  /**
   * @param send Sends a message to the main isolate.
   * @param loads The memory in which this worker tells how many connections it has; see `Balance`.
   * @param hooks The function that words the last line of a rejected connection.
   * @param framing How lines are framed.
   */
  constructor(
    send: (message: ToMain) => void,
    loads: WorkerLoads,
    hooks: Pick<ServeOptions, "lastWords">,
    framing: Partial<Framing> | undefined,
  ) {
    this.#send = send;
    this.#loads = loads;
    this.#rejects = new Rejects(SYSTEM_CLOCK, resolveFraming(framing), new Reports(hooks, this.counters));
  }

  get most(): number {
    return this.waits || this.paused ? 1 : MOST;
  }

  get turn(): Promise<void> | undefined {
    if (this.#loads.mayHaveMore(this.#load + this.queued())) return undefined;
    if (this.#ahead === undefined) {
      this.#ahead = Promise.withResolvers();
      this.#send({ type: "ahead" });
    }
    return this.#ahead.promise;
  }

  /** Others have caught up. */
  goOn(): void {
    this.#ahead?.resolve();
    this.#ahead = undefined;
  }

  /** Something has happened to a connection. */
  saw(event: ServerEvent): void {
    if (event.type === "closed" || event.type === "rejected" && event.reason === "refused") this.#left();
    // It was being prepared. Untold, this worker would seem to have it still, and would wait for others to catch up.
    else if (event.type === "rejected" || event.type === "gone") this.#hasFewer();
  }

  /** A connection about which this worker has asked is gone. */
  #left(): void {
    this.#load--;
    this.#hasFewer();
  }

  /** Tells the load. This worker may have so few by now that it need not be told to go on. */
  #hasFewer(): void {
    if (this.#loads.mayHaveMore(this.#load + this.queued())) this.goOn();
  }

  ask(addr: Deno.Addr): Promise<Verdict> {
    const { promise, resolve } = Promise.withResolvers<Verdict>();
    const key = this.#freeKeys.pop() ?? this.#asked.length;
    this.#load++;
    this.#asked[key] = resolve;
    this.#send({ type: "ask", key, addr: { ...addr } });
    return promise;
  }

  /** The main isolate has answered. */
  answer(key: number, verdict: Verdict): void {
    if (!("id" in verdict)) this.#left();
    this.#asked[key](verdict);
    this.#freeKeys.push(key);
  }

  reject(transport: Transport, { reason, limit }: Rejection): void {
    this.#rejects.add(transport, reason, limit);
  }

  /** Ends the connections that have been rejected, and whose peers still read. */
  close(): void {
    this.#rejects.close();
  }
}
