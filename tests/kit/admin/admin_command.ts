/**
 * The command with an admin port, and `shouty admin`, as subprocesses.
 *
 * @module
 */

import { type Outcome, runCommand, type ServerProcess, startServer } from "../command.ts";

/** Registers a test; `missing` says why it is skipped on this machine. */
export function test(name: string, fn: () => Promise<void>, missing = ""): void {
  Deno.test({ name: name + missing, ignore: missing !== "", fn });
}

/** What the command and its client may do. */
export const PERMISSIONS: string[] = ["--allow-net", "--allow-read", "--allow-write", "--allow-env=SHOUTY_*"];

/** A server with an admin port, and its address. */
export async function start(
  args: string[] = [],
  env: Record<string, string> = {},
): Promise<{ server: ServerProcess; addr: Deno.NetAddr; at: string }> {
  const server = await startServer(["--admin", "127.0.0.1:0", ...args], { permissions: PERMISSIONS, env });
  const [, port] = await server.stderrMatch(/ info admin on 127\.0\.0\.1:(\d+)\n/);
  const addr = { transport: "tcp", hostname: "127.0.0.1", port: Number(port) } as const;
  return { server, addr, at: `127.0.0.1:${port}` };
}

/** Runs `shouty admin`. */
export function admin(at: string, ...args: string[]): Promise<Outcome> {
  return runCommand(["admin", ...args, "--admin", at], { permissions: PERMISSIONS });
}
