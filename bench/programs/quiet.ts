/**
 * Measures what many quiet connections take, as far as this machine's limits let it, and how many would fit in 4 GiB.
 *
 * Run it with a number of connections, 20 000 by default: `deno run -A bench/programs/quiet.ts 20000`. Each end of a connection
 * needs a descriptor in its process, so `ulimit -n` bounds the number. The kernel's memory is the growth of what
 * `/proc/meminfo` counts as slabs, page tables and per-processor data, of the whole machine and for both ends: half of
 * it is the server's. Others that use the machine meanwhile change it.
 *
 * @module
 */

import { Lab } from "../servers/lab.ts";
import { cpuSeconds, delay, interruptible, maxFiles, settledBytes } from "../servers/process.ts";
import { columns } from "../report/report.ts";
import { ALL_SERVERS } from "../cases/all.ts";

const NAMES = ["shouty", "deno", "lines-epoll", "lines", "tls", "go", "tls-go"];
const GIB = 2 ** 30;
/** Time in seconds for which the processor time of a server is measured whose clients are all quiet. */
const REST = 3;

/** What connections take. */
export interface Quiet {
  /** Resident memory of the server without them, and more of it with each, in bytes. */
  base: number;
  each: number;
  /** Memory of the kernel for the server's end of each, in bytes. */
  kernel: number;
}

/** How many connections fit into some bytes, with and without what the kernel holds for them. */
export function fit(bytes: number, { base, each, kernel }: Quiet): { process: number; all: number } {
  return { process: Math.floor((bytes - base) / each), all: Math.floor((bytes - base) / (each + kernel)) };
}

/** The kernel's memory that grows with sockets, in bytes. */
export function kernelBytes(meminfo: string): number {
  const sizes = ["Slab", "PageTables", "Percpu"].map((name) => new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(meminfo));
  return sizes.reduce((sum, found) => sum + Number(found?.[1] ?? 0) * 1024, 0);
}

async function kernelNow(): Promise<number> {
  return kernelBytes(await Deno.readTextFile("/proc/meminfo"));
}

/** Holds connections open; measures before and after, and how busy the server is while all of them are quiet. */
async function measure(lab: Lab, name: string, count: number): Promise<Quiet & { busy: number }> {
  const spec = ALL_SERVERS.find((spec) => spec.name === name)!;
  const missing = await lab.prepare(spec);
  if (missing !== null) throw new Error(missing);
  const server = await lab.start(spec, true);
  try {
    await lab.load(server, "churn", { clients: 50, bytes: 16, seconds: 1, warmup: 0 });
    const [base, kernel] = [await settledBytes(server.pid), await kernelNow()];
    const held = await lab.hold(server, count);
    const [after, kernelAfter] = [await settledBytes(server.pid), await kernelNow()];
    const start = await cpuSeconds(server.pid);
    await delay(REST * 1000);
    const busy = (await cpuSeconds(server.pid) - start) / REST;
    await held.release();
    return { base, each: (after - base) / count, kernel: (kernelAfter - kernel) / count / 2, busy };
  } finally {
    await server.stop();
  }
}

function row(name: string, quiet: Quiet & { busy: number }): string[] {
  const { process, all } = fit(4 * GIB, quiet);
  const { base, each, kernel, busy } = quiet;
  const sizes = [base / 2 ** 20, each / 1024, kernel / 1024].map((size) => size.toFixed(1));
  return [name, ...sizes, `${(busy * 100).toFixed(1)} %`, `${process}`, `${all}`];
}

if (import.meta.main) {
  const count = Math.min(Number(Deno.args[0] ?? 20_000), await maxFiles() - 200);
  const heads = ["server", "base MiB", "KiB each", "kernel KiB each", "at rest", "fit in 4 GiB", "with the kernel's"];
  const rows = [heads];
  await interruptible(async () => {
    const lab = await Lab.open();
    try {
      for (const name of NAMES) {
        rows.push(row(name, await measure(lab, name, count)));
        console.error(rows.at(-1)!.join("  "));
      }
    } finally {
      await lab.close();
    }
  });
  console.log(`${count} quiet connections; what fits is extrapolated\n${columns(rows, [0]).join("\n")}`);
}
