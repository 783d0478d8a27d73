/**
 * Restarting with a new version of the program: at SIGUSR2, a new process gets the listening sockets, and this one ends
 * its connections once the new one is ready.
 *
 * @module
 */

import { formatAddr } from "../../internal/api/transport.ts";
import type { FdListener } from "../../ops/sockets/fd_listener.ts";
import { CommandError, reasonOf } from "../system/errors.ts";
import type { SERVE } from "../flags/flags.ts";
import type { Bound } from "../serve/listen.ts";
import type { Log } from "../log/log.ts";
import type { Values } from "../line/parse.ts";
import { print } from "../system/print.ts";
import { canShare, type LeavingServer, release, serveAccepted } from "./leaving.ts";
import { argsFor, type CommandLine } from "./program.ts";
import type { Notifier } from "./systemd.ts";

/** What the new process writes to its stdout once it listens: a pipe, which the old process reads. */
const READY = "READY=1\n";

/** Variables that are about the old process; set to empty for the new process, which treats them as unset. */
const NOT_ITS_OWN = { LISTEN_PID: "", LISTEN_FDS: "", LISTEN_FDNAMES: "", WATCHDOG_PID: "" };

/**
 * Maximum number of checks whether the connections that were accepted before the new process took over are prepared and
 * served; together they take ten seconds.
 */
const QUEUED_CHECKS = 500;

/** Maximum time in milliseconds that a new process which is told to end may take, before it is killed. */
const ENDING_MS = 5000;

/** What an upgrade uses. */
export interface UpgradeParts {
  readonly flags: Pick<Values<typeof SERVE.flags>, "upgrade" | "upgradeTimeout">;
  /** The command line without the command's arguments; undefined without `--upgrade`. */
  readonly program: CommandLine | undefined;
  /** The listening sockets. */
  readonly bound: readonly Bound[];
  readonly server: LeavingServer;
  readonly notifier: Notifier;
  /** Called when another process has taken over: it frees what that process opens then. */
  readonly handedOver: () => unknown;
  /** Aborted when the server is to stop. */
  readonly stop: AbortSignal;
  readonly log: Log;
}

/** Tells the process that has started this one that it is ready; does nothing if that was no upgrade. */
export async function tellParent({ upgrade }: UpgradeParts["flags"]): Promise<void> {
  if (upgrade !== "child") return;
  try {
    await print(new TextEncoder().encode(READY));
  } catch {
    // The old process is gone, so there is nothing to take over from it.
  }
}

/** Answers SIGUSR2. */
export class Upgrade {
  readonly #parts: UpgradeParts;
  #running = false;
  /** Settles when the last one is over, either way. */
  #over = Promise.resolve();

  constructor(parts: UpgradeParts) {
    this.#parts = parts;
  }

  /** Settles when no new process is being started, or ended, any more. */
  get over(): Promise<void> {
    return this.#over;
  }

  /** Starts a new process, and stops this one's server if the new one is ready in time. */
  run(): void {
    const reason = this.#reasonAgainst();
    if (reason === undefined) this.#over = this.#run();
    else {
      const fields = () => ({ signal: "SIGUSR2" });
      this.#parts.log.write("warn", "ignored-signal", () => `ignored SIGUSR2: ${reason}`, fields);
    }
  }

