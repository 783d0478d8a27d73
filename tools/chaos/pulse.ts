/**
 * Measures the machine's speed over time: a shared machine may run at a tenth of it for some hundredths of a second,
 * which delays any server.
 *
 * @module
 */

import process from "node:process";

/** A span of time, in milliseconds since the epoch. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

/** When the machine was slow. */
export interface Slowness {
  /** The slow spans, in order. */
  readonly spans: Span[];
  /** Their share of the whole time, from 0 to 1. */
  readonly share: number;
}

/** When a fixed piece of work began, and how many milliseconds of processor time it took. */
type Beat = [at: number, cost: number];

const PERIOD_MS = 2;

/** Factor by which a piece of work has to exceed the median to count as slow. */
const SLOW = 3;

/** Time in milliseconds after a slow moment in which the work that has piled up is done. */
const AFTERMATH_MS = 15;

/** Measures the speed in a separate process until it is stopped. */
export class Pulse {
  readonly #child: Deno.ChildProcess;

  constructor() {
    const args = ["run", import.meta.filename!];
    this.#child = new Deno.Command(Deno.execPath(), { args, stdin: "piped", stdout: "piped" }).spawn();
  }

  async stop(): Promise<Slowness> {
    await this.#child.stdin.close();
    return slowness(await new Response(this.#child.stdout).json());
  }
}

function slowness(beats: Beat[]): Slowness {
  const costs = beats.map(([, cost]) => cost).sort((a, b) => a - b);
  const most = SLOW * costs[costs.length >> 1];
  const spans: Span[] = [];
  for (const [at] of beats.filter(([, cost]) => cost > most)) {
    const from = at - 2 * PERIOD_MS;
    const last = spans.at(-1);
    if (last === undefined || from > last.to) spans.push({ from, to: at + AFTERMATH_MS });
    else spans[spans.length - 1] = { from: last.from, to: at + AFTERMATH_MS };
  }
  const slow = spans.reduce((sum, { from, to }) => sum + to - from, 0);
  return { spans, share: slow / (beats.at(-1)![0] - beats[0][0]) };
}

async function takePulse(): Promise<Beat[]> {
  let stopped = false;
  Deno.stdin.read(new Uint8Array(1)).then(() => stopped = true);
  const text = `${"x".repeat(26)}\n`.repeat(1200);
  const beats: Beat[] = [];
  while (!stopped) {
    const at = performance.timeOrigin + performance.now();
    const before = process.cpuUsage();
    for (let i = text.indexOf("\n"); i >= 0; i = text.indexOf("\n", i + 1));
    const { user, system } = process.cpuUsage(before);
    beats.push([at, (user + system) / 1000]);
    await new Promise((resolve) => setTimeout(resolve, PERIOD_MS));
  }
  return beats;
}

if (import.meta.main) console.log(JSON.stringify(await takePulse()));
