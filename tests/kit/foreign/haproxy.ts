/**
 * A real HAProxy in front of a server under test.
 *
 * @module
 */

import { missingProgram } from "./foreign.ts";
import { freePort } from "../sockets/free_port.ts";

/** The suffix of the names of tests that need HAProxy. */
export const NO_HAPROXY: string = await missingProgram("haproxy", "-v");

/** A running HAProxy. */
export interface HAProxy extends AsyncDisposable {
  /** The address to which clients connect. */
  readonly port: number;
  /** Returns the states of the servers, by their names: `UP`, `DOWN` and others. */
  states(): Promise<Record<string, string>>;
}

/** How HAProxy connects clients to the server under test. */
export interface HAProxyOptions {
  /** The server's line in its configuration: `127.0.0.1:8080 send-proxy`; or all the lines about the servers. */
  server: string | readonly string[];
  /** The address on which it listens, with `PORT` in place of the port. */
  bind?: string;
  /** More lines about the side of the clients. */
  frontend?: string;
  /** Settles when the server has seen its health check, which shows that HAProxy runs; by default HAProxy is asked. */
  checked?: Promise<unknown>;
}

/** Maximum time for which it runs, even if the test does not end it: longer than any test may take. */
const LONGEST_MS = 300_000;

/** Maximum attempts to start it: another process may take a port between its choice and its use. */
const MOST_TRIES = 5;

/** Starts HAProxy, and waits until it runs. */
export async function startHAProxy(options: HAProxyOptions): Promise<HAProxy> {
  const dir = await Deno.makeTempDir();
  const file = `${dir}/haproxy.cfg`;
  let complaint = "";
  for (let tries = 0; tries < MOST_TRIES; tries++) {
    const port = freePort();
    await Deno.writeTextFile(file, config(options, port, dir));
    const signal = AbortSignal.timeout(LONGEST_MS);
    // -db keeps it in the foreground, in one process that the test can end.
    const args = ["-db", "-f", file];
    const child = new Deno.Command("haproxy", { args, stdin: "null", stdout: "null", stderr: "piped", signal }).spawn();
    const output = new Response(child.stderr).text();
    const ended = child.status.then(() => false);
    const runs = await Promise.race([options.checked?.then(() => true) ?? answering(`${dir}/stats`, ended), ended]);
    const stop = async () => {
      child.kill("SIGTERM");
      await Promise.all([child.status, output, Deno.remove(dir, { recursive: true })]);
    };
    if (runs) return { port, states: () => statesOf(`${dir}/stats`), [Symbol.asyncDispose]: stop };
    complaint = await output;
  }
  await Deno.remove(dir, { recursive: true });
  throw new Error(`HAProxy does not start: ${complaint}`);
}

function config({ server, bind = "127.0.0.1:PORT", frontend = "" }: HAProxyOptions, port: number, dir: string): string {
  return `
global
  maxconn 1000
  stats socket ${dir}/stats
defaults
  mode tcp
  timeout connect 5s
  timeout client 10s
  timeout server 10s
  timeout check 5s
frontend front
  bind ${bind.replace("PORT", `${port}`)}
  ${frontend}
  default_backend back
backend back
  ${typeof server === "string" ? checked(server) : server.join("\n  ")}
`;
}

/** Waits until HAProxy answers, or has ended. */
async function answering(path: string, ended: Promise<boolean>): Promise<boolean> {
  for (let over = false; !over;) {
    const soon = new Promise<boolean>((resolve) => setTimeout(() => resolve(true), 20));
    over = !await Promise.race([ended, soon]);
    await soon;
    if (!over && await statesOf(path).then(() => true, () => false)) return true;
  }
  return false;
}

async function statesOf(path: string): Promise<Record<string, string>> {
  const conn = await Deno.connect({ transport: "unix", path });
  await conn.write(new TextEncoder().encode("show stat\n"));
  const rows = (await new Response(conn.readable).text()).trim().split("\n").map((row) => row.split(","));
  const column = rows[0].indexOf("status");
  return Object.fromEntries(rows.slice(1).filter(([proxy]) => proxy === "back").map((row) => [row[1], row[column]]));
}

/** The lines about one server, with a check whose answer shows that HAProxy runs. */
function checked(server: string): string {
  return `option tcp-check
  tcp-check send "check\\n"
  tcp-check expect string CHECK
  server one ${server} check inter 1h`;
}
