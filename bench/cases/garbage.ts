// What lines and connections allocate in V8's heap, and so leave to its garbage collector.

import { type Case, onFresh, run, type Sample, type Setting } from "./cases.ts";
import type { ServerSpec } from "../servers/servers.ts";

const MIB = 1024 * 1024;
/** Young space of 1 MiB: the more collections, the less it matters where between two of them a run begins and ends. */
const TRACE = { DENO_V8_FLAGS: "--trace-gc,--min-semi-space-size=1,--max-semi-space-size=1" };
// `[123:0x55d0]  148 ms: Scavenge 4.4 (5.0) -> 4.1 (5.8) MB, …`: the heap before and after, and in brackets with holes.
const COLLECTION = /^\[\d+:(0x\w+)\].*? ([\d.]+) \([\d.]+\) -> ([\d.]+) \(/;

/**
 * Adds up what was allocated between collections: what the heap of each isolate has grown by from the end of one to the
 * beginning of the next. An incomplete last line is left out.
 *
 * @param trace What V8 has printed with `--trace-gc`.
 * @returns The bytes.
 */
export function allocatedBytes(trace: string): number {
  const after = new Map<string, number>();
  let sum = 0;
  for (const line of trace.split("\n").slice(0, -1)) {
    const [, isolate, before, left] = COLLECTION.exec(line) ?? [];
    if (isolate === undefined) continue;
    sum += Math.max(0, Number(before) - (after.get(isolate) ?? Number(before)));
    after.set(isolate, Number(left));
  }
  return sum * MIB;
}

/** Bytes that one line or connection allocates, warm, with a reading before and after the run. */
async function garbage(setting: Setting, spec: ServerSpec, mode: string, options: Record<string, number>) {
  // Without a terminal, the C library would keep the last 4 KiB of the trace: some 30 collections.
  const unbuffered = {
    ...spec,
    command: (...at: Parameters<typeof spec.command>) => ["stdbuf", "-oL", ...spec.command(...at)],
  };
  return await onFresh(setting, unbuffered, async (server): Promise<Sample> => {
    await run(setting, server, mode, options);
    const read = async () => allocatedBytes(await Deno.readTextFile(server.printed));
    const before = await read();
    const { total } = await setting.lab.load(server, mode, { seconds: setting.seconds, warmup: 0, ...options });
    const bytes = await read() - before;
    if (bytes < 4 * MIB) throw new Error("too few collections to count what was allocated: choose more --seconds");
    return { value: bytes / total };
  }, TRACE);
}

function garbageCase(name: string, title: string, mode: "lines" | "churn", options: Record<string, number>): Case {
  return {
    name,
    title: `garbage of ${title}, in V8's heap`,
    unit: "bytes",
    rounds: 3,
    servers: ["shouty", "deno", "lines", "lines-epoll", "handler", "handler-deno", "naive"],
    measure: (setting, spec) => garbage(setting, spec, mode, options),
  };
}

/** What stays for the collector of one line, of one of a hundred, and of one connection. */
export const GARBAGE_CASES: Case[] = [
  garbageCase("garbage-line", "one line at a time", "lines", { clients: 50, pipeline: 1, bytes: 16 }),
  garbageCase("garbage-pipeline", "one of 100 pipelined lines", "lines", { clients: 50, pipeline: 100, bytes: 16 }),
  garbageCase("garbage-conn", "a connection with one line", "churn", { clients: 50, bytes: 16 }),
];
