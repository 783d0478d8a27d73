// What is measured: the speed cases, memory, and the cases in which a cost has to stay flat.

import type { Lab, Running } from "../servers/lab.ts";
import { cpuSeconds, settledBytes } from "../servers/process.ts";
import type { Protocol, ServerSpec } from "../servers/servers.ts";

/** One reading. */
export interface Sample {
  value: number;
  p50?: number | undefined;
  p99?: number | undefined;
  /** The load generator's share of its core, from 0 to 1. */
  load?: number | undefined;
  /** The server's share of its core, from 0 to 1. */
  server?: number | undefined;
  /** The server's processor time for one line, connection or byte, in nanoseconds. */
  cpu?: number | undefined;
}

/** What a case may use: the lab, the length of a run, and how many connections "10 000" are here. */
export interface Setting {
  lab: Lab;
  seconds: number;
  idle: number;
  /** Maximum number of runs for one sample, of which the least disturbed counts. */
  tries: number;
}

/** One row block of the table. */
export interface Case {
  /** The name for `--case`. */
  name: string;
  title: string;
  /** More `lines/s` and `conns/s` are better, and fewer `bytes`; of a ratio, `×`, its title says what is. */
  unit: "lines/s" | "conns/s" | "bytes" | "×";
  /** What the servers have to speak; lines by default. */
  protocol?: Protocol;
  /** Whether it is for the servers that may use all cores. */
  allCores?: true;
  /** The servers that take part; all that speak the protocol by default. */
  servers?: string[];
  /** Maximum number of rounds, for a case that takes long. */
  rounds?: number;
  measure(setting: Setting, spec: ServerSpec): Promise<Sample>;
}

// A run's first part, in which just-in-time compilers catch up, is not in its figures.
const WARMUP = 0.5;
export const BUSY: Record<"clients" | "pipeline" | "bytes", number> = { clients: 50, pipeline: 1, bytes: 16 };
const MILLION = 1_000_000;
const UNDISTURBED = 0.8;

/** One run of the load, with the server's own processor time: on a busy machine that varies less. */
export async function run(
  setting: Setting,
  server: Running,
  mode: string,
  options: Record<string, number>,
): Promise<Sample> {
  const start = await cpuSeconds(server.pid);
  const result = await setting.lab.load(server, mode, { seconds: setting.seconds, warmup: WARMUP, ...options });
  const used = await cpuSeconds(server.pid) - start;
  if (result.errors > 0) throw new Error(`${result.errors} connections were lost`);
  if (result.count === 0) throw new Error(`no reply in ${setting.seconds} s`);
  const { resume = 0, warmup = WARMUP } = options;
  if (resume === 1 && result.resumed < result.total / 2) throw new Error("most sessions were not resumed");
  return {
    ...{ value: result.rate, p50: result.p50_us, p99: result.p99_us, load: result.cpu },
    server: mode === "trickle" ? undefined : used / (setting.seconds + warmup), // a trickle ends with its line
    cpu: used / result.total * 1e9,
  };
}

/**
 * Tells whether neither load nor server had its core to itself. With requests always under way one of the two ends is
 * always at work; if neither is, something else ran on their cores, and the figure is too low.
 */
export function isDisturbed(sample: Pick<Sample, "server" | "load">): boolean {
  return sample.server !== undefined && shareOf(sample) < UNDISTURBED;
}

function shareOf({ server, load }: Pick<Sample, "server" | "load">): number {
  return Math.max(server ?? 0, load ?? 0);
}

/** Repeats a disturbed run, and returns the sample that was disturbed least. */
async function retry(most: number, measureOnce: () => Promise<Sample>): Promise<Sample> {
  let best = await measureOnce();
  for (let tries = 1; tries < most && isDisturbed(best); tries++) {
    const next = await measureOnce();
    if (shareOf(next) > shareOf(best)) best = next;
  }
  return best;
}

/** A case of plain speed, on the server that stays up for all rounds. */
export function speed(
  name: string,
  title: string,
  mode: "lines" | "churn",
  options: Record<string, number>,
  protocol?: Protocol,
): Case {
  return {
    name,
    title,
    ...(protocol === undefined ? {} : { protocol }),
    unit: mode === "churn" ? "conns/s" : "lines/s",
    measure: async (setting, spec) => {
      const server = await setting.lab.shared(spec);
      return await retry(setting.tries, () => run(setting, server, mode, options));
    },
  };
}

/** GETs of one value of 16 bytes, by `redis-benchmark`: the rate, and the server's processor time for one. */
function redisGet(name: string, title: string, pipeline: number): Case {
  return {
    name,
    title,
    unit: "lines/s",
    protocol: "redis",
    measure: async ({ lab, seconds }, spec) => {
      const server = await lab.shared(spec);
      // About as long as the other runs, at rates that this machine's kind reaches.
      const requests = Math.round(seconds * (pipeline === 1 ? 40_000 : 200_000));
      await lab.loadRedis(server, "set", 1000, 1);
      await lab.loadRedis(server, "get", requests / 4, pipeline);
      const start = await cpuSeconds(server.pid);
      const value = await lab.loadRedis(server, "get", requests, pipeline);
      return { value, cpu: (await cpuSeconds(server.pid) - start) / requests * 1e9 };
    },
  };
}

/** Starts a server for `use` alone, and ends it afterwards. */
export async function onFresh<T>(
  setting: Setting,
  spec: ServerSpec,
  use: (server: Running) => Promise<T>,
  env?: Record<string, string>,
): Promise<T> {
  const server = await setting.lab.start(spec, true, env);
  try {
    return await use(server);
  } finally {
    await server.stop();
  }
}

