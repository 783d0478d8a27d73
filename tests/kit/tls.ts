/**
 * Servers and clients that speak TLS.
 *
 * @module
 */

import { Duplex } from "node:stream";
import { type ConnHandler, type LineHandler, serve, serveConnections, type ServeOptions, shout } from "@x/shouty";
import { listenTls, type ListenTlsOptions, type TlsListener, type TlsServerCredentials } from "@x/shouty/ops";
import { TestClient } from "@x/shouty/testing";
import { End } from "../../testing/pipe.ts";
import { closeQuietly, type TlsInfo, type Transport } from "../../internal/api/transport.ts";
import { type ClientTlsOptions, connectTlsOver } from "../../ops/tls/client.ts";
import { Authority, type Identity, makeIdentity } from "./certificates.ts";
import { listenLoopback, TestServer } from "./server.ts";

/** An authority and an identity that most tests share, because making keys takes a while. */
export const AUTHORITY: Authority = new Authority("test authority");
export const IDENTITY: Identity = makeIdentity("server", { by: AUTHORITY });

/** A server under TLS. */
export class TlsServer extends TestServer {
  readonly listener: TlsListener;
  readonly #identity: Identity;

  constructor(listener: TlsListener, identity: Identity, options: ServeOptions, handler: Handler) {
    super((options) => start(options, handler), { ...options, listener });
    this.listener = listener;
    this.#identity = identity;
  }

  /** Connects a client that trusts the authority, and completes its handshake; it is closed with the server. */
  async connectTls(options: Partial<Deno.ConnectTlsOptions> & Partial<Identity> = {}): Promise<TestClient> {
    const conn = await Deno.connectTls({ port: this.port, caCerts: [AUTHORITY.cert], ...options });
    const client = this.own(new TestClient(conn));
    await conn.handshake();
    return client;
  }

  /** Sends something under TLS, ends the client's side, and returns everything that comes back. */
  async talkTls(input: string | Uint8Array): Promise<string> {
    using client = await this.connectTls();
    await client.write(input);
    await client.closeWrite();
    return await client.readAll();
  }

  /** Makes a {@linkcode Cable} to the server. */
  cable(): Promise<Cable> {
    return Cable.to(this.port);
  }

