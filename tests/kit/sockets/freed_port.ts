/**
 * Ports that this process has freed.
 *
 * @module
 */

import { assertEquals } from "@std/assert";

/**
 * Checks that this process has freed a port of 127.0.0.1, and returns when it can be listened on again.
 *
 * That can take some milliseconds: a child process that another test is starting has all descriptors of this process
 * until it runs its own program, also of a port that is closed meanwhile.
 *
 * @param port The port.
 */
export async function assertFreed(port: number): Promise<void> {
  if (Deno.build.os === "linux") assertEquals(await ownListeners(port), [], `This process still listens on ${port}`);
  for (;;) {
    try {
      return Deno.listen({ hostname: "127.0.0.1", port }).close();
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }
}

/** The descriptors of this process that listen on a port, as the kernel names them. */
async function ownListeners(port: number): Promise<string[]> {
  const local = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  // The columns of this table are: number, local address, remote address, state, and six others before the inode.
  const sockets = (await Deno.readTextFile("/proc/self/net/tcp")).split("\n").map((line) => line.trim().split(/\s+/));
  const listening = sockets.filter(([, address, , state]) => state === "0A" && address.endsWith(local));
  const names = new Set(listening.map((columns) => `socket:[${columns[9]}]`));
  const own = [];
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    // It may have been closed meanwhile.
    const target = await Deno.readLink(`/proc/self/fd/${name}`).catch(() => "");
    if (names.has(target)) own.push(target);
  }
  return own;
}
