/**
 * The pulse of the machine: one that is shared may be at a tenth of its speed for some hundredths of a second, which no
 * server can help.
 *
 * @module
 */

import process from "node:process";

/** Some time, in milliseconds since the epoch. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

/** When the machine was slow. */
export interface Slowness {
  /** The moments, in order. */
  readonly spans: Span[];
  /** How much of the time they are. */
  readonly share: number;
}

/** When a piece of work was begun, and the milliseconds of the processor that it took, whoever else wanted the core. */
type Beat = [at: number, cost: number];

const PERIOD_MS = 2;

/** What takes so many times as long as it mostly does is slow. */
const SLOW = 3;

/** So long after a slow moment, what has piled up in it is done. */
const AFTERMATH_MS = 15;

/** Takes the pulse until it is stopped, in a process of its own. */
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
