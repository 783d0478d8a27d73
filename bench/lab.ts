// Builds and starts servers and the load generator on pinned cores, and measures their processes.

import type { ServerSpec } from "./servers.ts";

const ROOT = new URL("..", import.meta.url).pathname;
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
}

/** A started server. */
export interface Running {
  pid: number;
  port: number;
  /** Whether it and the load may use all cores. */
  allCores: boolean;
  stop(): Promise<void>;
}

/** Connections that are held open. */
export interface Held {
  /** Closes them. */
  release(): Promise<void>;
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function lastLines(text: string): string {
  return text.trimEnd().split("\n").slice(-3).join(" / ") || "no output";
}

/** Runs a program to its end and returns its output; throws with the last lines of its errors if it fails. */
export async function output([program, ...args]: string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(program, { args, cwd: ROOT, stdin: "null" }).output();
  const decoder = new TextDecoder();
  if (code !== 0) throw new Error(`${program} failed (${code}): ${lastLines(decoder.decode(stderr))}`);
  return decoder.decode(stdout);
}

/** The first line of a tool's version, or `null` if the tool is not there. */
export async function versionOf(tool: string[]): Promise<string | null> {
  try {
    const version = (await output(tool)).split("\n")[0];
    // Without Node.js, Deno runs "node" as itself, which would measure Deno again.
    return version.startsWith("deno ") && tool[0] !== Deno.execPath() ? null : version;
  } catch {
    return null;
  }
}

/** Reads `0-2,5` as `[0, 1, 2, 5]`. */
function parseCores(list: string): number[] {
  return list.trim().split(",").flatMap((range) => {
    const [first, last = first] = range.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

/** Chooses two cores that this process may use; two threads of one core only if there is no other. */
async function chooseCores(): Promise<{ server: number; load: number } | null> {
  if (await versionOf(["taskset", "--version"]) === null) return null;
  const status = await Deno.readTextFile("/proc/self/status");
  const [server, ...others] = parseCores(status.match(/^Cpus_allowed_list:\s*(.*)$/m)?.[1] ?? "0");
  if (others.length === 0) return null;
  const topology = `/sys/devices/system/cpu/cpu${server}/topology/thread_siblings_list`;
  const siblings = parseCores(await Deno.readTextFile(topology).catch(() => ""));
  return { server, load: others.find((core) => !siblings.includes(core)) ?? others[0] };
}

/** A temporary folder, and every process that the bench has started. */
export class Lab {
  readonly cores: { server: number; load: number } | null;
  readonly #dir: string;
  readonly #started = new Set<Running>();
  readonly #byName = new Map<string, Running>();
  #logs = 0;
  #closing = false;

  private constructor(dir: string, cores: { server: number; load: number } | null) {
    this.#dir = dir;
    this.cores = cores;
  }

  /** Creates the folder, and compiles the load generator into it. */
  static async open(): Promise<Lab> {
    if (await versionOf(["cc", "--version"]) === null) throw new Error("The load generator needs a C compiler (cc)");
    const lab = new Lab(await Deno.makeTempDir({ prefix: "shouty-bench-" }), await chooseCores());
    try {
      await output(["cc", "-O2", "-o", `${lab.#dir}/load`, `${ROOT}bench/load.c`]);
    } catch (error) {
      await lab.close();
      throw error;
    }
    return lab;
  }

  /** Builds a server's executable. Returns why it cannot take part, or `null`. */
  async prepare(spec: ServerSpec): Promise<string | null> {
    try {
      await Deno.stat(ROOT + spec.source);
    } catch {
      return `${spec.source} is not there`;
    }
    if (await versionOf(spec.tool) === null) return `${spec.tool[0]} is not installed`;
    if (spec.build) await output(spec.build(ROOT + spec.source, `${this.#dir}/${spec.name}`));
    return null;
  }

  #pin(core: "server" | "load", command: string[]): string[] {
    return this.cores ? ["taskset", "-c", String(this.cores[core]), ...command] : command;
  }

  /** Starts a server for the caller alone, and waits until it listens. */
  async start(spec: ServerSpec, roomy: boolean): Promise<Running> {
    if (this.#closing) throw new Error("The lab is closing");
    const log = `${this.#dir}/${spec.name}-${this.#logs++}.log`;
    const plain = spec.command(ROOT + spec.source, `${this.#dir}/${spec.name}`, roomy);
    const allCores = spec.allCores === true;
    const command = allCores ? plain : this.#pin("server", plain);
    // The shell gives the server a plain file to log to: with a pipe, this process would have to keep up with it.
    const child = new Deno.Command("sh", {
      args: ["-c", 'exec "$@" 2>"$0"', log, ...command],
      cwd: ROOT,
      env: { NO_COLOR: "1" }, // the report may show the server's last lines
      stdin: "null",
      stdout: "null",
    }).spawn();
    const running = { pid: child.pid, port: 0, allCores, ended: false, stop: () => stopChild(child, running) };
    child.status.then(() => {
      running.ended = true;
      this.#started.delete(running);
    });
    this.#started.add(running);
    running.port = await portOf(spec.name, log, running);
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
    const args = Object.entries({ port: server.port, ...options }).flatMap((
      [name, value],
    ) => [`--${name}`, `${value}`]);
    const command = [`${this.#dir}/load`, mode, ...args];
    const text = await output(server.allCores ? command : this.#pin("load", command));
    return JSON.parse(text);
  }

  /** Opens `clients` connections, one exchange on each, and holds them. */
  async hold(server: Running, clients: number): Promise<Held> {
    const [program, ...args] = this.#pin("load", [
      ...[`${this.#dir}/load`, "idle"],
      ...["--port", `${server.port}`, "--clients", `${clients}`],
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

  /** Ends every server that this lab has started, and removes its folder. */
  async close(): Promise<void> {
    this.#closing = true; // otherwise an interrupted round would start the next server
    await Promise.all([...this.#started].map((running) => running.stop()));
    await Deno.remove(this.#dir, { recursive: true });
  }
}

async function stopChild(child: Deno.ChildProcess, running: { readonly ended: boolean }): Promise<void> {
  if (!running.ended) child.kill("SIGTERM");
  const timer = setTimeout(() => running.ended || child.kill("SIGKILL"), STOP_DEADLINE_MS);
  await child.status;
  clearTimeout(timer);
}

/** Waits until a server's log tells its port; stops the server and throws if that takes too long. */
async function portOf(name: string, log: string, server: { readonly ended: boolean; stop(): Promise<void> }) {
  for (const deadline = Date.now() + START_DEADLINE_MS;;) {
    const text = await Deno.readTextFile(log).catch(() => "");
    const port = Number(text.match(/listening on \S*:(\d+)/)?.[1] ?? 0);
    if (port !== 0) return port;
    if (server.ended || Date.now() > deadline) {
      const what = server.ended ? "ended" : "did not listen";
      await server.stop();
      throw new Error(`${name} ${what}: ${lastLines(text)}`);
    }
    await delay(POLL_MS);
  }
}

/** Resident memory of a process, in bytes. */
async function residentBytes(pid: number): Promise<number> {
  const text = await Deno.readTextFile(`/proc/${pid}/smaps_rollup`);
  return Number(text.match(/^Rss:\s+(\d+) kB/m)?.[1]) * 1024;
}

/** Resident memory once four readings in a row, a quarter of a second apart, differ by less than 1 %. */
export async function settledBytes(pid: number): Promise<number> {
  const readings: number[] = [];
  for (const deadline = Date.now() + 10_000; Date.now() < deadline; await delay(250)) {
    readings.push(await residentBytes(pid));
    const last = readings.slice(-4);
    if (last.length === 4 && Math.max(...last) < Math.min(...last) * 1.01) break;
  }
  return readings[readings.length - 1];
}

/** Processor time that a process has used, in seconds, all its threads together. */
export async function cpuSeconds(pid: number): Promise<number> {
  const stat = await Deno.readTextFile(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" "); // the name before it may hold spaces
  return (Number(fields[11]) + Number(fields[12])) / 100; // USER_HZ is 100 on every Linux that Deno runs on
}

/** Maximum number of descriptors of a process. */
export async function maxFiles(): Promise<number> {
  const limits = await Deno.readTextFile("/proc/self/limits");
  return Number(limits.match(/^Max open files\s+\S+\s+(\d+)/m)?.[1] ?? 1024);
}
