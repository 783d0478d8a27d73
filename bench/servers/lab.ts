// Builds and starts servers and the load generator on pinned cores, and measures their processes.

import { atInterrupt, delay, isThere, lastLines, output, ROOT, versionOf } from "./process.ts";
import { needsTls, onUnixSocket, wayTo, writeFiles } from "./secure_servers.ts";
import type { ServerSpec } from "./servers.ts";

const START_DEADLINE_MS = 30_000;
const STOP_DEADLINE_MS = 5_000;
const POLL_MS = 10;

/** The load generator's result line. */
export interface LoadResult {
  /** Lines, connections or bytes per second. */
  rate: number;
  count: number;
  /** The count with the warm-up in it. */
  total: number;
  p50_us: number;
  p99_us: number;
  max_us: number;
  /** Connections lost. */
  errors: number;
  /** The load's own share of its core, from 0 to 1. */
  cpu: number;
  /** TLS handshakes that resumed a session. */
  resumed: number;
}

/** A started server. */
export interface Running {
  pid: number;
  port: number;
  /** Whether it and the load may use all cores. */
  allCores: boolean;
  /** The load generator's options for it. */
  way: string[];
  /** The load generator's executable for it. */
  load: string;
  /** The file with what the server has printed on stdout. */
  printed: string;
  stop(): Promise<void>;
}

/** Connections that are held open. */
export interface Held {
  /** Closes them. */
  release(): Promise<void>;
}

