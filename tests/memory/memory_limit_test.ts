/** The memory that clients can make the server use. */
import { assertLessOrEqual } from "@std/assert";
import { test } from "../kit/bounded.ts";

const MIB = 2 ** 20;
const BUDGET_BYTES = 4 * MIB;

/** The input that each client sends, and the handler, as JavaScript expressions. */
interface Clients {
  input: string;
  handler?: string;
}

/**
 * Runs a server in a process of its own with four thousand clients, each of which sends this input and reads nothing.
 *
 * @returns By how many bytes the process has grown since the clients connected, and how many connections are left.
 */
async function growth(
  { input, handler = "undefined" }: Clients,
): Promise<{ grown: number; left: number; ended: Record<string, number> }> {
  const program = `
    import { serve } from "${import.meta.resolve("../../mod.ts")}";
    const addr = { transport: "tcp", hostname: "127.0.0.1", port: 1 };
    const input = ${input};
    const go = Promise.withResolvers();
    let waiting = 0;
    const connect = () => {
      let sent = 0, said = false;
      const closed = Promise.withResolvers();
      closed.promise.catch(() => {});
      const read = async (into) => {
        waiting++;
        if (!said) return said = true, into.set([120, 10]), 2;
        await go.promise;
        const part = input.subarray(sent, sent += into.length);
        into.set(part);
        return part.length > 0 ? part.length : await closed.promise;
      };
      const write = async (bytes) => bytes.length > 2 ? await closed.promise : bytes.length;
      return { addr, remoteAddr: addr, localAddr: addr, read, write, close: () => closed.reject(new Error()) };
    };
    const clients = Array.from({ length: 4000 }, connect);
    const accept = async () => clients.pop() ?? await new Promise(() => {});
    const listener = { addr, accept, close() {} };
    const server = serve({ listener, maxBufferedBytes: ${BUDGET_BYTES}, idleTimeout: Infinity, writeTimeout: Infinity }, ${handler});
    const rest = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    while (waiting < 8000) await rest(10);
    gc();
    const before = Deno.memoryUsage().rss;
    go.resolve();
    let most = 0;
    for (let i = 0; i < 100; i++) await rest(20), most = Math.max(most, Deno.memoryUsage().rss);
    const { active, closed } = server.stats();
    console.log(JSON.stringify({ grown: most - before, left: active, ended: closed }));
    Deno.exit();
  `;
  // V8's young generation grows with any work, so it is given its full size from the start.
  const flags = ["--expose-gc", "--min-semi-space-size=16", "--max-semi-space-size=16"];
  const args = ["eval", `--v8-flags=${flags}`, program];
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
  const text = new TextDecoder().decode(stdout);
  if (text === "") throw new Error(new TextDecoder().decode(stderr));
  return JSON.parse(text);
}

const CLIENTS: Readonly<Record<string, Clients>> = {
  "send 60 KB without a line end": { input: "new Uint8Array(60_000).fill(120)" },
  "send many lines and read nothing": { input: "new TextEncoder().encode('a line like any other\\n'.repeat(20_000))" },
  "have long replies and read nothing": {
    input: "new Uint8Array(100).fill(10)",
    handler: "(line) => line === 'x' ? '' : 'y'.repeat(60_000)",
  },
};

for (const [what, clients] of Object.entries(CLIENTS)) {
  test(`clients that ${what} take no more than four times maxBufferedBytes and 16 MiB`, async () => {
    const { grown, left } = await growth(clients);
    assertLessOrEqual(grown, 4 * BUDGET_BYTES + 16 * MIB, `It grew by ${grown}; ${left} are left`);
  }, 60);
}