/** Holds idle connections open during `use`. */
async function whileHeld<T>(setting: Setting, server: Running, clients: number, use: () => Promise<T>): Promise<T> {
  const held = await setting.lab.hold(server, clients);
  try {
    return await use();
  } finally {
    await held.release();
  }
}

/** The growth of resident memory with each quiet connection. */
export function memory(setting: Setting, spec: ServerSpec): Promise<Sample> {
  return onFresh(setting, spec, async (server) => {
    // A server grows once under its first load, which is no cost of a connection; short connections cause that here.
    await run(setting, server, "churn", { clients: 50, bytes: 16 });
    const before = await settledBytes(server.pid);
    const after = await whileHeld(setting, server, setting.idle, () => settledBytes(server.pid));
    return { value: (after - before) / setting.idle };
  });
}

/** Busy clients beside idle ones, and the same without them before and after, so that a drift of the machine cancels. */
function besideIdle(setting: Setting, spec: ServerSpec): Promise<Sample> {
  return onFresh(setting, spec, async (server) => {
    const before = await run(setting, server, "lines", BUSY);
    const beside = await whileHeld(setting, server, setting.idle, () => run(setting, server, "lines", BUSY));
    const after = await run(setting, server, "lines", BUSY);
    return { ...beside, value: beside.value / ((before.value + after.value) / 2) };
  });
}

async function besideEndless(setting: Setting, spec: ServerSpec): Promise<Sample> {
  const server = await setting.lab.shared(spec);
  const before = await run(setting, server, "lines", BUSY);
  const beside = await run(setting, server, "lines", { ...BUSY, endless: 1 });
  const after = await run(setting, server, "lines", BUSY);
  // The endless client's lines are in the server's processor time, but not in the count.
  return { ...beside, cpu: undefined, server: undefined, value: beside.p99! / ((before.p99! + after.p99!) / 2) };
}

/** Time per byte of a long line and of short ones, each sent one byte at a time. */
async function trickle(setting: Setting, spec: ServerSpec): Promise<Sample> {
  const server = await setting.lab.shared(spec);
  const short = await run(setting, server, "trickle", { bytes: 4 * 1024 });
  const long = await run(setting, server, "trickle", { bytes: 64 * 1024 });
  return { ...long, value: short.value / long.value };
}

/** The server's processor time for one connection, before and after a million of them. */
function life(setting: Setting, spec: ServerSpec): Promise<Sample> {
  return onFresh(setting, spec, async (server) => {
    const churn = { clients: 50, bytes: 16, warmup: 0 };
    const cost = async () => {
      const start = await cpuSeconds(server.pid);
      const { count } = await setting.lab.load(server, "churn", { ...churn, seconds: setting.seconds });
      return (await cpuSeconds(server.pid) - start) / count;
    };
    await cost(); // the first run warms up
    const before = await cost();
    for (let total = 0; total < MILLION;) {
      total += (await setting.lab.load(server, "churn", { ...churn, seconds: 10 })).count;
    }
    return { value: await cost() / before };
  });
}

/** The same case for the servers that may use all cores, as the load may. */
function onAllCores(test: Case): Case {
  return {
    ...test,
    name: `cores-${test.name}`,
    title: `all cores, which the load shares: ${test.title}`,
    allCores: true,
  };
}

const SINGLE = speed("single", "50 clients, one 16-byte line at a time", "lines", BUSY);
const PIPELINE = speed("pipeline", "50 clients, 100 lines of 16 bytes pipelined", "lines", { ...BUSY, pipeline: 100 });
const CHURN = speed("churn", "connect, one line, close; 50 at a time", "churn", { clients: 50, bytes: 16 });

/** Every case, in the order of the table. */
export const CASES: Case[] = [
  SINGLE,
  PIPELINE,
  speed("bulk", "8 clients, 1000 lines of 60 bytes pipelined", "lines", { clients: 8, pipeline: 1000, bytes: 60 }),
  speed("long", "50 clients, one 1000-byte line at a time", "lines", { ...BUSY, bytes: 1000 }),
  redisGet("redis-get", "Redis: 50 clients, one GET at a time", 1),
  redisGet("redis-pipeline", "Redis: 50 clients, 16 GETs pipelined", 16),
  CHURN,
  ...[SINGLE, PIPELINE, CHURN].map(onAllCores),
  {
    name: "memory",
    title: "memory per idle connection, after a 100-byte exchange",
    unit: "bytes",
    rounds: 3,
    servers: ["shouty", "deno", "lines", "lines-epoll", "go", "c", "node", "bun", "naive"],
    measure: memory,
  },
  {
    name: "idle",
    title: "flat: rate of 50 busy clients beside 10 000 idle ones ÷ rate without them (1 is flat)",
    unit: "×",
    servers: ["shouty", "go", "c"],
    rounds: 3,
    measure: besideIdle,
  },
  {
    name: "endless",
    title: "flat: p99 of 50 clients beside one with endless input ÷ p99 without it (1 is flat)",
    unit: "×",
    servers: ["shouty", "lines", "go", "c"],
    measure: besideEndless,
  },
  {
    name: "trickle",
    title: "flat: time per byte of a 64 KiB line ÷ of a 4 KiB line, byte by byte (1 is flat)",
    unit: "×",
    servers: ["shouty", "lines", "naive"], // C knows no lines, and Go's scanner stops short of 64 KiB
    rounds: 3,
    measure: trickle,
  },
  {
    name: "life",
    title: "flat: processor time of a connection after a million of them ÷ before (1 is flat)",
    unit: "×",
    servers: ["shouty", "go"],
    rounds: 1,
    measure: life,
  },
];
