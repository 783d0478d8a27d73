/**
 * A balancer for line servers that answer each line with one line: the lines of all clients are spread over several
 * upstreams, and each client gets its replies in the order of its lines.
 *
 * Run it with a port and the upstreams, here two of `examples/shout_stream.ts`:
 * `deno run -A examples/balancer.ts 8079 127.0.0.1:8080 127.0.0.1:8081 --retry`
 *
 * ```text
 * $ nc 127.0.0.1 8079
 * hello
 * HELLO
 * ```
 *
 * A line that an upstream has got, but not answered when its connection ends, may have been carried out. With `--retry`
 * another upstream gets it, too, which is right for shouting: it can be repeated. Without, the client gets
 * `error: lost`: the balancer cannot know whether a line that says "add one" may be carried out twice.
 *
 * @module
 */

import { type Conn, connectPool, type ConnPool, formatAddr, serveConnections } from "@x/shouty";
import type { PoolEvent, PoolOptions, ServeOptions, Server } from "@x/shouty";

const CONNECTIONS = 2; // To each upstream.
const MAX_OWED = 64; // Lines on one connection that wait for their replies.
const MAX_WINDOW = 64; // Lines of one client that are on their way. With `maxConnections`, it bounds what waits.
const MAX_TRIES = 3; // Of one line: it may be what ends the connections.
const MAX_LINE_BYTES = 65_536;
const REPLY_MS = 5_000; // Maximum time for a reply.
/** Bytes pass unchanged. A last reply without its end is not a whole one. */
const FRAMING = { lineEnd: "lf", encoding: "latin1", unterminated: "drop" } as const;

/** What a balancer needs. */
export interface BalancerOptions {
  /** The upstreams, and whatever is different with them. */
  upstreams: PoolOptions[];
  /** Whether a line may be repeated that an upstream has perhaps carried out. @default {false} */
  retry?: boolean;
  /** Maximum time in milliseconds for which a line waits for a connection that has room. @default {5_000} */
  waitMs?: number;
}

/** A line on its way. */
interface Job {
  readonly line: string;
  readonly answer: (reply: string) => void;
  tries: number;
  timer?: ReturnType<typeof setTimeout>;
}

/** A connection to an upstream, and the lines to which it owes replies, in order. */
interface Link {
  readonly conn: Conn;
  readonly owed: Job[];
}

/** Asks the upstreams. */
export class Balancer implements AsyncDisposable {
  readonly #retry: boolean;
  readonly #waitMs: number;
  readonly pools: readonly ConnPool[];
  /** The open connections; the one that got a line last comes last. */
  readonly #links = new Set<Link>();
  /** Lines that wait for a connection with room. If there are any, no connection has room. */
  readonly #waiting = new Set<Job>();

  constructor({ upstreams, retry = false, waitMs = 5_000 }: BalancerOptions) {
    this.#retry = retry;
    this.#waitMs = waitMs;
    const limits = {
      // A quiet connection ends before the upstream ends it, by default after 10 s: a line could meet that end.
      idleTimeout: 5_000,
      // In upper case, a text can take three times its bytes.
      maxLineBytes: 3 * MAX_LINE_BYTES,
      // The writes are not awaited.
      maxQueuedBytes: MAX_OWED * (MAX_LINE_BYTES + 1),
      ...{ size: CONNECTIONS, minBackoff: 10, maxBackoff: 1000, framing: FRAMING, drain: "finish" } as const,
    };
    this.pools = upstreams.map((upstream) => connectPool({ ...limits, ...upstream }, (conn) => this.#use(conn)));
  }

  /** Sends a line to an upstream; returns its reply, or a line that says why there is none. Never rejects. */
  ask(line: string): Promise<string> {
    return new Promise((answer) => this.#submit({ line, answer, tries: 0 }));
  }

  #submit(job: Job): void {
    this.#waiting.add(job);
    this.#dispatch();
    if (!this.#waiting.has(job)) return;
    job.timer = setTimeout(() => this.#waiting.delete(job) && job.answer("error: no upstream"), this.#waitMs);
  }

  /** Sends what waits, while a connection has room. */
  #dispatch(): void {
    for (const job of this.#waiting) {
      const link = this.#leastBusy();
      if (link === undefined) return;
      clearTimeout(job.timer);
      this.#waiting.delete(job);
      this.#links.delete(link);
      this.#links.add(link);
      if (link.owed.push(job) === 1) link.conn.setDeadline(REPLY_MS, "reply");
      link.conn.write(`${job.line}\n`);
    }
  }

  #leastBusy(): Link | undefined {
    let best: Link | undefined;
    for (const link of this.#links) {
      const isOpen = link.conn.ending === undefined;
      if (isOpen && link.owed.length < (best?.owed.length ?? MAX_OWED)) best = link;
    }
    return best;
  }

  /** Uses a connection to an upstream until it ends. */
  async #use(conn: Conn): Promise<void> {
    const link: Link = { conn, owed: [] };
    this.#links.add(link);
    this.#dispatch();
    for await (const reply of conn.lines) {
      const job = link.owed.shift();
      // A reply without a request: which requests the next replies belong to is unknown.
      if (job === undefined) break;
      job.answer(reply);
      conn.setDeadline(link.owed.length > 0 ? REPLY_MS : Infinity, "reply");
      this.#dispatch();
    }
    this.#links.delete(link);
    for (const job of link.owed) {
      if (this.#retry && ++job.tries < MAX_TRIES) this.#submit(job);
      else job.answer("error: lost");
    }
  }

  /** Answers a client. */
  async talk(client: Conn): Promise<void> {
    for await (const lines of client.batches) {
      while (lines.length > 0) {
        const replies = await Promise.all(lines.splice(0, MAX_WINDOW).map((line) => this.ask(line)));
        await client.write(replies.map((reply) => `${reply}\n`).join(""));
      }
    }
  }

  /** Serves clients on loopback; the options go to the server. */
  serve(options: ServeOptions = {}): Server {
    const limits = {
      maxConnections: 1000,
      maxLineBytes: MAX_LINE_BYTES,
      idleTimeout: 60_000,
      drain: "finish",
    } as const;
    const framing = { ...FRAMING, unterminated: "line" } as const;
    return serveConnections({ hostname: "127.0.0.1", ...limits, framing, ...options }, (client) => this.talk(client));
  }

  /** Ends the connections to the upstreams. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.pools.map((pool) => pool.shutdown()));
  }
}

if (import.meta.main) {
  const [port, ...rest] = Deno.args;
  const log = (name: string) => (event: PoolEvent) => {
    if (event.type === "connect-error") console.error(`${event.error}; next attempt in ${event.retryMs} ms`);
    else if (event.type === "closed" && !/^(idle|drained)$/.test(event.reason)) {
      console.error(`${name}: ${event.reason}`);
    }
  };
  const upstreams = rest.filter((arg) => arg !== "--retry").map((name) => {
    const { hostname, port } = new URL(`tcp://${name}`);
    return { hostname, port: Number(port), onEvent: log(name) };
  });
  const balancer = new Balancer({ upstreams, retry: rest.includes("--retry") });
  const server = balancer.serve({ port: Number(port) });
  console.error(`listening on ${formatAddr(server.addr)}`);
  const signals = Deno.build.os === "windows" ? ["SIGINT"] as const : ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) Deno.addSignalListener(signal, () => server.shutdown());
  await server.finished;
  await balancer[Symbol.asyncDispose]();
  Deno.exit();
}
