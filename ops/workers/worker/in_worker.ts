/**
 * What runs in a worker: one server, which the main isolate steers.
 *
 * @module
 */

import { checkFunction, checkOptions } from "../../../internal/api/check.ts";
import type { CloseOptions, Conn, ConnHandler, LineHandler } from "../../../internal/api/handlers.ts";
import type { ServeOptions } from "../../../internal/api/serve_options.ts";
import { closeQuietly, type Listener, queuedIn } from "../../../internal/api/transport.ts";
import { listenTcp } from "../../../internal/server/listen.ts";
import type { Server } from "../../../internal/server/running.ts";
import { serve, serveConnections } from "../../../server.ts";
import { listenShared } from "../../epoll/epoll.ts";
import { AskingListener } from "./asking_listener.ts";
import { WorkerAdmission } from "./worker_admission.ts";
import { Batcher } from "../shared/batcher.ts";
import { WorkerLoads } from "../shared/loads.ts";
import { listenBalanced } from "../shared/sharing.ts";
import { TurnListener } from "./turn_listener.ts";
import { isOfConnection, packError, packEvent } from "../shared/wire.ts";
import type { Place, Setup, ToMain, ToServer, Totals, ToWorker } from "../shared/wire.ts";

/** What a worker serves: functions, which cannot be sent to it. All plain options are those of {@linkcode serveWorkers}. */
export interface WorkerService<Data = undefined> extends Pick<ServeOptions<Data>, "data" | "admit" | "lastWords"> {
  /** Answers a line, as in `serve`. Without a handler, the worker shouts. */
  handler?: LineHandler<Data> | undefined;
  /** Talks with one client, as in `serveConnections`, in place of `handler`. */
  conversation?: ConnHandler<Data> | undefined;
  /**
   * Wraps a listener, with `listenTls`, for example. It is called once for each place, in their order.
   *
   * @param listener The listener, which listens already; the new one owns it.
   * @param index The number of the place, from 0.
   */
  wrap?: ((listener: Listener, index: number) => Listener | Promise<Listener>) | undefined;
  /**
   * Takes new data, such as a certificate; see `server.reload`.
   *
   * @param data The data, a copy of what `reload` was given.
   */
  reload?: ((data: unknown) => void | Promise<void>) | undefined;
}

/**
 * Serves in a worker that {@linkcode serveWorkers} has started. The worker's module calls it once.
 *
 * @param make Makes what the worker serves of the data that `serveWorkers` was given, a copy for each worker. Write down
 * the type of its argument: without it, the compiler cannot infer the type of `conn.data` from the option `data`.
 * @throws {TypeError} If this is no worker.
 *
 * @example The module of a worker, which greets with a word that the main program has chosen (not run: it needs a worker)
 * ```ts ignore
 * import { serveInWorker } from "@x/shouty/ops";
 *
 * serveInWorker((word: string) => ({ handler: (name) => `${word}, ${name}!` }));
 * ```
 */
export async function serveInWorker<Data = undefined>(
  // deno-lint-ignore no-explicit-any
  make: (data: any) => WorkerService<Data> | Promise<WorkerService<Data>>,
): Promise<void> {
  checkFunction("make", make);
  const { parentPort } = await import("node:worker_threads");
  if (parentPort === null) throw new TypeError("Cannot serve in a worker: this is none");
  const worker = new InWorker<Data>(make, new Batcher((messages) => parentPort.postMessage(messages)));
  parentPort.on("message", (messages: readonly ToWorker[]) => messages.forEach((message) => worker.take(message)));
}

const MIB = 1024 * 1024;

/** Time between two messages with the totals, and between two looks at the heap, in milliseconds. */
const TOTALS_MS = 1000;

/**
 * The share of its heap above which a worker is full, if it is so at this many looks in a row: now and then, much of a heap
 * is garbage that V8 has not collected yet.
 */
const FULL_SHARE = 0.9;
const FULL_LOOKS = 10;

class InWorker<Data> {
  readonly #make: (data: unknown) => WorkerService<Data> | Promise<WorkerService<Data>>;
  readonly #batcher: Batcher<ToMain>;
  #service: WorkerService<Data> = {};
  #admission!: WorkerAdmission;
  #server: Server<Data> | undefined;
  #listeners: Listener[] = [];
  #failed = false;
  readonly #early: ToServer[] = [];
  #lastTotals = "";
  #fullLooks = 0;

