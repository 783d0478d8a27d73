/**
 * Measures the memory of servers while one client sends lines and reads no reply.
 *
 * Run it with the most that the client sends, in MiB, 32 by default: `deno run -A bench/programs/unread.ts 32`. For each server
 * it prints how much of that the server has taken before it stopped reading, and the most memory that the process has
 * had (`VmHWM` of Linux). The client gives up when nothing was taken for three seconds.
 *
 * @module
 */

import { ROOT } from "../servers/process.ts";

const MIB = 1024 * 1024;
/** Milliseconds without progress after which the server is said to read no more. */
const STALL_MS = 3000;

const SERVERS: Record<string, string[]> = {
  "Deno.listen by hand": [Deno.execPath(), "run", "--allow-net", "bench/peers/by_hand.ts", "0"],
  "node:net by hand": ["node", "bench/peers/by_hand.mjs", "0"],
  "shouty, a line handler": [Deno.execPath(), "run", "--allow-net", "mod.ts", "--hostname", "127.0.0.1", "--port", "0"],
  "shouty, a conversation": [Deno.execPath(), "run", "--allow-net", "examples/shout_stream.ts", "0"],
};

const most = Number(Deno.args[0] ?? 32);
console.log("server                   sent MiB   memory MiB   idle MiB");
for (const [name, [program, ...args]] of Object.entries(SERVERS)) {
  const { sent, peak, idle } = await measure(program, args);
  const columns = [sent.toFixed(0).padStart(8), peak.toFixed(0).padStart(12), idle.toFixed(0).padStart(10)];
  console.log(`${name.padEnd(24)} ${columns.join(" ")}`);
}

async function measure(program: string, args: string[]): Promise<{ sent: number; peak: number; idle: number }> {
  const options = { args, cwd: ROOT, env: { NO_COLOR: "1" }, stdin: "null", stdout: "piped", stderr: "piped" } as const;
  await using server = new Deno.Command(program, options).spawn();
  const port = await Promise.race([portOf(server.stdout), portOf(server.stderr)]);
  const idle = await peakMemory(server.pid);
  using client = await Deno.connect({ port });
  const block = new TextEncoder().encode(`${"x".repeat(63)}\n`.repeat(1024));
  let sent = 0;
  while (sent < most * MIB) {
    const stall = Promise.withResolvers<number>();
    const timer = setTimeout(() => stall.resolve(0), STALL_MS);
    const taken = await Promise.race([client.write(block).catch(() => 0), stall.promise]);
    clearTimeout(timer);
    if (taken === 0) break;
    sent += taken;
  }
  const peak = await peakMemory(server.pid);
  server.kill("SIGKILL");
  return { sent: sent / MIB, peak, idle };
}

/** The port that a server says it listens on; what it says later is read and dropped. */
function portOf(output: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<number> {
  return new Promise((resolve) => {
    let text = "";
    output.pipeThrough(new TextDecoderStream()).pipeTo(
      new WritableStream({
        write(chunk) {
          text += chunk;
          const port = /listening on \S+:(\d+)/.exec(text)?.[1];
          if (port !== undefined) resolve(Number(port));
        },
      }),
    );
  });
}

/** The most memory that a process has had, in MiB. */
async function peakMemory(pid: number): Promise<number> {
  const status = await Deno.readTextFile(`/proc/${pid}/status`);
  return Number(/VmHWM:\s*(\d+) kB/.exec(status)?.[1]) / 1024;
}
