/**
 * A listener on `node:net`.
 *
 * @module
 */

import type { AddressInfo, Server, Socket } from "node:net";
import { setImmediate } from "node:timers";
import type { Transport } from "../../internal/api/transport.ts";
import { AcceptQueue, type Outcome } from "../../internal/server/accept_queue.ts";
import { socketsTurn } from "../../internal/time/event_loop.ts";
import type { FdListener } from "../sockets/fd_listener.ts";
import { listenAgain } from "../sockets/listen_again.ts";
import { closedError, ofDeno } from "../sockets/socket_errors.ts";
import { NodeSocket, resetSocket } from "./node_socket.ts";

/** Maximum number of connections that the kernel keeps until they are accepted; it lowers this to its own maximum. */
export const LISTEN_BACKLOG = 4096;

/** Maximum number of connections that wait to be accepted; the kernel's own queue is as long for Deno's listeners. */
const BACKLOG = 511;

/**
 * Accepts the connections of a server of `node:net`. Node accepts each connection as soon as the kernel has it, and
 * cannot be told to wait, so they wait here, unread; when {@linkcode BACKLOG} wait, further ones are reset.
 */
export class NodeListener implements FdListener {
  readonly addr: Deno.Addr;
  readonly #server: Server;
  readonly #queue = new AcceptQueue();
  readonly #fd: number;
  #released = false;
  #closed = false;
  #goesOn = false;

  /**
   * @param server The server, which listens, with `allowHalfOpen` and `pauseOnConnect`.
   * @param fd Its descriptor.
   */
  constructor(server: Server, fd: number) {
    this.#server = server;
    this.#fd = fd;
    this.addr = addressOf(server.address());
    server.on("connection", (socket) => this.#add(socket));
    server.on("error", (error) => this.#queue.add({ error: ofDeno(error) }));
  }

  accept(): Promise<Transport> {
    return this.#queue.accept();
  }

  /** The number of connections that it has accepted and the server has not got yet. */
  get queued(): number {
    return this.#queue.length;
  }

  get fd(): number {
    if (this.#released) throw closedError("listener");
    return this.#fd;
  }

  inherit(): void {
    // Node leaves it as it came, and no descriptor that comes from another process is closed when a child is started.
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    // Closes the descriptor now; a callback would be called only when all connections have ended as well.
    this.#server.close();
  }

  close(): Promise<void> {
    if (this.#closed) throw closedError("listener");
    this.#closed = true;
    this.#queue.close();
    this.release();
    // Deno closes the descriptor when it next looks at the `accept` that was outstanding: only then is the port free.
    return socketsTurn().then(socketsTurn);
  }

  ref(): void {
    this.#server.ref();
  }

  unref(): void {
    this.#server.unref();
  }

  #add(socket: Socket): void {
    socket.once("close", () => this.#goOn());
    if (this.#closed || this.#queue.length >= BACKLOG) resetSocket(socket, this.addr);
    else this.#queue.add(this.#wrap(socket));
  }

  /** Makes the transport; an error if the peer has reset the connection, whose addresses are unknown then. */
  #wrap(socket: Socket): Outcome {
    if (!("hostname" in this.addr)) return { transport: new NodeSocket(socket, this.addr, this.addr) };
    const { remoteAddress, remotePort, localAddress, localPort } = socket;
    if (remoteAddress === undefined || localAddress === undefined) {
      socket.destroy();
      return { error: new Deno.errors.NotConnected("The peer has reset the connection") };
    }
    const remoteAddr = { transport: "tcp", hostname: remoteAddress, port: remotePort! } as const;
    const localAddr = { transport: "tcp", hostname: localAddress, port: localPort! } as const;
    return { transport: new NodeSocket(socket, remoteAddr, localAddr) };
  }

  /** Makes Deno accept again after a descriptor has become free. */
  #goOn(): void {
    if (this.#goesOn || this.#released || this.addr.transport !== "tcp") return;
    this.#goesOn = true;
    setImmediate(() => {
      this.#goesOn = false;
      if (this.#released) return;
      listenAgain(this.#server, LISTEN_BACKLOG);
      const { addr } = this;
      const now = addressOf(this.#server.address());
      if (addr.transport === "tcp" && now.transport === "tcp" && now.port === addr.port) return;
      // A Deno that does something else must not do it unnoticed: this ends the server.
      this.#queue.add({ error: new Deno.errors.BadResource(`The descriptor ${this.#fd} is listening elsewhere`) });
    });
  }
}

/** The address of a server. A Unix socket that came as a descriptor does not tell its path. */
function addressOf(address: AddressInfo | string | null): Deno.Addr {
  if (address === null || typeof address === "string") return { transport: "unix", path: address ?? "" };
  return { transport: "tcp", hostname: address.address, port: address.port };
}
