/**
 * A listener whose connections are in memory.
 *
 * @module
 */

import { checkOptions, checkWhole, checkWord, DEFAULT_PORT, show } from "../internal/api/check.ts";
import type { Listener, ProxyInfo, Transport } from "../internal/api/transport.ts";
import { AcceptQueue } from "../internal/server/accept_queue.ts";
import { type MemoryTlsInfo, tlsInfoOf } from "./memory_tls.ts";
import { End } from "./pipe.ts";
import { TestClient } from "./test_client.ts";

/** Options of {@linkcode MemoryListener}. */
export interface MemoryListenerOptions {
  /**
   * Maximum bytes that each direction of a connection holds before a write has to wait for a read, like the kernel's
   * socket buffers. With a small one, the server soon meets a client that does not read.
   *
   * @default {65_536}
   */
  bufferBytes?: number | undefined;
}

/** Options of {@linkcode MemoryListener.connect}: what a server would learn from listeners that are not in memory. */
export interface MemoryConnectOptions {
  /**
   * What the server sees as `conn.tls`, as if it listened with `listenTls`; by default the connection is not encrypted.
   * In memory it never is.
   */
  tls?: MemoryTlsInfo | undefined;
  /** What the server sees as `conn.proxy`, as if it listened with `proxyProtocol`. */
  proxy?: Partial<ProxyInfo> | undefined;
}

/** The port of the first client, and the number of ports: the following clients have the following ports, round and round. */
const FIRST_CLIENT_PORT = 49_152;
const CLIENT_PORTS = 65_536 - FIRST_CLIENT_PORT;

/**
 * A listener in memory; `serve({ listener })` takes one, owns it, and closes it.
 *
 * @example A client that does not read is timed out
 * ```ts
 * import { serve, type ServerEvent } from "@x/shouty";
 * import { FakeClock, MemoryListener } from "@x/shouty/testing";
 * import { assertEquals } from "@std/assert";
 *
 * const clock = new FakeClock();
 * const listener = new MemoryListener({ bufferBytes: 16 });
 * const events: ServerEvent[] = [];
 * await using _server = serve({ listener, clock, writeTimeout: 500, onEvent: (event) => events.push(event) });
 *
 * const client = listener.connect();
 * await client.write("more than fits\ninto the buffer\n");
 * await clock.advance(500);
 *
 * const closed = events.find((event) => event.type === "closed");
 * assertEquals(closed?.reason, "write-timeout");
 * ```
 */
export class MemoryListener implements Listener {
  /** The listener's address: always 127.0.0.1, port 8080, although nothing is bound. */
  readonly addr: Deno.Addr = tcp(DEFAULT_PORT);
  readonly #bufferBytes: number;
  readonly #backlog = new AcceptQueue<End>();
  #clients = 0;
  #closed = false;

  /**
   * Creates a listener, which listens already.
   *
   * @param options The size of the connections' buffers.
   * @throws {RangeError | TypeError} If an option is wrong.
   */
  constructor(options: MemoryListenerOptions = {}) {
    checkOptions("MemoryListener options", options);
    const { bufferBytes = 65_536 } = options;
    checkWhole("bufferBytes", bufferBytes, 1, Number.MAX_SAFE_INTEGER);
    this.#bufferBytes = bufferBytes;
  }