  /** Reloads the credentials, with the given ones in place of the first. */
  reload(credentials: Partial<Identity>): Promise<void> {
    return this.listener.reload({ ...this.#identity, ...credentials });
  }
}

/** A proxy between one client and the server, which lets a test tamper with the bytes under TLS. */
export class Cable implements Disposable {
  readonly #listener: Deno.TcpListener;
  readonly #server: Deno.TcpConn;
  readonly #ends: Disposable[];
  /** Settles when the client's bytes may pass; while it does not, how many of the next ones pass nevertheless. */
  #hold: PromiseWithResolvers<void> | undefined;
  #passing = 0;
  readonly #passed = Promise.withResolvers<void>();

  static async to(port: number): Promise<Cable> {
    return new Cable(await Deno.connect({ port }));
  }

  private constructor(server: Deno.TcpConn) {
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.#server = server;
    this.#ends = [this.#listener, server];
    // The forwarding may end in any way, also with an error.
    this.#forward().catch(() => {});
  }

  /** Where its client connects to. */
  get port(): number {
    return this.#listener.addr.port;
  }

  /** Connects a client through the cable, and completes its handshake. */
  async connectTls(): Promise<TestClient> {
    const conn = await Deno.connectTls({ port: this.port, caCerts: [AUTHORITY.cert] });
    await conn.handshake();
    const client = new TestClient(conn);
    this.#ends.push(client);
    return client;
  }

  /** Sends bytes of the test to the server. */
  async inject(bytes: Uint8Array): Promise<void> {
    await this.#server.write(bytes);
  }

  /**
   * Holds back what the client sends, but for a number of bytes; once.
   *
   * @returns When these have been sent; and what lets the rest pass.
   */
  hold(passing: number): { readonly passed: Promise<void>; readonly release: () => void } {
    this.#passing = passing;
    const hold = this.#hold = Promise.withResolvers<void>();
    return { passed: this.#passed.promise, release: hold.resolve };
  }

  /** Ends the TCP connection towards the server without ending TLS, as any host on the way could. */
  cut(): Promise<void> {
    return this.#server.closeWrite();
  }

  [Symbol.dispose](): void {
    for (const end of this.#ends) closeQuietly({ close: () => end[Symbol.dispose]() });
  }

  async #forward(): Promise<void> {
    const client = await this.#listener.accept();
    this.#ends.push(client);
    await Promise.all([pour(client, this.#server, (bytes) => this.#pass(bytes)), pour(this.#server, client)]);
  }

  /** Sends the bytes that pass at once, and waits until the rest may. */
  async #pass(bytes: Uint8Array): Promise<Uint8Array> {
    if (this.#hold === undefined) return bytes;
    const [first, rest] = [bytes.subarray(0, this.#passing), bytes.subarray(this.#passing)];
    this.#passing -= first.length;
    await this.#server.write(first);
    if (this.#passing === 0) this.#passed.resolve();
    await this.#hold.promise;
    return rest;
  }
}

async function pour(
  from: Deno.Conn,
  to: Deno.Conn,
  pass: (bytes: Uint8Array) => Uint8Array | Promise<Uint8Array> = (bytes) => bytes,
): Promise<void> {
  const buffer = new Uint8Array(64 * 1024);
  for (let count = await from.read(buffer); count !== null; count = await from.read(buffer)) {
    const bytes = await pass(buffer.subarray(0, count));
    for (let sent = 0; sent < bytes.length;) sent += await to.write(bytes.subarray(sent));
  }
}

/** Wraps a client as a stream on which `node:tls` can run. */
export function streamOf(client: TestClient): Duplex {
  return new Duplex({
    allowHalfOpen: true,
    read() {
      client.read().then((bytes) => this.push(bytes), (error) => this.destroy(error));
    },
    write(bytes, _encoding, done) {
      client.write(bytes).then(() => done(), done);
    },
    final(done) {
      client.closeWrite().then(() => done(), done);
    },
    destroy(_error, done) {
      client[Symbol.dispose]();
      done(null);
    },
  });
}

/** Two ends in memory, for a server's and a client's side of TLS. */
export function pipe(bufferBytes: number = 64 * 1024): [server: End, client: End] {
  const addr = (port: number): Deno.Addr => ({ transport: "tcp", hostname: "127.0.0.1", port });
  return End.pair(bufferBytes, addr(1), addr(2));
}

/** Connects a client to credentials in memory, and returns both sides' transports; `close` closes both. */
export async function shakeHands(
  credentials: TlsServerCredentials,
  options: Partial<ClientTlsOptions> = {},
): Promise<Secured> {
  const [serverEnd, clientEnd] = pipe();
  const close = () => [serverEnd, clientEnd].forEach(closeQuietly);
  try {
    const [server, client] = await Promise.all([
      credentials.accept(serverEnd, new Uint8Array()),
      connectTlsOver(clientEnd, { serverName: "localhost", caCerts: AUTHORITY.cert, ...options }),
    ]);
    return { server, client, [Symbol.dispose]: close };
  } catch (error) {
    close();
    throw error;
  }
}

/** Both sides of a TLS connection. */
export interface Secured extends Disposable {
  server: Transport & { readonly tls: TlsInfo };
  client: Transport & { readonly tls: TlsInfo };
}

type Handler = LineHandler | { conversation: ConnHandler };
type TlsOptions = Partial<ListenTlsOptions>;

function start(options: ServeOptions, handler: Handler) {
  return "conversation" in handler ? serveConnections(options, handler.conversation) : serve(options, handler);
}

/** Starts a server under TLS, on a free port of the loopback. */
export async function startTls(
  tls: TlsOptions = {},
  options: ServeOptions = {},
  handler: Handler = shout,
): Promise<TlsServer> {
  const identity = tls.credentials === undefined ? IDENTITY : {};
  const listener = await listenTls({ listener: tls.listener ?? listenLoopback(), ...identity, ...tls });
  return new TlsServer(listener, { ...IDENTITY, ...tls } as Identity, options, handler);
}
