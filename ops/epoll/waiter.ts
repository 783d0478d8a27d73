/**
 * A thread that waits for the kernel's events, and wakes the event loop.
 *
 * @module
 */

import { checked } from "./errno.ts";
import { EPOLLIN, EPOLLONESHOT, FD_WORD, type Libc } from "./libc.ts";

/** Indexes of the numbers that both threads share: the thread's state, and how many times it has woken the event loop. */
const [STATE, WAKES] = [0, 1];
const [STARTING, WAITING, ENDING, ENDED, FAILED] = [0, 1, 2, 3, 4];

/** Maximum time in milliseconds to wait until the thread has started or ended: far more than a busy machine takes. */
const PATIENCE_MS = 10_000;

/**
 * Maximum time in milliseconds for which the thread waits while Deno exports telemetry: each export, and the end of the
 * process, wait until every isolate has run its event loop.
 */
const TELEMETRY_MS = 100;

/** Number of descriptors that have to be free before a worker is started: without them, Deno ends the process. */
const WORKER_DESCRIPTORS = 16;

/**
 * The thread's program. It is text, because a worker's file would need permission to be read or fetched, and would have
 * to be named when a program is compiled.
 *
 * The thread that polls may be terminated without running any code, if it is a worker. Then this thread closes the
 * descriptors that it polled, which the kernel lists in `/proc`.
 */
const PROGRAM = `onmessage = async ({ data: { cells, epoll, waited, alarm, owner } }) => {
  const set = (state) => {
    Atomics.store(cells, ${STATE}, state);
    Atomics.notify(cells, ${STATE});
  };
  let c;
  try {
    c = Deno.dlopen("libc.so.6", {
      epoll_wait: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },
      open: { parameters: ["buffer", "i32"], result: "i32" },
      read: { parameters: ["i32", "buffer", "u32"], result: "i32" },
      close: { parameters: ["i32"], result: "i32" },
    }).symbols;
  } catch {
    set(${FAILED});
    return close();
  }
  const event = new Int32Array(4);
  const eventBytes = new Uint8Array(event.buffer);
  const closePolled = () => {
    const file = c.open(new TextEncoder().encode("/proc/self/fdinfo/" + epoll + "\\0"), 0);
    const part = new Uint8Array(4096);
    let text = "";
    for (let n; (n = c.read(file, part, part.length)) > 0;) text += String.fromCharCode(...part.subarray(0, n));
    c.close(file);
    for (const [, fd] of text.matchAll(/^tfd:\\s*(\\d+)/gm)) c.close(Number(fd));
    c.close(epoll);
  };
  let most = -1;
  try {
    Deno.telemetry.meterProvider.getMeter("shouty");
    most = ${TELEMETRY_MS};
  } catch {
    // It throws while telemetry is off.
  }
  // If the other thread has given up waiting for the start, it has closed the descriptors.
  if (Atomics.compareExchange(cells, ${STATE}, ${STARTING}, ${WAITING}) !== ${STARTING}) return close();
  Atomics.notify(cells, ${STATE});
  let turnAt = performance.now() + most;
  while (Atomics.load(cells, ${STATE}) === ${WAITING}) {
    const count = c.epoll_wait(waited, eventBytes, 1, most);
    if (count === 1 && event[${FD_WORD}] === owner) {
      closePolled();
      break;
    }
    if (count !== 0) {
      Atomics.add(cells, ${WAKES}, 1);
      Atomics.notify(cells, ${WAKES});
    }
    if (most < 0 || performance.now() < turnAt) continue;
    await new Promise((resolve) => setTimeout(resolve, 0));
    turnAt = performance.now() + most;
  }
  for (const fd of [waited, alarm, owner]) c.close(fd);
  set(${ENDED});
  close();
};`;

/**
 * Waits in a separate worker: the threads that Deno shares among files, cryptography and foreign calls may all be busy.
 *
 * The worker sleeps in a second epoll, in which the poller's is registered for one event at a time; each call of
 * {@linkcode Waiter.wait} registers it again. The worker closes its descriptors itself when it ends.
 */
export class Waiter {
  readonly #libc: Libc;
  readonly #epoll: number;
  readonly #waited: number;
  readonly #alarm: number;
  /** A descriptor that is readable once the thread that polls has ended; negative where the kernel has no such. */
  readonly #owner: number;
  readonly #cells = new Int32Array(new SharedArrayBuffer(8));
  readonly #worker: Worker;

  /**
   * Starts the thread, and returns when it waits. That needs permission for foreign code.
   *
   * @param libc The C library.
   * @param epoll The poller's epoll, which the thread waits for; the caller closes it.
   * @throws {Error} If there are no descriptors left, or the thread cannot be started.
   */
  constructor(libc: Libc, epoll: number) {
    this.#libc = libc;
    this.#epoll = epoll;
    this.#waited = checked(libc.epollCreate());
    this.#alarm = libc.eventfd();
    this.#owner = libc.thisThread();
    try {
      checked(libc.epollAdd(this.#waited, checked(this.#alarm), EPOLLIN));
      checked(libc.epollAdd(this.#waited, epoll, 0));
      if (this.#owner >= 0) checked(libc.epollAdd(this.#waited, this.#owner, EPOLLIN));
      this.#checkDescriptors();
      this.#worker = this.#start();
    } catch (error) {
      for (const fd of [this.#waited, this.#alarm, this.#owner]) libc.close(fd);
      throw error;
    }
  }

  #checkDescriptors(): void {
    const spare = Array.from({ length: WORKER_DESCRIPTORS }, () => this.#libc.eventfd());
    for (const fd of spare) this.#libc.close(fd);
    for (const fd of spare) checked(fd);
  }

  #start(): Worker {
    const url = `data:text/javascript,${encodeURIComponent(PROGRAM)}`;
    const worker = new Worker(url, { type: "module", name: "epoll" });
    const [cells, epoll, waited, alarm, owner] = [this.#cells, this.#epoll, this.#waited, this.#alarm, this.#owner];
    worker.postMessage({ cells, epoll, waited, alarm, owner });
    // The thread has to load the library before the caller goes on, which may give the permission up then.
    Atomics.wait(this.#cells, STATE, STARTING, PATIENCE_MS);
    if (Atomics.compareExchange(this.#cells, STATE, STARTING, FAILED) === WAITING) return worker;
    worker.terminate();
    throw new Error("Cannot start a thread that waits for epoll");
  }

  /** Waits until the poller's epoll has events; may also return without any. One call may be outstanding. */
  wait(): Promise<unknown> | undefined {
    const before = Atomics.load(this.#cells, WAKES);
    this.#libc.epollAgain(this.#waited, this.#epoll, EPOLLIN | EPOLLONESHOT);
    const { async, value } = Atomics.waitAsync(this.#cells, WAKES, before);
    return async ? value : undefined;
  }

  /** Ends the thread, and returns when its descriptors are closed. */
  end(): void {
    Atomics.store(this.#cells, STATE, ENDING);
    this.#libc.eventfdWrite(this.#alarm);
    Atomics.wait(this.#cells, STATE, ENDING, PATIENCE_MS);
    this.#worker.terminate();
  }
}