  /**
   * Connects a client.
   *
   * @param remoteAddr The client's address; by default 127.0.0.1, with a port that differs for 16 384 clients in a row.
   * @param options What the server sees of the client besides its address.
   * @returns The client's end. The connection waits in the backlog until the server accepts it.
   * @throws {Deno.errors.ConnectionRefused} If the listener is closed.
   * @throws {RangeError | TypeError} If the address or an option is wrong.
   */
  connect(remoteAddr: Deno.Addr = this.#nextAddr(), options: MemoryConnectOptions = {}): TestClient {
    checkAddr(remoteAddr);
    checkOptions("connect options", options);
    if (options.proxy !== undefined) checkOptions("proxy", options.proxy);
    return new TestClient(this.#open(remoteAddr, options));
  }

  /**
   * Opens a connection for `connect({ dial })` or `connectPool({ dial })`: the code under test gets one end, and the other
   * waits in the backlog, for a server (`serve({ listener })`) or for the test: `new TestClient(await listener.accept())`.
   *
   * @returns The end of the code under test.
   * @throws {Deno.errors.ConnectionRefused} (As a rejection.) If the listener is closed.
   *
   * @example Code that connects, and the test as the server
   * ```ts
   * import { connect } from "@x/shouty";
   * import { FakeClock, MemoryListener, TestClient } from "@x/shouty/testing";
   * import { assertEquals } from "@std/assert";
   *
   * const clock = new FakeClock();
   * const upstream = new MemoryListener();
   * await using conn = await connect({ dial: () => upstream.dial(), clock, idleTimeout: 5000 });
   * using peer = new TestClient(await upstream.accept());
   *
   * await conn.write("PING\n");
   * assertEquals(await peer.readLine(), "PING");
   * const answer = conn.readLine();
   * await clock.advance(5000);
   * assertEquals([await answer, conn.ending], [null, "idle"]);
   * await peer.closeWrite();
   * ```
   *
   * @example A server that refuses, is up late, and resets
   * ```ts
   * import { connectPool, type PoolEvent } from "@x/shouty";
   * import { FakeClock, MemoryListener, TestClient } from "@x/shouty/testing";
   * import { assertEquals } from "@std/assert";
   *
   * const clock = new FakeClock();
   * const events: PoolEvent["type"][] = [];
   * let upstream = new MemoryListener();
   * const dial = async () => {
   *   await new Promise<void>((resolve) => clock.setTimer(resolve, 50));
   *   return await upstream.dial();
   * };
   * const onEvent = ({ type }: PoolEvent) => void events.push(type);
   * const pool = connectPool({ dial, clock, onEvent }, async (conn) => void await conn.readLine());
   *
   * upstream.close();
   * await clock.advance(50);
   * assertEquals(events, ["connect-error"]);
   *
   * upstream = new MemoryListener();
   * await clock.advance(1000);
   * new TestClient(await upstream.accept()).reset();
   * await clock.advance(0);
   * assertEquals(events, ["connect-error", "accepted", "closed"]);
   * await pool.shutdown();
   * ```
   */
  // deno-lint-ignore require-await -- what it throws is a rejection
  async dial(): Promise<Transport> {
    return this.#open(this.#nextAddr(), {});
  }

  #nextAddr(): Deno.NetAddr {
    return tcp(FIRST_CLIENT_PORT + this.#clients++ % CLIENT_PORTS);
  }

  #open(remoteAddr: Deno.Addr, { tls, proxy }: MemoryConnectOptions): End {
    if (this.#closed) throw new Deno.errors.ConnectionRefused("Cannot connect: the listener is closed");
    const [server, client] = End.pair(this.#bufferBytes, this.addr, remoteAddr, {
      tls: tls && tlsInfoOf(tls),
      proxy: proxy && { tlvs: new Map(), ...proxy },
    });
    this.#backlog.add({ transport: server });
    return client;
  }

  /**
   * Waits for a connection. The server calls it; or a test that plays the server itself, for a `TestClient`.
   *
   * @returns The server's end of the connection.
   * @throws {Deno.errors.BadResource} (As a rejection.) If the listener is closed.
   * @throws {Deno.errors.Busy} (As a rejection.) If another call is outstanding.
   */
  // deno-lint-ignore require-await -- some microtasks later, so that a client can write before it is served
  async accept(): Promise<Transport> {
    return this.#backlog.accept();
  }

  /**
   * Stops listening, and resets the connections that were not accepted; the server calls it.
   *
   * @throws {Deno.errors.BadResource} If it is closed already.
   */
  close(): void {
    if (this.#closed) throw new Deno.errors.BadResource("The listener is closed");
    this.#closed = true;
    for (const end of this.#backlog.transports) end.reset();
    this.#backlog.close();
  }
}

/** The kinds of {@linkcode Deno.Addr}. */
const TRANSPORTS: readonly string[] = ["tcp", "udp", "unix", "unixpacket", "vsock", "tunnel"];

function checkAddr(addr: unknown): void {
  if (typeof addr !== "object" || addr === null) {
    const allowed = 'expected an address such as { transport: "tcp", hostname: "192.0.2.1", port: 5000 }';
    throw new TypeError(`Cannot use remoteAddr ${show(addr)}: ${allowed}`);
  }
  const { transport, hostname, port, path } = addr as Record<string, unknown>;
  checkWord("remoteAddr.transport", transport, TRANSPORTS);
  if (transport === "tcp" || transport === "udp") {
    checkText("remoteAddr.hostname", hostname);
    checkWhole("remoteAddr.port", port as number, 0, 65_535);
  } else if (transport === "unix" || transport === "unixpacket") checkText("remoteAddr.path", path);
}

function checkText(name: string, value: unknown): void {
  if (typeof value !== "string") throw new TypeError(`Cannot use ${name} ${show(value)}: expected a string`);
}

function tcp(port: number): Deno.NetAddr {
  return { transport: "tcp", hostname: "127.0.0.1", port };
}
