/**
 * A syslog server over TCP (RFC 6587): prints each message as one line. A sender may put the number of its bytes before
 * a message (octet counting), or LF or NUL behind it; the server finds out for each message.
 *
 * Run it with a port, 6514 by default: `deno run -A examples/syslog.ts 6514`
 *
 * ```text
 * $ logger --tcp --server 127.0.0.1 --port 6514 'Hello.'
 * $ logger --tcp --server 127.0.0.1 --port 6514 --octet-count 'How are you?'
 * $ printf '<13>One\n16 <13>Two\nin a box<13>Three\0' | nc -N 127.0.0.1 6514
 * ```
 *
 * {@linkcode readNetstring} shows the same reads for another protocol whose frames begin with their length.
 *
 * @module
 */

import { type Conn, type ConnHandler, formatAddr, LimitError, serveConnections } from "@x/shouty";
import type { ServeOptions, Server } from "@x/shouty";

const MAX_BYTES = 8192; // The server cuts off the rest of a longer message.
const MESSAGE_MS = 30_000; // Maximum time for a message that ends with LF or NUL.
const NUL_MS = 100; // Time without the NUL of a sender that uses it after which its messages may end with LF, too.

/** Passes on each message, without its frame and with escapes in place of control characters. */
export function syslog(print: (message: string) => void): ConnHandler {
  return async (conn) => {
    const sender = { usesNul: false };
    for (let first; (first = await readFirst(conn)) !== null;) {
      const isCounted = /[1-9]/.test(first);
      const message = isCounted ? await readCounted(conn, first) : await readTrailed(conn, first, sender);
      if (message !== null) print(printable(message));
    }
  };
}

/** Reads the first byte of a message, as a character; null if there are no more messages. */
async function readFirst(conn: Conn): Promise<string | null> {
  try {
    for (;;) {
      const first = String.fromCharCode(...await conn.readExactly(1, { boundary: true }));
      if (!/[\r\n\0]/.test(first)) return first;
    }
  } catch (error) {
    if (error instanceof Deno.errors.UnexpectedEof) return null;
    throw error;
  }
}

/** Reads the rest of a message with octet counting, `LENGTH SPACE MESSAGE`; null if the input has ended before it. */
async function readCounted(conn: Conn, first: string): Promise<string | null> {
  const length = await readLength(conn, " ", first);
  if (length === null) return null;
  const bytes = await conn.readExactly(Math.min(length, MAX_BYTES));
  // What a cancelled stream has not handed out is skipped before the next read.
  if (length > MAX_BYTES) await conn.readStream(length - MAX_BYTES).cancel();
  // Some senders end such a message with LF, too.
  return new TextDecoder().decode(bytes).replace(/\n$/, "");
}

/** Reads the rest of a message up to LF or NUL; null if the message is not whole. */
async function readTrailed(conn: Conn, first: string, sender: { usesNul: boolean }): Promise<string | null> {
  conn.setDeadline(MESSAGE_MS, "message");
  const rest = await readRest(conn, sender);
  conn.setDeadline(Infinity);
  // The connection has broken off, or its time is up.
  if (rest === null && conn.ending !== "end") return null;
  // A character of `rest` is a byte, as `first` is: both may be parts of one character of UTF-8.
  return new TextDecoder().decode(Uint8Array.from(first + (rest ?? ""), (char) => char.charCodeAt(0)));
}

/** Reads up to LF or NUL, which is dropped. A message that is too long comes cut off. */
async function readRest(conn: Conn, sender: { usesNul: boolean }): Promise<string | null> {
  for (;;) {
    // LF may be a part of the messages of a sender that ends them with NUL.
    const { usesNul } = sender;
    const [delimiters, timeout] = usesNul ? ["\0", NUL_MS] : [["\n", "\0"], undefined];
    try {
      const bytes = await conn.readUntil(delimiters, { timeout, maxBytes: MAX_BYTES - 1, keepDelimiter: true });
      if (bytes === null) return null;
      sender.usesNul = bytes.at(-1) === 0;
      return String.fromCharCode(...bytes.subarray(0, -1)).replace(/\r$/, "");
    } catch (error) {
      // The last message may have no end. `readLine` gets it.
      if (error instanceof Deno.errors.UnexpectedEof) return await conn.readLine();
      if (!(error instanceof Deno.errors.TimedOut || error instanceof LimitError)) throw error;
      if (!usesNul) break;
      // Perhaps its messages end with LF now.
      sender.usesNul = false;
    }
  }
  const bytes = await conn.readExactly(MAX_BYTES - 1);
  // Each read would look for the end in all that has come, and take nothing if that is too long: so byte by byte.
  let [byte] = await conn.readExactly(1);
  while (byte !== 0 && byte !== 10) [byte] = await conn.readExactly(1);
  return String.fromCharCode(...bytes);
}

/** Reads a decimal length, or the rest of it, up to its mark, which is dropped; null if there are no more. */
async function readLength(conn: Conn, mark: string, digits = ""): Promise<number | null> {
  const rest = await conn.readUntil(mark, { maxBytes: 9, boundary: digits === "" });
  if (rest === null) return null;
  const text = digits + new TextDecoder().decode(rest);
  if (!/^(0|[1-9]\d{0,8})$/.test(text)) throw new SyntaxError(`Not a length: ${JSON.stringify(text)}`);
  return Number(text);
}

/** Reads a netstring, such as `5:hello,`; null if the input has ended before it. */
export async function readNetstring(conn: Conn, maxBytes: number = MAX_BYTES): Promise<Uint8Array | null> {
  const length = await readLength(conn, ":");
  if (length === null) return null;
  const bytes = await conn.readExactly(length + 1, { maxBytes: maxBytes + 1 });
  if (bytes[length] !== ",".charCodeAt(0)) throw new SyntaxError("Netstring without a comma at its end");
  return bytes.subarray(0, length);
}

/** Escapes control characters as rsyslog does: a message cannot forge another one, or take over a terminal. */
function printable(message: string): string {
  return message.replaceAll(/\p{Cc}/gu, (char) => `#${char.charCodeAt(0).toString(8).padStart(3, "0")}`);
}

/** Serves syslog on loopback; the options go to the server. */
export function serveSyslog(options: ServeOptions = {}, print: (message: string) => void = console.log): Server {
  const framing = { encoding: "latin1", onLongLine: "truncate" } as const;
  // Senders keep their connections for as long as they run, and do not read.
  const limits = { idleTimeout: 3_600_000, maxLineBytes: MAX_BYTES - 1, lastWords: () => null };
  return serveConnections({ hostname: "127.0.0.1", drain: "finish", framing, ...limits, ...options }, syslog(print));
}

if (import.meta.main) {
  const server = serveSyslog({ port: Number(Deno.args[0] ?? 6514) });
  console.error(`listening on ${formatAddr(server.addr)}`);
  const signals = Deno.build.os === "windows" ? ["SIGINT"] as const : ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) Deno.addSignalListener(signal, () => server.shutdown());
  await server.finished;
  Deno.exit();
}
