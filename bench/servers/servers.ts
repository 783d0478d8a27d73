// The servers to measure: shouty with each kind of handler, and its peers.

/** What a server speaks, if not lines in upper case over TCP. */
export type Protocol = "redis" | "unix" | "riot" | "tls" | "tls-proxy" | "tls-unix" | "tls-client" | "starttls";

/** One server: how it is built, and how it is started on a free port. */
export interface ServerSpec {
  /** The name for `--peer` and in the table. */
  name: string;
  /** What it is, for the legend. */
  title: string;
  /** The command that prints the version of the program that the server needs. */
  tool: string[];
  /** What it speaks; lines in upper case by default. */
  protocol?: Protocol;
  /** Whether it and the load may use all cores, for the cases about that; other servers have one core, and the load another. */
  allCores?: true;
  /** The server's source file, below the project's root. */
  source: string;
  /** The command that builds the executable `out`. */
  build?(source: string, out: string): string[];
  /**
   * The command that starts it. `roomy` raises the limits that the cases with 10 000 connections would run into. `out`
   * is also where it makes its Unix socket, with `.sock` behind it; `files` is the folder of {@linkcode writeFiles}.
   */
  command(source: string, out: string, roomy: boolean, files: string): string[];
}

// Long enough for any case, short enough to end a forgotten server's connections.
export const ROOMY_MS = "600000";
const ROOMY_FLAGS = ["--max-connections", "20000", "--idle-timeout", "10m"];
export const DENO: string = Deno.execPath();

const GO: ServerSpec = {
  name: "go",
  title: "the article's server in Go",
  tool: ["go", "version"],
  source: "bench/peers/article.go",
  build: (source, out) => ["go", "build", "-o", out, source],
  command: (_, out, roomy) => [out, "0", ...(roomy ? [ROOMY_MS] : [])],
};

/** Every server, in the order of the table. */
export const SERVERS: ServerSpec[] = [
  command("shouty", "shouty, line handler: the command with --engine epoll", ["--allow-ffi"], ["--engine", "epoll"]),
  command("deno", "the same on Deno's sockets: the command with its default flags", []),
  library("lines", "shouty, conversation handler: conn.lines", "lines", "deno"),
  library("lines-epoll", "the same on epoll", "lines", "epoll"),
  library("handler", "shouty, a line handler that is not shout, with lines kept apart, on epoll", "handler", "epoll"),
  library("handler-deno", "the same on Deno's sockets", "handler", "deno"),
  script(
    "streams",
    "shouty, conversation handler: lineStream(conn.readable) piped to conn.writable",
    "examples/streams.ts",
  ),
  GO,
  {
    name: "c",
    title: "bare epoll in C: no lines, no limits, no timeouts",
    tool: ["cc", "--version"],
    source: "bench/peers/epoll.c",
    build: (source, out) => ["cc", "-O2", "-o", out, source],
    command: (_, out) => [out, "0"],
  },
  {
    name: "node",
    title: "Node.js net",
    tool: ["node", "--version"],
    source: "bench/peers/node.mjs",
    command: (source, _, roomy) => ["node", source, "0", ...(roomy ? [ROOMY_MS] : [])],
  },
  {
    name: "bun",
    title: "Bun.listen",
    tool: ["bun", "--version"],
    source: "bench/peers/bun.ts",
    command: (source, _, roomy) => ["bun", source, "0", ...(roomy ? [ROOMY_MS] : [])],
  },
  script("naive", "Deno web streams, written naively", "bench/peers/naive.ts"),
  script("raw", "lines by hand on Deno.listen: no limits, no timeouts", "bench/peers/raw.ts"),
  redis("redis", "examples/redis.ts on epoll", "bench/peers/redis/redis_epoll.ts", "--allow-ffi"),
  redis("redis-deno", "examples/redis.ts on Deno's sockets", "examples/redis.ts"),
  {
    name: "redis-node",
    title: "GET and SET of Redis by hand on Node.js net",
    protocol: "redis",
    tool: ["node", "--version"],
    source: "bench/peers/redis/redis.mjs",
    command: (source) => ["node", source, "0"],
  },
  redis("redis-raw", "the same by hand on Deno.listen", "bench/peers/redis/redis_raw.ts"),
  ...[1, 2].map((workers) => onAllCores("workers", workers, "the command with --engine epoll", "--engine", "epoll")),
  ...[1, 2].map((workers) => onAllCores("deno-workers", workers, "the command on Deno's sockets")),
  ...[1, 2].map(goOnAllCores),
];

/** Shouty's command with workers. */
function onAllCores(name: string, workers: number, title: string, ...flags: string[]): ServerSpec {
  const all = [...flags, "--workers", `${workers}`];
  const spec = command(`${name}${workers}`, `${title} and --workers ${workers}`, ["--allow-read", "--allow-ffi"], all);
  return { ...spec, allCores: true };
}

/** The article's server with as many threads for its goroutines. */
function goOnAllCores(threads: number): ServerSpec {
  return {
    ...GO,
    name: `go${threads}`,
    title: `the article's server in Go with GOMAXPROCS=${threads}`,
    allCores: true,
    command: (...at) => ["env", `GOMAXPROCS=${threads}`, ...GO.command(...at)],
  };
}

/** Shouty as a library, with a kind of handler on an engine. */
function library(name: string, title: string, kind: string, engine: string): ServerSpec {
  return {
    name,
    title,
    tool: [DENO, "--version"],
    source: "bench/peers/shouty.ts",
    command: (source, _, roomy) => {
      const permissions = ["--allow-net", ...(engine === "epoll" ? ["--allow-ffi"] : [])];
      return [DENO, "run", ...permissions, source, kind, engine, "0", ...(roomy ? [ROOMY_MS] : [])];
    },
  };
}

/** A script of Deno's that takes a port. */
function script(name: string, title: string, source: string, ...permissions: string[]): ServerSpec {
  const command = (source: string) => [DENO, "run", "--allow-net", ...permissions, source, "0"];
  return { name, title, tool: [DENO, "--version"], source, command };
}

function redis(...args: Parameters<typeof script>): ServerSpec {
  return { ...script(...args), protocol: "redis" };
}

/** Shouty's command, with more permissions and flags than it needs for its defaults. */
export function command(name: string, title: string, permissions: string[], flags: string[] = []): ServerSpec {
  return {
    name,
    title,
    tool: [DENO, "--version"],
    source: "mod.ts",
    command: (source, _, roomy) => [
      ...[DENO, "run", "--allow-net", "--allow-env=SHOUTY_*", ...permissions, source],
      ...["--hostname", "127.0.0.1", "--port", "0", ...flags],
      ...(roomy ? ROOMY_FLAGS : []),
    ],
  };
}
