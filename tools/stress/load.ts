/**
 * Work that keeps the machine busy while the tests run.
 *
 * @module
 */

/** A process that computes without a pause. */
const BUSY_LOOP = "for (;;);";

/** A process that starts a child, waits for its end, and starts the next one. */
const STARTS_CHILDREN = `
  const child = new Deno.Command(Deno.execPath(), { args: ["--version"], stdout: "null", stderr: "null" });
  for (;;) await child.output();
`;

/** Two processes that compute, and one that starts children, until it is disposed of. */
export class Load implements AsyncDisposable {
  readonly #processes: Deno.ChildProcess[];

  constructor() {
    this.#processes = [BUSY_LOOP, BUSY_LOOP, STARTS_CHILDREN].map((code) =>
      new Deno.Command(Deno.execPath(), {
        args: [
          "run",
          "--no-config",
          "--allow-run",
          "--allow-read",
          "--allow-env",
          `data:text/javascript,${encodeURIComponent(code)}`,
        ],
        stdin: "null",
        stdout: "null",
        stderr: "null",
      }).spawn()
    );
  }

  /** The ids of the processes. */
  get pids(): number[] {
    return this.#processes.map(({ pid }) => pid);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const process of this.#processes) {
      try {
        process.kill("SIGKILL");
      } catch {
        // It has ended already.
      }
    }
    await Promise.all(this.#processes.map(({ status }) => status));
  }
}