  constructor(make: (data: unknown) => WorkerService<Data> | Promise<WorkerService<Data>>, batcher: Batcher<ToMain>) {
    this.#make = make;
    this.#batcher = batcher;
    // An error that nothing has caught ends this worker and no other. The main isolate starts another in its place.
    addEventListener("error", (event) => this.#crash(event, event.error ?? event.message));
    addEventListener("unhandledrejection", (event) => this.#crash(event, event.reason));
    batcher.add({ type: "hello" });
  }

  take(message: ToWorker): void {
    if (message.type === "ping") return this.#batcher.add({ type: "pong" });
    if (message.type === "start") return void this.#start(message.setup);
    if (message.type === "verdict") return this.#admission.answer(message.key, message.verdict);
    // What has changed since the setup was made holds as soon as the server is there.
    if (this.#server === undefined) this.#early.push(message);
    else this.#obey(this.#server, message);
  }

  #obey(server: Server<Data>, message: ToServer): void {
    switch (message.type) {
      case "go-on":
        return this.#admission.goOn();
      case "pause":
        this.#admission.paused = true;
        return server.pause();
      case "resume":
        this.#admission.paused = false;
        return server.resume();
      case "limits":
        this.#admission.waits = message.waits;
        return server.setLimits(message.limits);
      case "shutdown":
        return void server.shutdown(message.options);
      case "reload":
        return void this.#reload(message.key, message.data);
      case "refresh":
        return this.#refresh(server);
      case "close":
        return closeOne(find(server, message.id), message.options);
      case "broadcast":
        return server.broadcast(message.data, { except: find(server, message.except) });
    }
  }

  async #start(setup: Setup): Promise<void> {
    try {
      const service = this.#service = await this.#make(setup.data);
      checkService(service);
      const { framing } = setup.options;
      const loads = new WorkerLoads(setup.loads, setup.index);
      this.#admission = new WorkerAdmission((message) => this.#batcher.add(message), loads, service, framing);
      this.#admission.waits = setup.waits;
      this.#admission.paused = setup.paused;
      const listener = await this.#listen(setup);
      const server = this.#server = this.#serve(setup, listener);
      if (setup.paused) server.pause();
      for (const message of this.#early.splice(0)) this.take(message);
      this.#batcher.add({ type: "ready" });
    } catch (error) {
      this.#fail(error);
    }
  }

  async #listen({ places, shared }: Setup): Promise<Listener[]> {
    const listeners: Listener[] = this.#listeners = places.map((place) => listen(place, shared));
    const prepared: Listener[] = [];
    for (const [i, listener] of listeners.entries()) {
      const inTurn = new TurnListener(listener, this.#admission);
      prepared[i] = await this.#service.wrap?.(inTurn, i) ?? inTurn;
      listeners[i] = new AskingListener(prepared[i], this.#admission);
    }
    this.#admission.queued = () => prepared.reduce((sum, listener) => sum + queuedIn(listener), 0);
    return listeners;
  }

  #serve({ options, maxHeapMb }: Setup, listener: Listener[]): Server<Data> {
    const { handler, conversation, data, admit, lastWords } = this.#service;
    const all: ServeOptions<Data> = {
      ...{ ...options, data, admit, lastWords, listener },
      // The main isolate enforces this limit, because it counts the connections of all workers.
      maxConnections: Infinity,
      onEvent: (event) => {
        this.#admission.saw(event);
        if (isOfConnection(event)) this.#batcher.add({ type: "event", event: packEvent(event) });
        else if (event.type === "stopped") this.#stopped(event.report.handlersLeft);
      },
    };
    const server = conversation !== undefined ? serveConnections(all, conversation) : serve(all, handler);
    server.finished.catch((error) => this.#fail(error));
    Deno.unrefTimer(setInterval(() => this.#lookAround(server, maxHeapMb), TOTALS_MS));
    return server;
  }

  #stopped(handlersLeft: number): void {
    this.#admission.close();
    this.#batcher.add({ type: "stopped", handlersLeft, totals: this.#totals(this.#server!) });
  }

  /** Tells the totals, and whether the heap is full: V8 cuts off the call that fills it, but its worker may go on. */
  #lookAround(server: Server<Data>, maxHeapMb: number): void {
    this.#tellTotals(server);
    const usedMb = Math.ceil(Deno.memoryUsage().heapUsed / MIB);
    this.#fullLooks = usedMb > FULL_SHARE * maxHeapMb ? this.#fullLooks + 1 : 0;
    if (this.#fullLooks < FULL_LOOKS) return;
    this.#fail(new RangeError(`Out of memory: ${usedMb} of ${maxHeapMb} MiB, for ${FULL_LOOKS} s`));
  }

  #tellTotals(server: Server<Data>): void {
    const totals = this.#totals(server);
    const text = JSON.stringify(totals);
    if (text !== this.#lastTotals) this.#batcher.add({ type: "totals", totals });
    this.#lastTotals = text;
  }

  #totals(server: Server<Data>): Totals {
    const { lines, bytesIn, bytesOut, handlers, hookErrors, queued } = server.stats();
    return { lines, bytesIn, bytesOut, handlers, hookErrors: hookErrors + this.#admission.counters.hookErrors, queued };
  }

  #refresh(server: Server<Data>): void {
    const conns = Array.from(server.connections, (conn) => [conn.id, conn.stats()] as const);
    this.#batcher.add({ type: "refreshed", totals: this.#totals(server), conns });
  }

  async #reload(key: number, data: unknown): Promise<void> {
    try {
      await this.#service.reload?.(data);
      this.#batcher.add({ type: "reloaded", key });
    } catch (error) {
      this.#batcher.add({ type: "reloaded", key, error: packError(error) });
    }
  }

  #crash(event: Event, error: unknown): void {
    event.preventDefault();
    this.#fail(error);
  }

  /** The main isolate ends this worker when it reads this. Until then, others are to accept what connects. */
  #fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    for (const listener of this.#listeners) closeQuietly(listener);
    this.#batcher.add({ type: "failed", error: packError(error) });
    this.#batcher.flush();
  }
}

function checkService<Data>(service: WorkerService<Data>): void {
  checkOptions("what a worker serves", service);
  const { handler, conversation, wrap, reload } = service;
  for (const [name, value] of Object.entries({ handler, conversation, wrap, reload })) {
    checkFunction(name, value, true);
  }
  if (handler !== undefined && conversation !== undefined) {
    throw new TypeError("Cannot use handler with conversation: expected one of them");
  }
}

function listen({ hostname, port, fd }: Place, shared: boolean): Listener {
  if (fd !== undefined) return listenShared(fd);
  return shared ? listenBalanced({ hostname, port }) : listenTcp({ hostname, port });
}

function closeOne<Data>(conn: Conn<Data> | undefined, options: CloseOptions): void {
  try {
    conn?.close(options);
  } catch {
    // It has another encoding than the one for which the word was checked.
    conn?.close({ detail: options.detail });
  }
}

function find<Data>(server: Server<Data>, id: number | undefined) {
  if (id === undefined) return undefined;
  for (const conn of server.connections) if (conn.id === id) return conn;
}
