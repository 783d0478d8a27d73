/**
 * Peers and processes for the tests of epoll's sockets.
 *
 * @module
 */

import { once } from "node:events";
import { connect } from "node:net";
import { assertEquals } from "@std/assert";
import type { Listener, Transport } from "@x/shouty";
import { TestClient } from "@x/shouty/testing";
import { socketsTurn } from "../../../internal/time/event_loop.ts";
import { test as bounded } from "../bounded.ts";
import { Subprocess } from "../command.ts";
import { NO_EPOLL } from "./epoll.ts";

/** The address of the listeners in these tests. */
export const LOOPBACK = { hostname: "127.0.0.1", port: 0 };

/** Registers a test that needs epoll. */
export function test(name: string, body: () => void | Promise<void>, missing = ""): void {
  bounded(name, body, 60, NO_EPOLL || missing);
}

/** Connects a client, and returns both ends of the connection. */
export async function pair(listener: Listener): Promise<[TestClient, Transport]> {
  const { port, hostname } = listener.addr as Deno.NetAddr;
  const connecting = Deno.connect({ port, hostname: hostname.replace(/^::$|^::ffff:0.*/, "127.0.0.1") });
  const transport = await listener.accept();
  return [new TestClient(await connecting), transport];
}

export async function readText(transport: Transport, bytes = 100): Promise<string | null> {
  const buffer = new Uint8Array(bytes);
  const count = await transport.read(buffer);
  return count === null ? null : new TextDecoder().decode(buffer.subarray(0, count));
}

/**
 * Writes to a peer that does not read, until a write waits; `over` rejects with the error that ends the writing. One
 * write is not enough: the kernel's buffers grow, and take more than the first write has found room for.
 */
export async function flood(transport: Transport): Promise<{ over: Promise<never> }> {
  const bytes = new Uint8Array(8 * 1024 * 1024);
  let taken = 0;
  const over = (async () => {
    for (;;) taken += await transport.write(bytes);
  })();
  for (let before = -1; taken > before;) {
    before = taken;
    await socketsTurn();
  }
  return { over };
}

/** Lists the open file descriptors of this process. */
export function descriptors(): string[] {
  return Array.from(Deno.readDirSync("/proc/self/fd"), ({ name }) => name);
}

/** Returns a client that has reset its connection, and the server's end of it. */
export async function broken(
  listener: Listener,
  before: (transport: Transport) => Promise<void>,
  lastWords = "",
): Promise<Transport> {
  const connected = Promise.withResolvers<void>();
  const socket = connect((listener.addr as Deno.NetAddr).port, "127.0.0.1", connected.resolve);
  const transport = await listener.accept();
  await connected.promise;
  await before(transport);
  if (lastWords !== "") await new Promise((resolve) => socket.write(lastWords, resolve));
  const closed = once(socket, "close");
  socket.resetAndDestroy();
  await closed;
  return transport;
}

/** A client on the C library, which can do more than Deno's. */
export class RawPeer {
  static readonly MSG_OOB = 1;
  readonly #libc = Deno.dlopen("libc.so.6", {
    socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
    connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
    send: { parameters: ["i32", "buffer", "u32", "i32"], result: "i32" },
    recv: { parameters: ["i32", "buffer", "u32", "i32"], result: "i32" },
    getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
    setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
    getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
    getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
  });
  readonly #fd: number;

  constructor(port: number) {
    const [AF_INET, SOCK_STREAM, SOCK_CLOEXEC] = [2, 1, 0o2000000];
    const { socket, connect } = this.#libc.symbols;
    // A child process that another test starts would keep the connection open if it inherited the descriptor.
    this.#fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const address = Uint8Array.of(2, 0, port >> 8, port, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    assertEquals(connect(this.#fd, address, address.length), 0);
  }

  send(text: string, flags = 0): void {
    const bytes = new TextEncoder().encode(text);
    assertEquals(this.#libc.symbols.send(this.#fd, bytes, bytes.length, flags), bytes.length);
  }

  /** Reads at most the given number of bytes without waiting; returns how many there were. */
  receive(bytes: number): number {
    const MSG_DONTWAIT = 0x40;
    return Math.max(0, this.#libc.symbols.recv(this.#fd, new Uint8Array(bytes), bytes, MSG_DONTWAIT));
  }

  /** Returns the descriptor of the other end, which is open in this process, too. */
  otherEnd(): number {
    const { getsockname, getpeername } = this.#libc.symbols;
    const own = this.#portOf(getsockname, this.#fd);
    return descriptors().map(Number).find((fd) => this.#portOf(getpeername, fd) === own)!;
  }

  #portOf(
    name: (fd: number, address: Uint8Array<ArrayBuffer>, size: Uint8Array<ArrayBuffer>) => number,
    fd: number,
  ): number {
    const address = new Uint8Array(28);
    name(fd, address, new Uint8Array(Uint32Array.of(address.length).buffer));
    return address[2] << 8 | address[3];
  }

  /** Returns an option of a socket. */
  option(fd: number, level: number, name: number): number {
    const value = new Int32Array(1);
    const size = new Uint8Array(Uint32Array.of(4).buffer);
    const bytes = new Uint8Array(value.buffer);
    assertEquals(this.#libc.symbols.getsockopt(fd, level, name, bytes, size), 0);
    return value[0];
  }

  /** Resets the connection, which is done when this returns. */
  reset(): void {
    const [SOL_SOCKET, SO_LINGER] = [1, 13];
    const linger = new Uint8Array(Int32Array.of(1, 0).buffer);
    this.#libc.symbols.setsockopt(this.#fd, SOL_SOCKET, SO_LINGER, linger, linger.length);
    this.close();
  }

  close(): void {
    this.#libc.symbols.close(this.#fd);
    this.#libc.close();
  }
}

/** Runs a script in a process of its own while `use` runs. */
export async function withScript(
  script: string,
  flags: string[],
  use: (process: Subprocess, path: string) => Promise<void>,
): Promise<void> {
  const config = `${import.meta.dirname}/../../../deno.json`;
  const path = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    await Deno.writeTextFile(path, script);
    const args = ["run", "--no-prompt", "--config", config, ...flags, path];
    await using process = new Subprocess(Deno.execPath(), args);
    await use(process, path);
  } finally {
    await Deno.remove(path);
  }
}

/** A listener that is closed when it goes out of scope. */
export function disposable(listener: Listener): Listener & Disposable {
  return Object.assign(listener, { [Symbol.dispose]: () => void listener.close() });
}
