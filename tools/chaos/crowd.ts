/**
 * Runs the bad clients in a separate process with the lowest priority: as if they were on other machines, they may take
 * the server's time, but not that of the good clients, which measure.
 *
 * @module
 */

import { KINDS, misbehave } from "./bad.ts";

/** Runs `count` bad clients for some seconds; returns how often each kind ran. */
export async function riot(port: number, count: number, seconds: number): Promise<Record<string, number>> {
  const crowd = [Deno.execPath(), "run", "--allow-net", import.meta.filename!, `${port}`, `${count}`, `${seconds}`];
  const { success, stdout } = await new Deno.Command("chrt", { args: ["--idle", "0", ...crowd], stderr: "inherit" })
    .output();
  if (!success) throw new Error("The crowd has failed");
  return JSON.parse(new TextDecoder().decode(stdout));
}

async function riotHere(port: number, count: number, seconds: number): Promise<Record<string, number>> {
  // A write or read that was cut off may reject after its client has stopped waiting for it.
  globalThis.addEventListener("unhandledrejection", (event) => event.preventDefault());
  const end = new AbortController();
  setTimeout(() => end.abort(), 1000 * seconds);
  const times: Record<string, number> = Object.fromEntries(KINDS.map((kind) => [kind, 0]));
  await Promise.all(Array.from({ length: count }, async (_, i) => {
    const kind = KINDS[i % KINDS.length];
    const more = await misbehave(kind, { port, signal: end.signal });
    times[kind] += more;
  }));
  return times;
}

if (import.meta.main) {
  const [port, count, seconds] = Deno.args.map(Number);
  console.log(JSON.stringify(await riotHere(port, count, seconds)));
  Deno.exit();
}