/** Reads `0-2,5` as `[0, 1, 2, 5]`. */
function parseCores(list: string): number[] {
  return list.trim().split(",").flatMap((range) => {
    const [first, last = first] = range.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

/** Returns the cores that this process may use, as `taskset` takes them. */
async function allowedCores(): Promise<string> {
  const status = await Deno.readTextFile("/proc/self/status");
  return status.match(/^Cpus_allowed_list:\s*(.*)$/m)?.[1] ?? "0";
}

/** Chooses two cores that this process may use; two threads of one core only if there is no other. */
async function chooseCores(): Promise<{ server: number; load: number } | null> {
  if (await versionOf(["taskset", "--version"]) === null) return null;
  const [server, ...others] = parseCores(await allowedCores());
  if (others.length === 0) return null;
  const topology = `/sys/devices/system/cpu/cpu${server}/topology/thread_siblings_list`;
  const siblings = parseCores(await Deno.readTextFile(topology).catch(() => ""));
  return { server, load: others.find((core) => !siblings.includes(core)) ?? others[0] };
}

/** A temporary folder, and every process that the bench has started. */
export class Lab {
  readonly cores: { server: number; load: number } | null;
  readonly #dir: string;
  readonly #root: string;
  readonly #started = new Set<Running>();
  readonly #byName = new Map<string, Running>();
  readonly #forget: () => void = atInterrupt(() => this.close());
  #logs = 0;
  /** Why there is no load generator that speaks TLS; `null` if there is one. */
  #withoutTls: string | null = null;
  #closing = false;

  private constructor(dir: string, root: string, cores: { server: number; load: number } | null) {
    this.#dir = dir;
    this.#root = root;
    this.cores = cores;
  }

  /**
   * Creates the folder, and compiles the load generator into it.
   *
   * @param root The folder of the project whose servers it starts; another revision's, to compare with.
   */
  static async open(root: string = ROOT): Promise<Lab> {
    if (await versionOf(["cc", "--version"]) === null) throw new Error("The load generator needs a C compiler (cc)");
    const lab = new Lab(await Deno.makeTempDir({ prefix: "shouty-bench-" }), root, await chooseCores());
    try {
      await lab.#compile();
      await writeFiles(lab.#dir);
    } catch (error) {
      await lab.close();
      throw error;
    }
    return lab;
  }

  async #compile(): Promise<void> {
    const [program, source] = [`${this.#dir}/load`, `${ROOT}bench/load/load.c`];
    await output(["cc", "-O2", "-o", program, source]);
    try {
      await output(["cc", "-O2", "-DTLS", "-o", `${program}-tls`, source, "-lssl", "-lcrypto"]);
    } catch (error) {
      this.#withoutTls = `the load generator has no TLS, which needs the headers of OpenSSL: ${error}`;
    }
  }

  /** Builds a server's executable. Returns why it cannot take part, or `null`. */
  async prepare(spec: ServerSpec): Promise<string | null> {
    if (!await isThere(this.#root + spec.source)) return `${spec.source} is not there`;
    if (await versionOf(spec.tool) === null) return `${spec.tool[0]} is not installed`;
    if (needsTls(spec.protocol) && this.#withoutTls !== null) return this.#withoutTls;
    if (spec.protocol === "redis" && await versionOf(["redis-benchmark", "--version"]) === null) {
      return "redis-benchmark is not installed";
    }
    if (spec.build) await output(spec.build(this.#root + spec.source, `${this.#dir}/${spec.name}`));
    return null;
  }

  #pin(core: "server" | "load", command: string[]): string[] {
    return this.cores ? ["taskset", "-c", String(this.cores[core]), ...command] : command;
  }

  /** Keeps this process, and those that it starts meanwhile, on the load's core: it is the load itself. */
  async onLoadCore<T>(use: () => Promise<T>): Promise<T> {
    if (!this.cores) return await use();
    const before = await allowedCores();
    const pin = (cores: string) => output(["taskset", "--all-tasks", "--cpu-list", "--pid", cores, String(Deno.pid)]);
    await pin(String(this.cores.load));
    try {
      return await use();
    } finally {
      await pin(before);
    }
  }

  /**
   * Starts a server for the caller alone, and waits until it listens.
   *
   * @param env Environment variables, besides `NO_COLOR`.
   */
  async start(spec: ServerSpec, roomy: boolean, env: Record<string, string> = {}): Promise<Running> {
    if (this.#closing) throw new Error("The lab is closing");
    const out = `${this.#dir}/${spec.name}`;
    const log = `${out}-${this.#logs++}.log`;
    const allCores = spec.allCores === true;
    const plain = spec.command(this.#root + spec.source, out, roomy, this.#dir);
    const command = allCores ? plain : this.#pin("server", plain);
    // The shell gives the server plain files to log to: with a pipe, this process would have to keep up with it.
    const child = new Deno.Command("sh", {
      args: ["-c", 'exec "$@" 2>"$0" >"$0.out"', log, ...command],
      cwd: this.#root,
      env: { NO_COLOR: "1", ...env }, // the report may show the server's last lines
      stdin: "null",
    }).spawn();
    const load = `${this.#dir}/load${needsTls(spec.protocol) ? "-tls" : ""}`;
    const running = {
      pid: child.pid,
      port: 0,
      allCores,
      way: [] as string[],
      load,
      printed: `${log}.out`,
      ended: false,
      stop: () => stopChild(child, running),
    };
    child.status.then(() => {
      running.ended = true;
      this.#started.delete(running);
    });
    this.#started.add(running);
    running.port = await portOf(spec.name, log, running, onUnixSocket(spec.protocol));
    running.way = wayTo(spec.protocol, running.port, `${out}.sock`, this.#dir);
    return running;
  }

  /** The server of that name that runs during all rounds; starts it at the first call. */
  async shared(spec: ServerSpec): Promise<Running> {
    const known = this.#byName.get(spec.name);
    if (known && this.#started.has(known)) return known;
    const running = await this.start(spec, false);
    this.#byName.set(spec.name, running);
    return running;
  }

  /** Runs `redis-benchmark` against a server; returns the rate. */
  async loadRedis(server: Running, test: "get" | "set", requests: number, pipeline: number): Promise<number> {
    const options = ["-t", test, "-n", String(requests), "-P", String(pipeline), "-c", "50", "-d", "16", "--csv"];
    const text = await output(this.#pin("load", ["redis-benchmark", "-p", String(server.port), ...options]));
    const rate = Number(/^"\w+","([\d.]+)"/m.exec(text)?.[1]);
    if (!(rate > 0)) throw new Error(`redis-benchmark says ${text}`);
    return rate;
  }

  /** Runs the load generator once. */
  async load(server: Running, mode: string, options: Record<string, number>): Promise<LoadResult> {
    const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, `${value}`]);
    const command = [server.load, mode, ...server.way, ...args];
    const text = await output(server.allCores ? command : this.#pin("load", command));
    return JSON.parse(text);
  }

  /** Opens `clients` connections, one exchange on each, and holds them. */
  async hold(server: Running, clients: number): Promise<Held> {
    const [program, ...args] = this.#pin("load", [
      ...[server.load, "idle", ...server.way, "--clients", `${clients}`],
    ]);
    const child = new Deno.Command(program, { args, stdin: "piped", stdout: "piped", stderr: "piped" }).spawn();
    const errors = new Response(child.stderr).text();
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    const first = await reader.read();
    if (first.done) throw new Error(`load failed: ${lastLines(await errors)}`);
    return {
      release: async () => {
        await child.stdin.close();
        let text = "";
        for (let part = await reader.read(); !part.done; part = await reader.read()) text += part.value;
        const { code } = await child.status;
        if (code !== 0) throw new Error(`load failed: ${lastLines(await errors)}`);
        const result: LoadResult = JSON.parse(text);
        if (result.errors > 0) throw new Error(`${result.errors} held connections were lost`);
      },
    };
  }

  /** Ends every server that this lab has started. */
  async stopAll(): Promise<void> {
    await Promise.all([...this.#started].map((running) => running.stop()));
  }

  /** Ends every server, and removes the folder. */
  async close(): Promise<void> {
    this.#closing = true; // otherwise an interrupted round would start the next server
    this.#forget();
    await this.stopAll();
    await Deno.remove(this.#dir, { recursive: true });
  }
}

async function stopChild(child: Deno.ChildProcess, running: { readonly ended: boolean }): Promise<void> {
  if (!running.ended) child.kill("SIGTERM");
  const timer = setTimeout(() => running.ended || child.kill("SIGKILL"), STOP_DEADLINE_MS);
  await child.status;
  clearTimeout(timer);
}

/**
 * Waits until a server's log tells its port, or that it listens on its Unix socket, which is port 0; stops the server
 * and throws if that takes too long.
 */
async function portOf(
  name: string,
  log: string,
  server: { readonly ended: boolean; stop(): Promise<void> },
  unix: boolean,
): Promise<number> {
  for (const deadline = Date.now() + START_DEADLINE_MS;;) {
    const text = await Deno.readTextFile(log).catch(() => "");
    const port = Number(text.match(/listening on \S*:(\d+)/)?.[1] ?? 0);
    if (port !== 0 || (unix && text.includes("listening on "))) return port;
    if (server.ended || Date.now() > deadline) {
      const what = server.ended ? "ended" : "did not listen";
      await server.stop();
      throw new Error(`${name} ${what}: ${lastLines(text)}`);
    }
    await delay(POLL_MS);
  }
}