  async #run(): Promise<void> {
    const { log, notifier } = this.#parts;
    this.#running = true;
    let child: Deno.ChildProcess | undefined;
    try {
      child = this.#start();
      const { pid } = child;
      const fields = () => ({ pid });
      log.write("info", "upgrade-begun", () => `started process ${pid} to take over`, fields);
      await this.#untilReady(child);
      log.write("info", "upgraded", () => `process ${pid} has taken over`, fields);
      notifier.handOver(pid);
      this.#parts.handedOver();
    } catch (error) {
      this.#logFailure(reasonOf(error));
      if (child !== undefined) await end(child);
      this.#running = false;
      return;
    }
    await this.#leave();
  }

  #logFailure(error: string): void {
    const { log, stop } = this.#parts;
    const [level, text] = stop.aborted ? ["info", "gave the upgrade up"] as const : ["error", "kept running"] as const;
    log.write(level, "upgrade-failed", () => `${text}: ${error}`, () => ({ error }));
  }

  #reasonAgainst(): string | undefined {
    const { program, bound, stop, server } = this.#parts;
    if (program === undefined) return "--upgrade is off";
    if (stop.aborted || server.state !== "listening") return "shutting down";
    if (this.#running) return "another process is taking over already";
    // Whatever waits for process 1, such as a container, ends with it.
    if (Deno.pid === 1) return "the end of process 1 would be that of its container";
    const kept = bound.find(({ listener }) => !canShare(listener));
    if (kept === undefined) return undefined;
    return `cannot hand on ${formatAddr(kept.listener.addr)}: that takes --engine epoll or --listen-fd`;
  }

  #start(): Deno.ChildProcess {
    const [program, ...first] = this.#parts.program!;
    const shared = this.#parts.bound.map(({ listener, tls }) => ({ listener: listener as FdListener, tls }));
    const args = [...first, ...argsFor(Deno.args, shared.map(({ listener, tls }) => ({ fd: listener.fd, tls })))];
    for (const { listener } of shared) listener.inherit(true);
    try {
      const streams = { stdin: "null", stdout: "piped", stderr: "inherit" } as const;
      return new Deno.Command(program, { args, env: NOT_ITS_OWN, ...streams }).spawn();
    } catch (error) {
      const why = error instanceof Deno.errors.NotFound ? "no such file or directory" : reasonOf(error);
      throw new CommandError(`cannot start ${program}: ${why}`, 1);
    } finally {
      for (const { listener } of shared) listener.inherit(false);
    }
  }

  /** Waits until the new process says that it is ready; rejects if it will not. */
  async #untilReady(child: Deno.ChildProcess): Promise<void> {
    const { flags: { upgradeTimeout }, stop } = this.#parts;
    const failure = Promise.withResolvers<never>();
    const fail = (why: string) => failure.reject(new CommandError(`the new process ${why}`, 1));
    const stopped = () => fail("was not ready yet, and this one is to stop");
    const timer = setTimeout(() => fail(`was not ready within ${upgradeTimeout / 1000} s`), upgradeTimeout);
    child.status.then(({ code }) => fail(`ended with exit code ${code} before it was ready`));
    stop.addEventListener("abort", stopped);
    try {
      await Promise.race([failure.promise, saysReady(child.stdout)]);
    } finally {
      clearTimeout(timer);
      stop.removeEventListener("abort", stopped);
    }
  }

  /** Serves what this process has accepted, and then drains. */
  async #leave(): Promise<void> {
    const { bound, server } = this.#parts;
    await release(bound);
    await serveAccepted(server, QUEUED_CHECKS);
    // Nothing sends clients here any more, so there is nothing to delay the drain for.
    await server.shutdown({ delay: 0 });
  }
}

/** Settles when the new process has said that it is ready; never, if it does not. */
async function saysReady(stdout: ReadableStream<Uint8Array>): Promise<void> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stdout) {
    text = (text + decoder.decode(chunk, { stream: true })).slice(-READY.length);
    if (text === READY) return;
  }
  await new Promise(() => {});
}

/** Ends a process that has not become ready. It may be at work already: it gets time to end its connections. */
async function end(child: Deno.ChildProcess): Promise<void> {
  const kill = (signal: Deno.Signal) => {
    try {
      child.kill(signal);
    } catch {
      // It has ended.
    }
  };
  kill("SIGTERM");
  const timer = setTimeout(() => kill("SIGKILL"), ENDING_MS);
  await child.status;
  clearTimeout(timer);
}
