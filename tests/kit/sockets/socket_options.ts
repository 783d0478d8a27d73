/**
 * Reads options of this process's sockets from the kernel.
 *
 * @module
 */

import { NO_EPOLL } from "./epoll.ts";

/** Options of a socket, as Linux numbers them: a level and a name. */
const OPTIONS = { TCP_NODELAY: [6, 1], SO_KEEPALIVE: [1, 9] } as const;

/** Why this system's kernel cannot be asked, appended to a test's name; empty if it can. It needs the C library. */
export const CANNOT_ASK: string = NO_EPOLL;

/**
 * Asks the kernel for an option of a socket.
 *
 * @param name The option.
 * @param localPort The port of the socket's own end.
 * @param remotePort The port of the other end.
 * @returns Whether it is set.
 */
export function isSet(name: keyof typeof OPTIONS, localPort: number, remotePort: number): boolean {
  const libc = Deno.dlopen("libc.so.6", {
    getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  });
  try {
    const [value, length] = [new Int32Array(1), new Uint32Array([4])];
    const fd = descriptorOf(localPort, remotePort);
    const [level, option] = OPTIONS[name];
    const status = libc.symbols.getsockopt(fd, level, option, value, length);
    if (status !== 0) throw new Error(`getsockopt failed for descriptor ${fd}`);
    return value[0] !== 0;
  } finally {
    libc.close();
  }
}

function descriptorOf(localPort: number, remotePort: number): number {
  const [local, remote] = [localPort, remotePort].map((port) => port.toString(16).toUpperCase().padStart(4, "0"));
  const ends = new RegExp(`^ *\\d+: \\w+:${local} \\w+:${remote} `);
  const rows = ["tcp", "tcp6"].flatMap((table) => Deno.readTextFileSync(`/proc/self/net/${table}`).split("\n"));
  const inode = rows.find((row) => ends.test(row))?.trim().split(/ +/)[9];
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    try {
      if (Deno.readLinkSync(`/proc/self/fd/${name}`) === `socket:[${inode}]`) return Number(name);
    } catch {
      // The descriptor with which the folder was read is closed by now.
    }
  }
  throw new Error(`There is no socket from port ${localPort} to ${remotePort} in this process`);
}
