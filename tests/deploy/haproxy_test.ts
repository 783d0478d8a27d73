import { assertEquals, assertLess, assertMatch } from "@std/assert";
import { TestClient } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";
import { type ServerProcess, startServer, Subprocess } from "../kit/command.ts";
import {
  adapted,
  ask,
  flagsOf,
  makeFolder,
  milliseconds,
  PROJECT,
  shipped,
  wordsAfter,
} from "../kit/project/deploy.ts";
import { freePort } from "../kit/sockets/free_port.ts";
import { NO_HAPROXY } from "../kit/foreign/haproxy.ts";

const CONFIG = shipped("haproxy/haproxy.cfg");
const USERS = await Deno.readTextFile("/etc/passwd").catch(() => "");
const NO_USER = /^haproxy:/m.test(USERS) ? "" : " (skipped: there is no user haproxy, whom the file names)";

/** The command line that the file tells to start an instance with. */
const INSTANCE = wordsAfter(CONFIG, "#   shouty ");

/** What a test that is not root, and has few descriptors, cannot do. */
const UNPRIVILEGED = {
  "  user haproxy\n": "",
  "  group haproxy\n": "",
  "  chroot /var/lib/haproxy\n": "",
  "maxconn 20000": "maxconn 500",
};

/** Times that a slow machine could pass while a test goes on. */
const PATIENT = {
  "timeout client 15s": "timeout client 10m",
  "timeout server 15s": "timeout server 10m",
  "timeout check 1s": "timeout check 1m",
};

test(
  "HAProxy accepts its configuration as it is shipped",
  async () => {
    const { code, text } = await ask("haproxy", ["-c", "-f", `${PROJECT}/deploy/haproxy/haproxy.cfg`]);
    assertEquals([code, /warning|alert/i.test(text)], [0, false], text);
  },
  20,
  NO_HAPROXY || NO_USER,
);

test("HAProxy's times and numbers fit those of the instances behind it", () => {
  const flags = flagsOf(INSTANCE);
  const time = (name: string) => milliseconds(wordsAfter(CONFIG, `timeout ${name} `)[0]);
  for (const timeout of ["idleTimeout", "lineTimeout", "firstLineTimeout", "writeTimeout"] as const) {
    assertLess(flags[timeout], Math.min(time("client"), time("server")), `${timeout}: shouty's end comes first`);
  }
  const server = wordsAfter(CONFIG, "default-server ");
  const value = (name: string) => server[server.indexOf(name) + 1];
  const noticed = milliseconds(value("inter")) * Number(value("fall")) + time("check");
  assertLess(noticed, flags.drainDelay, "lame duck is noticed before the drain");
  assertLess(Number(value("maxconn")), flags.maxConnections, "the queue is HAProxy's");
  assertEquals(flags.proxyProtocol, ["10.0.0.0/24"]);
  assertEquals(value("port"), String((flags.admin as { port: number }).port));
});

/** A running HAProxy with the shipped configuration, and two instances behind it. */
interface Running extends AsyncDisposable {
  readonly port: number;
  readonly haproxy: Subprocess;
  readonly instances: readonly ServerProcess[];
}

async function start(): Promise<Running> {
  await using stack = new AsyncDisposableStack();
  const instances = [stack.use(await startInstance()), stack.use(await startInstance())];
  const folder = stack.use(await makeFolder());
  for (let tries = 0;; tries++) {
    const port = freePort();
    await Deno.writeTextFile(`${folder.path}/haproxy.cfg`, configFor(port, instances));
    // -db keeps it in the foreground, in one process that the test can end.
    const haproxy = stack.use(new Subprocess("haproxy", ["-db", "-f", `${folder.path}/haproxy.cfg`]));
    if (await answers(haproxy, port)) {
      const all = stack.move();
      return { port, haproxy, instances, [Symbol.asyncDispose]: () => all.disposeAsync() };
    }
    if (tries === 4) throw new Error(`HAProxy does not start: ${haproxy.stderr}`);
  }
}

/** The flags are the file's, but for addresses, the token, which a loopback address needs not, and times. */
async function startInstance(): Promise<ServerProcess> {
  const line = adapted(INSTANCE.join(" "), {
    "10.0.0.0/24": "127.0.0.1",
    "0.0.0.0:9090": "127.0.0.1:0",
    "--admin-token-file /etc/shouty/token": "",
    "--drain-delay 5s": "--drain-delay 10m --idle-timeout 10m",
  });
  return await startServer(line.split(/\s+/), { permissions: ["--allow-net"] });
}

function configFor(port: number, instances: readonly ServerProcess[]): string {
  const [one, two] = instances.map((instance) => {
    const [, admin] = /admin on 127\.0\.0\.1:(\d+)/.exec(instance.stderr)!;
    return `127.0.0.1:${instance.port} port ${admin}`;
  });
  const addresses = { "bind :8080": `bind 127.0.0.1:${port}`, "10.0.0.11:8080": one, "10.0.0.12:8080": two };
  return adapted(CONFIG, { ...UNPRIVILEGED, ...PATIENT, ...addresses });
}

