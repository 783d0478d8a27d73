/**
 * Twelve kinds of bad clients. Each misbehaves on one connection, and is started again until the time is up.
 *
 * This folder holds the parts of `deno task chaos`: the bad clients (here) and their process (`crowd.ts`), the good
 * clients (`good.ts`), the server (`victim.ts`), the machine's speed (`pulse.ts`), and the result (`report.ts`).
 *
 * @module
 */

import { connect as connectFrom } from "node:net";

/** The server's port, and the signal that ends the clients. */
export interface Target {
  port: number;
  signal: AbortSignal;
}

type BadClient = (conn: Deno.TcpConn, target: Target) => Promise<void>;

/** The address of a trusted proxy, in the server's flags. */
export const PROXY_ADDRESS = "127.0.0.2";

const LINES = bytesOf("the quick brown fox jumps\n".repeat(2400));
const ENDLESS = bytesOf("x".repeat(64 * 1024));
const CLIENT_HELLO = new Uint8Array([22, 3, 1, 0, 5, 1, 0, 0, 1, 0]);
const GIGABYTE = 2 ** 30;
const GARBAGE = ["PROXY TCP4 999.1.1.1 x 1 2\r\n", "PROXY \0\xff", "\r\n\r\n\0\r\nQUIT\n\xff\xff\xff\xff", "hello\n"];

/** The kinds that misbehave on one connection each, by name. */
const CLIENTS: Readonly<Record<string, BadClient>> = {
  "slowloris": async (conn, { signal }) => {
    while (!signal.aborted) await send(conn, "x"), await pause(400);
  },
  "never reads": async (conn, { signal }) => {
    while (!signal.aborted) await sendAll(conn, LINES);
  },
  "reads one byte a second": async (conn, { signal }) => {
    const sending = sendAll(conn, LINES);
    sending.catch(() => {});
    while (!signal.aborted && await conn.read(new Uint8Array(1)) !== null) await pause(1000);
  },
  "resets mid-reply": async (conn) => {
    await sendAll(conn, LINES.subarray(0, 16 * 1024));
    // Closing with unread input makes the kernel send a reset.
    await conn.read(new Uint8Array(1));
  },
  "half-opens": async (conn, { signal }) => {
    await send(conn, "half a li");
    await conn.closeWrite();
    for (let i = 0; i < 30 && !signal.aborted; i++) await pause(100);
  },
  "endless line": async (conn, { signal }) => {
    while (!signal.aborted) await sendAll(conn, ENDLESS);
  },
  "byte at a time": async (conn, { signal }) => {
    const reading = discard(conn);
    while (!signal.aborted) for (const byte of "hello\n") await send(conn, byte), await pause(5);
    await reading;
  },
  "1 GB upload": async (conn, { signal }) => {
    discard(conn);
    for (let sent = 0; sent < GIGABYTE && !signal.aborted; sent += LINES.length) await sendAll(conn, LINES);
  },
  "TLS to plain": async (conn) => {
    await conn.write(CLIENT_HELLO);
    await discard(conn);
  },
  "at-limit idler": async (conn, { signal }) => {
    while (!signal.aborted) {
      await send(conn, "x\n");
      await conn.read(new Uint8Array(16));
      await pause(1800);
    }
  },
};

/** The names of all kinds. */
export const KINDS: readonly string[] = [...Object.keys(CLIENTS), "connect storm", "garbage PROXY"];

/** Runs one client of a kind again and again until the time is up; returns how often it ran. */
export async function misbehave(kind: string, target: Target): Promise<number> {
  let times = 0;
  for (; !target.signal.aborted; times++) {
    // The server closes the connection of nearly every bad client.
    await once(kind, target).catch(() => {});
    await pause(300 + 400 * Math.random());
  }
  return times;
}

async function once(kind: string, target: Target): Promise<void> {
  if (kind === "connect storm") return await storm(target);
  if (kind === "garbage PROXY") return await garble(target);
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: target.port });
  // The client may wait for ever; only closing its socket ends that.
  const close = () => quietly(() => conn.close());
  target.signal.addEventListener("abort", close);
  try {
    await CLIENTS[kind](conn, target);
  } finally {
    target.signal.removeEventListener("abort", close);
    close();
  }
}

async function storm({ port }: Target): Promise<void> {
  const connecting = Array.from({ length: 10 }, () => Deno.connect({ hostname: "127.0.0.1", port }));
  for (const { value } of (await Promise.allSettled(connecting)).filter((result) => result.status === "fulfilled")) {
    value.close();
  }
}

/** Sends a malformed PROXY header from the address of the trusted proxy. */
async function garble({ port }: Target): Promise<void> {
  const socket = connectFrom({ port, host: "127.0.0.1", localAddress: PROXY_ADDRESS });
  const closed = new Promise((resolve) => socket.on("close", resolve).on("error", resolve));
  socket.resume().write(bytesOf(GARBAGE[Math.floor(Math.random() * GARBAGE.length)]));
  await Promise.race([closed, pause(1000)]);
  socket.destroy();
}

async function send(conn: Deno.Conn, text: string): Promise<void> {
  await conn.write(bytesOf(text));
}

async function sendAll(conn: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let sent = 0; sent < bytes.length;) sent += await conn.write(bytes.subarray(sent));
}

async function discard(conn: Deno.Conn): Promise<void> {
  const buffer = new Uint8Array(64 * 1024);
  try {
    while (await conn.read(buffer) !== null);
  } catch {
    // A bad client may end in any way.
  }
}

function bytesOf(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text, (char) => char.charCodeAt(0));
}

function quietly(close: () => void): void {
  try {
    close();
  } catch {
    // It is closed already.
  }
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
