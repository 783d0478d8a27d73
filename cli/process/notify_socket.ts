/**
 * The socket on which systemd wants to hear from its services, by the C library: Deno sends no datagrams on Unix sockets
 * without an unstable flag.
 *
 * @module
 */

const SYMBOLS = {
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  sendto: { parameters: ["i32", "buffer", "u32", "i32", "buffer", "u32"], result: "i32" },
} as const;

const [AF_UNIX, SOCK_DGRAM, SOCK_CLOEXEC] = [1, 2, 0o2000000];
const [MSG_DONTWAIT, MSG_NOSIGNAL] = [0x40, 0x4000];

/** Maximum bytes of an address: the path in `sockaddr_un`. */
const PATH_BYTES = 108;

/** Sends one message; returns whether the kernel has taken it. */
export type SendMessage = (text: string) => boolean;

/**
 * Opens a socket that sends to one address, and stays open for the process's life.
 *
 * @param address The path of a Unix socket for datagrams; one that begins with `@` has no file (`unix(7)`, "abstract").
 * @returns What sends.
 * @throws {Error} If this is not Linux with the GNU C library, `--allow-ffi` is missing, or the address is too long.
 */
export function openNotifySocket(address: string): SendMessage {
  if (Deno.build.os !== "linux") throw new Deno.errors.NotSupported(`No notify socket on ${Deno.build.os}`);
  const path = new TextEncoder().encode(address);
  if (path.length > PATH_BYTES) throw new RangeError("The notify socket's address is too long");
  // In the kernel's form, the name of an abstract address begins with a NUL.
  if (path[0] === "@".charCodeAt(0)) path[0] = 0;
  const sockaddr = new Uint8Array([AF_UNIX, 0, ...path]);
  const { socket, sendto } = Deno.dlopen("libc.so.6", SYMBOLS).symbols;
  const fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw new Error("No descriptor for the notify socket");
  return (text) => {
    const bytes = new TextEncoder().encode(text);
    return sendto(fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL, sockaddr, sockaddr.length) === bytes.length;
  };
}
