/**
 * The bad clients, in a process of their own with the least priority, as if they were on machines of their own: they may
 * take the server's time, but not that of those who measure.
 *
 * @module
 */

import { KINDS, misbehave } from "./bad.ts";

/** Lets so many loose for so long; resolves to how often each kind came. */
export async function riot(port: number, count: number, seconds: number): Promise<Record<string, number>> {
  const crowd = [Deno.execPath(), "run", "--allow-net", import.meta.filename!, `${port}`, `${count}`, `${seconds}`];
  const { success, stdout } = await new Deno.Command("chrt", { args: ["--idle", "0", ...crowd], stderr: "inherit" })
    .output();
  if (!success) throw new Error("The crowd has failed");
  return JSON.parse(new TextDecoder().decode(stdout));
}

async function riotHere(port: number, count: number, seconds: number): Promise<Record<string, number>> {
  // An upload that is cut off, or a read that is, may reject where nobody waits for it any more.
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
