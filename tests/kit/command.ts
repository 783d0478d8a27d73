/** Runs the command as a subprocess, for the tests that use it as a user would. */

import { assertEquals, assertMatch } from "@std/assert";

const ROOT = `${import.meta.dirname}/../..`;
/** Maximum milliseconds to wait for a subprocess; far more than it needs, as the machine may be busy. */
const PATIENCE_MS = 60_000;

/** How a subprocess is started. */
export interface StartOptions {
  /** Its permissions; by default the network alone. */
  permissions?: string[];
  env?: Record<string, string>;
  /** Its working directory; by default the project's folder. */
  cwd?: string;
  /** The content of its stdin; without it, stdin stays open for `type`. */
  input?: string;
}

/** The result of a subprocess. */
export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs the command to its end. */
export async function runCommand(args: string[], options: StartOptions = {}): Promise<Outcome> {
  await using command = startCommand(args, { input: "", ...options });
  return await command.outcome();
}

/** Starts the command. */
export function startCommand(args: string[], options: StartOptions = {}): Subprocess {
  const { permissions = ["--allow-net"] } = options;
  return new Subprocess(Deno.execPath(), ["run", ...permissions, "mod.ts", ...args], options);
}

/** Runs the command to its end with a redirection of the shell, such as `>/dev/full`. */
export async function runRedirected(redirection: string, args: string[]): Promise<Outcome> {
  const command = ["-c", `exec "$0" "$@" ${redirection}`, Deno.execPath(), "run", "--allow-net", "mod.ts", ...args];
  await using process = new Subprocess("sh", command, { input: "" });
  return await process.outcome();
}

/** Starts the server on a free port of the loopback, and waits until it listens. */
export async function startServer(args: string[] = [], options: StartOptions = {}): Promise<ServerProcess> {
  return await listening(startCommand(["--hostname", "127.0.0.1", "--port", "0", ...args], options));
}

/** Waits until a server process, however it was started, listens on the loopback or on all addresses. */
export async function listening(server: Subprocess): Promise<ServerProcess> {
  const [, port] = await server.stderrMatch(/listening on (?:127\.0\.0\.1|0\.0\.0\.0):(\d+)/);
  return Object.assign(server, { hostname: "127.0.0.1", port: Number(port) });
}

/** Why this system skips tests that end a process with a signal, appended to their names; empty if it does not. */
export const NO_SIGNALS: string = Deno.build.os === "windows"
  ? " (skipped: on Windows, signals end a process unasked)"
  : "";

/** Registers a test that ends the command with a signal. */
export function signalTest(name: string, fn: () => Promise<void>): void {
  Deno.test({ name: name + NO_SIGNALS, ignore: NO_SIGNALS !== "", fn });
}

/** Checks that a server process, however it was started, shouts and, where there are signals, drains. */
export async function shoutAndDrain(command: Subprocess): Promise<void> {
  const server = await listening(command);
  assertEquals(await converse(server, "Hello.\r\nIs it you?"), "HELLO.\nIS IT YOU?\n");
  server.signal("SIGTERM");
  const { code, stderr } = await server.outcome();
  if (NO_SIGNALS) return;
  assertEquals(code, 0);
  assertMatch(stderr, /shutting down\n(.*\n)*.*all connections closed\n$/);
}

/**
 * Tests a server that signals end. A second signal soon after the first counts as the same one. If the log says that
 * the machine delivered it later than that, the test proves nothing about the server, and is tried again.
 */
export async function unlessLate(
  start: () => Subprocess | Promise<Subprocess>,
  attempt: (server: Subprocess) => Promise<void>,
): Promise<void> {
  for (let left = 9;; left--) {
    await using server = await start();
    try {
      return await attempt(server);
    } catch (error) {
      const late = /, (\d+) ms after the first signal/.exec(server.stdout + server.stderr);
      if (left === 0 || late === null || Number(late[1]) < 300) throw error;
    }
  }
}

/** The address of a server. */
export interface Address {
  hostname: string;
  port: number;
}

/** A server process that listens. */
export type ServerProcess = Subprocess & Address;

/** Whether util-linux's `script` is installed, which gives a subprocess a terminal. */
export const HAS_SCRIPT: boolean = await isUtilLinux("script");

/** Starts `deno` in a terminal, where stdout and stderr are one stream. No shell remains that Ctrl-C would end. */
export function startInTerminal(args: string[], env: Record<string, string> = {}): Subprocess {
  const line = `exec ${[Deno.execPath(), ...args].map((word) => `'${word}'`).join(" ")}`;
  return new Subprocess("script", ["--quiet", "--return", "--command", line, "/dev/null"], {
    env: { SHELL: "/bin/sh", ...env },
  });
}

