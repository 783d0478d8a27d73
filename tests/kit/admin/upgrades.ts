/**
 * A server process that hands its sockets on to others, and clients that notice if one gets lost.
 *
 * @module
 */

import { ask } from "./admin.ts";
import { within } from "../bounded.ts";
import { startCommand, type StartOptions, type Subprocess } from "../command.ts";
import { listeningFd, withFd } from "../sockets/fd.ts";

/** A server process and those that took over from it, which all write to the same stderr. */
export class Lineage implements AsyncDisposable {
  readonly first: Subprocess;

  constructor(first: Subprocess) {
    this.first = first;
  }

  get stderr(): string {
    return this.first.stderr;
  }

  /** Waits until the first process listens; returns the port. */
  async port(): Promise<number> {
    const [, port] = await this.first.stderrMatch(/listening on (?:127\.0\.0\.1|0\.0\.0\.0):(\d+)/);
    return Number(port);
  }

  /** The processes, in their order. */
  get pids(): number[] {
    const started = this.stderr.matchAll(/started process (\d+) to take over/g);
    return [this.first.pid, ...Array.from(started, ([, pid]) => Number(pid))];
  }

  /** Tells a process to upgrade, and waits until it has been taken over; returns the pid of the new one. */
  async upgrade(pid: number): Promise<number> {
    const before = [...this.stderr.matchAll(/has taken over/g)].length;
    Deno.kill(pid, "SIGUSR2");
    const [, next] = await this.first.stderrMatch(
      new RegExp(`(?:.*process \\d+ has taken over[^]*){${before}}process (\\d+) has taken over`),
    );
    return Number(next);
  }

  /** Stops the last process with a signal, and waits until all have ended; returns what they have logged. */
  async stop(pid: number): Promise<string> {
    Deno.kill(pid, "SIGTERM");
    const { stderr } = await this.first.outcome();
    return stderr;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pid of this.pids.slice(1)) {
      try {
        Deno.kill(pid, "SIGKILL");
      } catch {
        // It has ended.
      }
    }
    await this.first[Symbol.asyncDispose]();
  }
}

/** Starts the command with a listening socket as its descriptor. */
export function startOnFd(args: string[], options: StartOptions = {}): Subprocess {
  const fd = listeningFd();
  return withFd(fd, () => startCommand(["--listen-fd", `${fd}`, ...args], options));
}

/** The admin port of a server on the loopback. */
export async function adminOf(server: Subprocess): Promise<Deno.NetAddr> {
  const [, port] = await server.stderrMatch(/ admin on 127\.0\.0\.1:(\d+)\n/);
  return { transport: "tcp", hostname: "127.0.0.1", port: Number(port) };
}

/** Clients that have sent a line each, and wait until they are served. */
export class Waiting implements Disposable {
  readonly #conns: Deno.TcpConn[];

  private constructor(conns: Deno.TcpConn[]) {
    this.#conns = conns;
  }

  /** Connects clients, one after another, and sends their lines. */
  static async at(port: number, clients: number): Promise<Waiting> {
    const conns: Deno.TcpConn[] = [];
    for (let i = 0; i < clients; i++) {
      const conn = await Deno.connect({ hostname: "127.0.0.1", port });
      conns.push(conn);
      await conn.write(new TextEncoder().encode(`line ${i}\n`));
    }
    return new Waiting(conns);
  }

  /** What comes back to each; each leaves once it has a line. */
  async answers(): Promise<string[]> {
    return await Promise.all(
      this.#conns.splice(0).map(async (conn) => {
        using _ = conn;
        return await within(60, readLine(conn)).catch((error) => String(error));
      }),
    );
  }

  [Symbol.dispose](): void {
    for (const conn of this.#conns) conn.close();
  }
}

/** Waits until a server has accepted a number of connections, also those that it does not serve yet. */
export async function untilAccepted(admin: Deno.NetAddr, connections: number): Promise<void> {
  for (let accepted = 0; accepted < connections;) {
    const { stats } = JSON.parse((await ask(admin, "GET /status")).body);
    accepted = stats.accepted + stats.queued;
  }
}

/** Clients that connect, send lines one by one and close, again and again. */
export class Load implements AsyncDisposable {
  conversations = 0;
  readonly failures: string[] = [];
  readonly #port: number;
  readonly #clients: Promise<void>[];
  #over = false;
  #news = Promise.withResolvers<void>();

  constructor(port: number, clients: number) {
    this.#port = port;
    this.#clients = Array.from({ length: clients }, (_, client) => this.#run(client));
  }

  /** Waits until so many more conversations have ended. */
  async more(count: number): Promise<void> {
    const until = this.conversations + this.failures.length + count;
    while (this.conversations + this.failures.length < until) await this.#news.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over = true;
    await Promise.all(this.#clients);
  }

  async #run(client: number): Promise<void> {
    for (let round = 0; !this.#over; round++) {
      try {
        await this.#converse(`line ${client} ${round}`);
        this.conversations++;
      } catch (error) {
        this.failures.push(`${client} ${round}: ${error}`);
      }
      this.#news.resolve();
      this.#news = Promise.withResolvers();
    }
  }

  async #converse(text: string): Promise<void> {
    using conn = await Deno.connect({ hostname: "127.0.0.1", port: this.#port });
    for (let i = 0; i < 3; i++) {
      await conn.write(new TextEncoder().encode(`${text} ${i}\n`));
      const answer = await readLine(conn);
      if (answer !== `${text.toUpperCase()} ${i}\n`) throw new Error(`got ${JSON.stringify(answer)}`);
    }
  }
}

async function readLine(conn: Deno.Conn): Promise<string> {
  const buffer = new Uint8Array(100);
  let text = "";
  while (!text.endsWith("\n")) {
    const count = await conn.read(buffer);
    if (count === null) return text;
    text += new TextDecoder().decode(buffer.subarray(0, count));
  }
  return text;
}
