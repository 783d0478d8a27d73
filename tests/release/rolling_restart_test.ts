import { assertEquals } from "@std/assert";
import { within } from "../kit/bounded.ts";
import { listening, NO_SIGNALS, type ServerProcess, startCommand } from "../kit/command.ts";
import { freePort } from "../kit/sockets/free_port.ts";
import { type HAProxy, NO_HAPROXY, startHAProxy } from "../kit/foreign/haproxy.ts";

const INSTANCES = 3;
const CLIENTS = 200;
/** How long a client thinks between an answer and its next line, in milliseconds; each has its own time. */
const THINKS_MS = { least: 100, most: 200 };

/** The servers behind the proxy. */
class Instances implements AsyncDisposable {
  readonly ports: readonly number[] = Array.from({ length: INSTANCES }, freePort);
  readonly #adminPorts = this.ports.map(freePort);
  readonly #ready: boolean;
  readonly #processes: ServerProcess[] = [];

  /** @param ready Whether the proxy asks `/readyz`, and not only for a connection. */
  constructor(ready: boolean) {
    this.#ready = ready;
  }

  async start(i: number): Promise<void> {
    const flags = ["--drain", "finish", "--drain-delay", "1s", "--drain-spread", "300ms", "--log-format", "text"];
    const args = ["--hostname", "127.0.0.1", "--port", `${this.ports[i]}`, "--idle-timeout", "60s", ...flags];
    const admin = this.#ready ? ["--admin", `127.0.0.1:${this.#adminPorts[i]}`] : [];
    this.#processes[i] = await listening(startCommand([...args, ...admin]));
  }

  /** Restarts an instance as an operator does. */
  async restart(i: number): Promise<void> {
    this.#processes[i].signal("SIGTERM");
    assertEquals((await this.#processes[i].outcome()).code, 0);
    await this.#processes[i][Symbol.asyncDispose]();
    await this.start(i);
  }

  /** The lines of the proxy's configuration. */
  get lines(): string[] {
    const check = (i: number) => this.#ready ? ` port ${this.#adminPorts[i]}` : "";
    const servers = this.ports.map((port, i) => `server s${i} 127.0.0.1:${port}${check(i)}`);
    return [
      "balance leastconn",
      "option redispatch",
      "retries 3",
      "default-server check inter 100ms fastinter 50ms fall 1 rise 1",
      ...this.#ready ? ["option httpchk GET /readyz"] : [],
      ...servers,
    ];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const process of this.#processes) await process?.[Symbol.asyncDispose]();
  }
}

/** A client that sends numbered lines, and sends a line again on a new connection if the old one ends without its answer. */
class RetryingClient {
  answered = 0;
  /** Sends that were not answered, because their connection had ended. */
  retries = 0;
  longestMs = 0;
  readonly problems: string[] = [];
  readonly #name: string;
  readonly #port: number;
  #conn: Deno.TcpConn | undefined;

  constructor(name: string, port: number) {
    this.#name = name;
    this.#port = port;
  }

  async run(over: () => boolean): Promise<void> {
    const thinks = THINKS_MS.least + (THINKS_MS.most - THINKS_MS.least) * Math.random();
    for (let number = 0; !over(); number++) {
      const began = performance.now();
      while (!await this.#send(`${this.#name} ${number}`)) this.retries++;
      this.answered++;
      this.longestMs = Math.max(this.longestMs, performance.now() - began);
      await new Promise((resolve) => setTimeout(resolve, thinks));
    }
    await this.#end();
  }

  /** Sends one line, and reads its answer; returns whether it came before the end of the connection. */
  async #send(line: string): Promise<boolean> {
    try {
      this.#conn ??= await Deno.connect({ hostname: "127.0.0.1", port: this.#port });
      await this.#conn.write(new TextEncoder().encode(`${line}\n`));
      const answer = await readText(this.#conn, "\n");
      if (answer === `${line.toUpperCase()}\n`) return true;
      if (answer !== "") this.problems.push(`${line} was answered with ${JSON.stringify(answer)}`);
    } catch (error) {
      const { ConnectionReset, BrokenPipe, ConnectionAborted } = Deno.errors;
      const isEnd = [ConnectionReset, BrokenPipe, ConnectionAborted].some((kind) => error instanceof kind);
      // The proxy always listens: a refusal would be a client's loss.
      if (!isEnd) this.problems.push(`${line}: ${error}`);
    }
    this.#conn?.close();
    this.#conn = undefined;
    return false;
  }

  /** Ends the last connection, on which nothing more may come: it would be a second answer. */
  async #end(): Promise<void> {
    if (this.#conn === undefined) return;
    await this.#conn.closeWrite();
    const rest = await readText(this.#conn, undefined).catch(() => "");
    if (rest !== "") this.problems.push(`${this.#name} was answered again: ${JSON.stringify(rest)}`);
    this.#conn.close();
  }
}

/** Reads up to an end, or to the end of input. An answer to an earlier line would come first, and be noticed. */
async function readText(conn: Deno.Conn, end: string | undefined): Promise<string> {
  const buffer = new Uint8Array(1000);
  let text = "";
  while (end === undefined || !text.endsWith(end)) {
    const count = await conn.read(buffer);
    if (count === null) return text;
    text += new TextDecoder().decode(buffer.subarray(0, count));
  }
  return text;
}

async function untilUp(proxy: HAProxy, names: string[]): Promise<void> {
  for (;;) {
    const states = await proxy.states();
    if (names.every((name) => states[name] === "UP")) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const MISSING = NO_HAPROXY || NO_SIGNALS;

for (const [check, ready] of [["asks /readyz", true], ["connects", false]] as const) {
  const name =
    `Behind HAProxy, which ${check} to check them, three instances that restart in turn, twice, answer every line once`;
  Deno.test({ name: name + MISSING, ignore: MISSING !== "", fn: () => within(240, rollingRestart(ready)) });
}

async function rollingRestart(ready: boolean): Promise<void> {
  await using instances = new Instances(ready);
  for (let i = 0; i < INSTANCES; i++) await instances.start(i);
  await using proxy = await startHAProxy({ server: instances.lines });
  const names = instances.ports.map((_, i) => `s${i}`);
  await untilUp(proxy, names);
  let over = false;
  const clients = Array.from({ length: CLIENTS }, (_, i) => new RetryingClient(`client ${i}`, proxy.port));
  const running = Promise.all(clients.map((client) => client.run(() => over)));
  try {
    for (let round = 0; round < 2; round++) {
      for (let i = 0; i < INSTANCES; i++) {
        await untilAnswered(clients);
        await instances.restart(i);
        await untilUp(proxy, names);
      }
    }
    await untilAnswered(clients);
  } finally {
    over = true;
    await running;
  }
  const sum = (of: (client: RetryingClient) => number) => clients.reduce((total, client) => total + of(client), 0);
  const longest = Math.max(...clients.map(({ longestMs }) => longestMs));
  console.log(
    `${sum(({ answered }) => answered)} lines of ${CLIENTS} clients, ${
      sum(({ retries }) => retries)
    } sent again; longest pause of a client: ${Math.round(longest)} ms`,
  );
  assertEquals(clients.flatMap(({ problems }) => problems), []);
}

/** Waits until each client has got one more answer. */
async function untilAnswered(clients: readonly RetryingClient[]): Promise<void> {
  const before = clients.map(({ answered }) => answered);
  while (clients.some(({ answered }, i) => answered === before[i])) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
