import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { TestClient } from "@x/shouty/testing";
import { Balancer } from "../../../examples/balancer.ts";
import { testOnce } from "../../kit/bounded.ts";
import { NO_SIGNALS, startCommand, type Subprocess } from "../../kit/command.ts";
import { TestServer } from "../../kit/server.ts";

/** An address of the loopback where no test listens but this one: a port can be taken again. */
const HOST = Deno.build.os === "linux" ? "127.0.0.2" : "127.0.0.1";

/** An upstream in a process of its own, which can be killed and started again on its port. */
class Shouter implements AsyncDisposable {
  #process!: Subprocess;
  port = 0;

  static async start(): Promise<Shouter> {
    const shouter = new Shouter();
    await shouter.start();
    return shouter;
  }

  async start(): Promise<void> {
    this.#process = startCommand(["--hostname", HOST, "--port", `${this.port}`]);
    const [, port] = await this.#process.stderrMatch(/listening on [\d.]+:(\d+)/);
    this.port = Number(port);
  }

  async kill(): Promise<void> {
    await this.#process[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

/** Clients that send unique lines, one after the other, and check each reply. */
class Load {
  sent = 0;
  answered = 0;
  lost = 0;
  #stopped = false;
  #news = Promise.withResolvers<void>();
  #error: unknown;
  readonly #clients: Promise<void>[];

  constructor(count: number, port: number) {
    this.#clients = Array.from({ length: count }, async (_, i) => {
      await this.#run(i, port).catch((error) => this.#error ??= error);
      this.#news.resolve();
    });
  }

  async #run(name: number, port: number): Promise<void> {
    using client = new TestClient(await Deno.connect({ port }));
    for (let i = 0; !this.#stopped; i++) {
      // Some at once, so that each connection to an upstream owes several.
      const lines = Array.from({ length: 3 }, (_, j) => `client ${name}, line ${i}.${j}`);
      this.sent += lines.length;
      await client.write(lines.map((line) => `${line}\n`).join(""));
      for (const line of lines) {
        const reply = await client.readLine();
        if (reply === "error: lost") this.lost++;
        else if (reply === line.toUpperCase()) this.answered++;
        else throw new Error(`${reply} came for ${line}`);
      }
      this.#news.resolve();
      this.#news = Promise.withResolvers();
    }
  }

  /** Waits until something is so; it is looked at after each reply. */
  async until(isSo: () => boolean): Promise<void> {
    for (; !isSo(); await this.#news.promise) if (this.#error !== undefined) throw this.#error;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#clients);
    if (this.#error !== undefined) throw this.#error;
  }
}

for (const retry of [false, true]) {
  const what = retry ? "repeats what is lost" : "says what is lost";
  testOnce(
    `balancer loses no reply when an upstream is killed, twice, and ${what}`,
    async () => {
      await using one = await Shouter.start();
      await using two = await Shouter.start();
      await using three = await Shouter.start();
      const upstreams = [one, two, three].map(({ port }) => ({ hostname: HOST, port }));
      await using balancer = new Balancer({ upstreams, retry });
      await using t = new TestServer((options) => balancer.serve(options), {});
      const load = new Load(50, t.port);
      const answers = () => balancer.pools.map((pool) => pool.stats().lines);
      for (let kills = 0; kills < 2; kills++) {
        const before = answers();
        await load.until(() => answers().every((lines, i) => lines > before[i] + 100));
        await one.kill();
        const after = answers();
        await load.until(() => answers().slice(1).every((lines, i) => lines > after[i + 1] + 100));
        await one.start();
        const [again] = answers();
        await load.until(() => answers()[0] > again + 100);
      }
      await load.stop();
      assertEquals(load.answered + load.lost, load.sent);
      assertGreater(load.answered, 1000);
      if (retry) assertEquals(load.lost, 0);
      // At each kill, at most what the killed upstream owed.
      else assertLess(load.lost, 2 * 2 * 64 + 1);
    },
    120,
    NO_SIGNALS,
  );
}