/** Whether a program is installed, and is that of util-linux. */
export async function isUtilLinux(program: string): Promise<boolean> {
  try {
    const { stdout } = await new Deno.Command(program, { args: ["--version"], stderr: "null" }).output();
    return new TextDecoder().decode(stdout).includes("util-linux");
  } catch {
    return false;
  }
}

/** A process that a test observes while it runs, and that does not outlive the test. */
export class Subprocess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #stdout: Output;
  readonly #stderr: Output;
  readonly #stdin: WritableStreamDefaultWriter<Uint8Array>;
  #ended = false;

  constructor(program: string, args: string[], { env = {}, cwd = ROOT, input }: StartOptions = {}) {
    const piped = { stdin: "piped", stdout: "piped", stderr: "piped" } as const;
    this.#child = new Deno.Command(program, { args, cwd, env: { NO_COLOR: "1", ...env }, ...piped }).spawn();
    this.#stdout = new Output(this.#child.stdout);
    this.#stderr = new Output(this.#child.stderr);
    this.#stdin = this.#child.stdin.getWriter();
    this.#child.status.then(() => this.#ended = true);
    if (input !== undefined) this.type(input).then(() => this.endInput());
  }

  get pid(): number {
    return this.#child.pid;
  }

  get stdout(): string {
    return this.#stdout.text;
  }

  get stderr(): string {
    return this.#stderr.text;
  }

  /** Waits until this has been written to stdout. */
  stdoutMatch(pattern: RegExp): Promise<RegExpExecArray> {
    return this.#stdout.match(pattern);
  }

  /** Waits until this has been written to stderr. */
  stderrMatch(pattern: RegExp): Promise<RegExpExecArray> {
    return this.#stderr.match(pattern);
  }

  /** Stops reading stderr, so that the pipe fills up. */
  stopReadingStderr(): void {
    this.#stderr.stop();
  }

  closeStdout(): Promise<void> {
    return this.#stdout.close();
  }

  closeStderr(): Promise<void> {
    return this.#stderr.close();
  }

  /** Writes to stdin; it is no error if the process no longer reads it. */
  async type(text: string): Promise<void> {
    await this.#stdin.write(new TextEncoder().encode(text)).catch(() => {});
  }

  async endInput(): Promise<void> {
    await this.#stdin.close().catch(() => {});
  }

  signal(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  /** Waits for the end of the process, but not for that of its outputs. */
  async exitCode(): Promise<number> {
    return (await within("the process to end", this.#child.status)).code;
  }

  /** Waits for the end of the process and its outputs. */
  async outcome(): Promise<Outcome> {
    const code = await this.exitCode();
    await Promise.all([this.#stdout.ended, this.#stderr.ended]);
    return { code, stdout: this.#stdout.text, stderr: this.#stderr.text };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#ended) this.signal("SIGKILL");
    await this.#child.status;
    await this.endInput();
    await Promise.all([this.#stdout.close(), this.#stderr.close()]);
  }
}

/** Collects what a process writes to one of its outputs. */
class Output {
  text = "";
  readonly ended: Promise<void>;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #stopped = false;
  #news = Promise.withResolvers<void>();

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#reader = stream.getReader();
    this.ended = this.#read();
  }

  async match(pattern: RegExp): Promise<RegExpExecArray> {
    const found = async () => {
      for (;;) {
        const match = pattern.exec(this.text);
        if (match !== null) return match;
        if (this.#stopped) throw new Error(`${pattern} did not come, but:\n${this.text}`);
        await this.#news.promise;
      }
    };
    return await within(`${pattern}`, found(), () => this.text);
  }

  stop(): void {
    this.#stopped = true;
  }

  async close(): Promise<void> {
    this.stop();
    await this.#reader.cancel();
    await this.ended;
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    while (!this.#stopped) {
      const { value, done } = await this.#reader.read();
      if (done) this.stop();
      this.text += decoder.decode(value, { stream: !done });
      this.#news.resolve();
      this.#news = Promise.withResolvers();
    }
  }
}

/** Rejects if a test would hang, and says what it was waiting for. */
async function within<T>(what: string, promise: Promise<T>, seen = () => ""): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`Waited in vain for ${what}\n${seen()}`)), PATIENCE_MS);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Sends text, ends the client's side, and returns everything that comes back. */
export async function converse({ hostname, port }: Address, text: string): Promise<string> {
  const conn = await Deno.connect({ hostname, port });
  await conn.write(new TextEncoder().encode(text));
  await conn.closeWrite();
  return await within(`the answer to ${text}`, new Response(conn.readable).text());
}

/** Sends text, and returns what comes back first. */
export async function ask(conn: Deno.TcpConn, text: string): Promise<string> {
  await conn.write(new TextEncoder().encode(text));
  const buffer = new Uint8Array(1024);
  const count = await within(`the answer to ${text}`, conn.read(buffer));
  return new TextDecoder().decode(buffer.subarray(0, count ?? 0));
}
