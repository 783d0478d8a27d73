// Runs programs, and measures processes by what the kernel tells of them.

import { DENO } from "./servers.ts";

/** The project's root, or that of another revision's copy. */
export const ROOT: string = `${import.meta.dirname}/../../`;

/** Waits. */
export function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** The last lines of a program's output, for an error. */
export function lastLines(text: string): string {
  return text.trimEnd().split("\n").slice(-3).join(" / ") || "no output";
}

/** Runs a program to its end and returns its output; throws with the last lines of its errors if it fails. */
export async function output([program, ...args]: string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(program, { args, cwd: ROOT, stdin: "null" }).output();
  const decoder = new TextDecoder();
  if (code !== 0) throw new Error(`${program} failed (${code}): ${lastLines(decoder.decode(stderr))}`);
  return decoder.decode(stdout);
}

/** Tells whether a file or folder is there. */
export async function isThere(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

/** The first line of a tool's version, or `null` if the tool is not there. */
export async function versionOf(tool: string[]): Promise<string | null> {
  try {
    const version = (await output(tool)).split("\n")[0];
    // Without Node.js, Deno runs "node" as itself, which would measure Deno again.
    return version.startsWith("deno ") && tool[0] !== DENO ? null : version;
  } catch {
    return null;
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

/** The kernel's clock for the processor time of all threads of a process (`CPUCLOCK_SCHED`, clock_getcpuclockid(3)). */
function processorClock(pid: number): number {
  return ~pid << 3 | 2;
}

/** Opens libc's clocks; `undefined` where libc has another name, as with musl. */
function openClocks() {
  try {
    return Deno.dlopen("libc.so.6", { clock_gettime: { parameters: ["i32", "buffer"], result: "i32" } });
  } catch {
    return undefined;
  }
}

let clocks: ReturnType<typeof openClocks> | null = null;

/** Processor time that a process has used, in seconds, all its threads together. */
export async function cpuSeconds(pid: number): Promise<number> {
  clocks ??= openClocks();
  const time = new BigInt64Array(2);
  if (clocks?.symbols.clock_gettime(processorClock(pid), time) === 0) return Number(time[0]) + Number(time[1]) / 1e9;
  // In hundredths of a second, which is USER_HZ on every Linux that Deno runs on.
  const stat = await Deno.readTextFile(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" "); // the name before it may hold spaces
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** Maximum number of descriptors of a process. */
export async function maxFiles(): Promise<number> {
  const limits = await Deno.readTextFile("/proc/self/limits");
  return Number(limits.match(/^Max open files\s+\S+\s+(\d+)/m)?.[1] ?? 1024);
}

const endings = new Set<() => Promise<void>>();

/**
 * Registers what has to be ended or removed when the user interrupts the bench.
 *
 * @returns A function that takes it back.
 */
export function atInterrupt(end: () => Promise<void>): () => void {
  endings.add(end);
  return () => endings.delete(end);
}

/** Runs `use`; ends what is registered, and the process, at SIGINT and SIGTERM. */
export async function interruptible<T>(use: () => Promise<T>): Promise<T> {
  const interrupt = () => void Promise.allSettled([...endings].map((end) => end())).finally(() => Deno.exit(130));
  const signals = ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) Deno.addSignalListener(signal, interrupt);
  try {
    return await use();
  } finally {
    for (const signal of signals) Deno.removeSignalListener(signal, interrupt);
  }
}