/** Waits until HAProxy passes a line on, or has ended because another process took the port. */
async function answers(haproxy: Subprocess, port: number): Promise<boolean> {
  let ended = false;
  const end = haproxy.exitCode().then(() => ended = true, () => {});
  while (!ended) {
    try {
      using client = await Client.connect(port);
      assertEquals(await client.say("first"), "FIRST");
      await client.end();
      // HAProxy writes this line when it has forgotten the connection.
      await haproxy.stdoutMatch(new RegExp(`^127\\.0\\.0\\.1:${client.from} `, "m"));
      return true;
    } catch (error) {
      if (!(error instanceof Deno.errors.ConnectionRefused)) throw error;
      // It does not listen yet.
      await Promise.race([end, new Promise((resolve) => setTimeout(resolve, 20))]);
    }
  }
  return false;
}

/** A client on a socket. */
class Client implements Disposable {
  /** The port that it comes from. */
  readonly from: number;
  readonly #client: TestClient;

  private constructor(conn: Deno.TcpConn) {
    this.from = conn.localAddr.port;
    this.#client = new TestClient(conn);
  }

  static async connect(port: number): Promise<Client> {
    return new Client(await Deno.connect({ hostname: "127.0.0.1", port }));
  }

  /** Sends a line, and returns the one that comes back; null if the connection ends. */
  async say(line: string): Promise<string | null> {
    await this.#client.write(`${line}\n`);
    return await this.#client.readLine();
  }

  async end(): Promise<void> {
    await this.#client.closeWrite();
    await this.#client.readAll();
  }

  [Symbol.dispose](): void {
    this.#client[Symbol.dispose]();
  }
}

/** Connects and talks; returns undefined if HAProxy has closed the connection, in whatever way that shows. */
async function talk(port: number): Promise<Client | undefined> {
  let client: Client | undefined;
  try {
    client = await Client.connect(port);
    if (await client.say("one more") !== null) return client;
  } catch (error) {
    if (!(error instanceof Deno.errors.ConnectionReset || error instanceof Deno.errors.BrokenPipe)) throw error;
  }
  client?.[Symbol.dispose]();
}

/** The instance that has accepted a client, which its log names by the address that HAProxy tells. */
async function instanceOf({ from }: Client, instances: readonly ServerProcess[]): Promise<ServerProcess> {
  const pattern = new RegExp(`accepted connection from 127\\.0\\.0\\.1:${from}$`, "m");
  return await Promise.any(instances.map(async (instance) => (await instance.stderrMatch(pattern), instance)));
}

test(
  "Behind HAProxy as it is shipped, lines come back, and the log has the client's address",
  async () => {
    await using running = await start();
    using client = await Client.connect(running.port);
    assertEquals(await client.say("hello"), "HELLO");
    const { stderr } = await instanceOf(client, running.instances);
    assertMatch(stderr, new RegExp(`accepted connection from 127\\.0\\.0\\.1:${client.from}\n`));
    await client.end();
    const [line] = await running.haproxy.stdoutMatch(new RegExp(`^127\\.0\\.0\\.1:${client.from} .*`, "m"));
    assertMatch(line, / lines shouty\/shouty[12] .* -- /);
  },
  60,
  NO_HAPROXY,
);

test(
  "HAProxy as it is shipped rejects a source's 101st open connection, and the next one after an end",
  async () => {
    await using running = await start();
    using stack = new DisposableStack();
    const open: Client[] = [];
    for (;;) {
      const client = await talk(running.port);
      if (client === undefined) break;
      open.push(stack.use(client));
    }
    assertEquals(open.length, 100);
    const [first] = open;
    await first.end();
    await running.haproxy.stdoutMatch(new RegExp(`^127\\.0\\.0\\.1:${first.from} `, "m"));
    using next = await Client.connect(running.port);
    assertEquals(await next.say("room again"), "ROOM AGAIN");
  },
  60,
  NO_HAPROXY,
);

test(
  "HAProxy as it is shipped takes an instance in lame duck out, and its connections go on",
  async () => {
    await using running = await start();
    using old = await Client.connect(running.port);
    assertEquals(await old.say("before"), "BEFORE");
    const leaving = await instanceOf(old, running.instances);
    const name = `shouty${running.instances.indexOf(leaving) + 1}`;
    leaving.signal("SIGTERM");
    await running.haproxy.stdoutMatch(
      new RegExp(`Server shouty/${name} is DOWN, reason: Layer7 wrong status, code: 503`),
    );
    assertEquals(await old.say("meanwhile"), "MEANWHILE");
    for (let count = 0; count < 4; count++) {
      using client = await Client.connect(running.port);
      assertEquals(await client.say("after"), "AFTER");
      assertEquals((await instanceOf(client, running.instances)) === leaving, false);
    }
    assertEquals(await old.say("still"), "STILL");
  },
  60,
  NO_HAPROXY,
);

test(
  "HAProxy as it is shipped gives a connection that an instance refuses to another one",
  async () => {
    await using running = await start();
    const [gone, other] = running.instances;
    gone.signal("SIGKILL");
    await gone.exitCode();
    for (let count = 0; count < 4; count++) {
      using client = await Client.connect(running.port);
      assertEquals(await client.say("hello"), "HELLO");
      await instanceOf(client, [other]);
    }
  },
  60,
  NO_HAPROXY,
);
