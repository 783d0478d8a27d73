/**
 * The server under stress: the command, in a separate process.
 *
 * @module
 */

import { PROXY_ADDRESS } from "./bad.ts";

/** Timeouts are short, so that a short run reaches all of them; rates and budgets are those of a public server. */
export const PUBLIC_FLAGS: readonly string[] = [
  ...["--idle-timeout", "2s", "--drain-timeout", "2s"],
  ...["--max-bytes-per-second", "256KiB", "--max-buffered-bytes", "16MiB", "--proxy-protocol", PROXY_ADDRESS],
];

/** What a process uses. */
export interface Footprint {
  /** Resident memory. */
  bytes: number;
  descriptors: number;
}

/** A running server. */
export class Victim implements AsyncDisposable {
  readonly port: number;
  readonly #child: Deno.ChildProcess;

  private constructor(child: Deno.ChildProcess, port: number) {
    this.#child = child;
    this.port = port;
  }

  /** Starts it on a port that was free a moment ago, and waits until it answers. */
  static async start(): Promise<Victim> {
    using probe = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = probe.addr;
    probe.close();
    const where = ["--hostname", "127.0.0.1", "--port", `${port}`, "--engine", "epoll", "--log-level", "warn"];
    const root = new URL("../../", import.meta.url);
    const args = ["run", "--allow-net", "--allow-ffi", "mod.ts", ...where, ...PUBLIC_FLAGS];
    const child = new Deno.Command(Deno.execPath(), { args, cwd: root, stdin: "null", stdout: "null", stderr: "null" });
    const victim = new Victim(child.spawn(), port);
    await victim.#answers();
    return victim;
  }

  /** What the process uses now, from `/proc`. */
  async footprint(): Promise<Footprint> {
    const status = await Deno.readTextFile(`/proc/${this.#child.pid}/status`);
    const descriptors = [...Deno.readDirSync(`/proc/${this.#child.pid}/fd`)].length;
    return { bytes: 1024 * Number(/^VmRSS:\s+(\d+)/m.exec(status)![1]), descriptors };
  }

  /** Stops the server, and waits for its end. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGTERM");
    } catch {
      // It has ended already.
    }
    await this.#child.status;
  }

  async #answers(): Promise<void> {
    for (let left = 200; left > 0; left--) {
      try {
        (await Deno.connect({ hostname: "127.0.0.1", port: this.port })).close();
        return;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
    await this[Symbol.asyncDispose]();
    throw new Error("The server does not start");
  }
}
