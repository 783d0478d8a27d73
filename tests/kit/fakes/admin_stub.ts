/**
 * An admin port without a server behind it: it shows what a test has put there, and records what is asked of it. The page
 * can so be shown states that a real server has for moments only.
 *
 * @module
 */

import { loadPage } from "../../../ops/admin/page.ts";

/** A connection as `/connections` has it. */
export interface StubConn {
  id: number;
  peer: string;
  local: string;
  ageMs: number;
  idleMs: number;
  lines: number;
  bytesIn: number;
  bytesOut: number;
  phase: string;
  waitsFor: string;
  detail?: string;
}

/** Makes a connection. */
export function stubConn(id: number, conn: Partial<StubConn> = {}): StubConn {
  return {
    id,
    peer: `192.0.2.${id % 250}:${40000 + id}`,
    local: "192.0.2.250:8080",
    ageMs: 1000 * id,
    idleMs: 10 * id,
    lines: 3 * id,
    bytesIn: 100 * id,
    bytesOut: 120 * id,
    phase: "open",
    waitsFor: "peer",
    ...conn,
  };
}

/** A status as `/status` has it, which a test changes. */
export interface StubStatus {
  [key: string]: unknown;
  uptimeMs: number;
  limits: Record<string, unknown>;
  stats: Record<string, number | Record<string, number>> & { lines: number; bytesIn: number; bytesOut: number };
  metrics: Record<string, unknown>;
}

function firstStatus(startedAt: string): StubStatus {
  const traffic = { lines: 0, bytesIn: 0, bytesOut: 0 };
  const none = { accepted: 0, active: 0, rejected: 0, gone: 0, queued: 0, handlers: 0, hookErrors: 0 };
  const maxima = { maxConnections: 10000, maxConnectionsPerIp: null, maxLineBytes: 65536 };
  return {
    ...{ name: "shouty", version: "0.1.0", pid: 4711, startedAt, uptimeMs: 0, addrs: ["0.0.0.0:8080"] },
    ...{ state: "listening", paused: false, ready: true, reasons: [] },
    limits: { ...maxima, atCapacity: "reject", idleTimeout: 10000, deny: null },
    stats: { ...traffic, ...none, closed: {}, details: {} },
    metrics: {
      handlerMs: { count: 0, p50: null, p90: null, p99: null },
      rejected: {},
      handshakes: { active: 0, done: {}, failed: {} },
    },
  };
}

/** The admin port of a test. */
export class AdminStub implements AsyncDisposable {
  /** What is asked for, such as `POST /pause` with the body behind it; the page's many reads are not among it. */
  readonly commands: string[] = [];
  /** The last query of `/connections`. */
  query = "";
  readonly status: StubStatus;
  connections: StubConn[] = [];
  /** Resolves when a page listens for changes. */
  readonly listened: Promise<void>;
  readonly #listened = Promise.withResolvers<void>();
  readonly #token: string | undefined;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #streams = new Set<ReadableStreamDefaultController<Uint8Array>>();

  /**
   * Listens.
   *
   * @param options `token` is asked for if it is given; `port` is a free one by default.
   */
  constructor({ token, port = 0, startedAt = "2026-11-29T08:00:00.000Z" }: {
    token?: string;
    port?: number;
    startedAt?: string;
  } = {}) {
    this.listened = this.#listened.promise;
    this.#token = token;
    this.status = firstStatus(startedAt);
    const options = { hostname: "127.0.0.1", port, onListen: () => {} };
    this.#server = Deno.serve(options, (request) => this.#answer(request));
  }

  get port(): number {
    return this.#server.addr.port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}/`;
  }

  /** Lets time pass on the server, and tells the pages that listen. */
  tick(ms: number, lines = 0): void {
    const { stats } = this.status;
    this.status.uptimeMs += ms;
    stats.lines += lines;
    stats.bytesIn += 40 * lines;
    stats.bytesOut += 44 * lines;
    stats.active = this.connections.length;
    for (const stream of this.#streams) stream.enqueue(this.#event());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const stopped = this.#server.shutdown();
    for (const stream of this.#streams) stream.close();
    this.#streams.clear();
    await stopped;
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname, search } = new URL(request.url);
    if (pathname === "/") return await pageResponse();
    if (request.method !== "GET") this.commands.push(`${request.method} ${pathname} ${await request.text()}`.trim());
    if (pathname === "/login") return this.#login();
    const hasToken = this.#token === undefined || request.headers.get("cookie") === `token=${this.#token}`;
    if (!hasToken) return Response.json({ error: "A token is needed" }, { status: 401 });
    if (pathname === "/connections") this.query = search;
    return this.#routes[`${request.method} ${pathname}`]?.() ?? new Response(null, { status: 202 });
  }

  readonly #routes: Record<string, () => Response> = {
    "GET /status": () => Response.json(this.status),
    "GET /connections": () => this.#table(),
    "GET /events": () => this.#events(),
    "POST /pause": () => this.#paused(true),
    "POST /resume": () => this.#paused(false),
    "PATCH /limits": () => this.#changeLimits(),
    "POST /logout": () => new Response(null, { status: 204, headers: { "set-cookie": "token=; Path=/; Max-Age=0" } }),
  };

  #login(): Response {
    const { token } = JSON.parse(this.commands.at(-1)!.slice("POST /login ".length));
    if (token !== this.#token) return Response.json({ error: "This is not the token" }, { status: 401 });
    const cookie = `token=${token}; HttpOnly; SameSite=Strict; Path=/`;
    return new Response(null, { status: 204, headers: { "set-cookie": cookie } });
  }

  #paused(paused: boolean): Response {
    Object.assign(this.status, { paused, ready: !paused, reasons: paused ? ["paused"] : [] });
    return Response.json(this.status);
  }

  #changeLimits(): Response {
    const change = JSON.parse(this.commands.at(-1)!.slice("PATCH /limits ".length));
    if (change.maxConnections < 0) return Response.json({ error: "maxConnections is -1" }, { status: 400 });
    return Response.json(Object.assign(this.status.limits, change));
  }

  #table(): Response {
    const params = new URLSearchParams(this.query);
    const has = (text: string | undefined) => text?.includes(params.get("filter") ?? "") ?? false;
    const found = this.connections.filter(({ peer, detail }) => has(peer) || has(detail));
    if (params.get("sort")?.startsWith("-")) found.reverse();
    const offset = Number(params.get("offset"));
    const connections = found.slice(offset, offset + Number(params.get("limit")));
    return Response.json({ total: this.connections.length, matched: found.length, connections });
  }

  #events(): Response {
    let stream: ReadableStreamDefaultController<Uint8Array>;
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        stream = controller;
        this.#streams.add(stream);
        stream.enqueue(this.#event());
        this.#listened.resolve();
      },
      cancel: () => void this.#streams.delete(stream),
    });
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  }

  #event(): Uint8Array {
    return new TextEncoder().encode(`event: status\ndata: ${JSON.stringify(this.status)}\n\n`);
  }
}

/** The page as the admin port sends it. */
async function pageResponse(): Promise<Response> {
  const { body, type, headers } = await loadPage();
  return new Response(body, { headers: { "Content-Type": type!, ...headers } });
}
