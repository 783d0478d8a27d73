import { assertEquals, assertMatch } from "@std/assert";
import { TestClient } from "@x/shouty/testing";
import { test, within } from "../../kit/bounded.ts";
import { Subprocess } from "../../kit/command.ts";
import { NO_EPOLL } from "../../kit/sockets/epoll.ts";

const NO_ULIMIT = Deno.build.os === "windows" ? " (skipped: Windows has no limit of descriptors)" : "";
const NO_PROC = Deno.build.os === "linux" ? "" : " (skipped: only Linux tells of descriptors in /proc)";

/** Runs a script in a separate process, which imports the package as a user's program does. */
function run(script: string): Subprocess {
  return new Subprocess(Deno.execPath(), ["eval", "--ext=ts", script]);
}

/** Waits until a script's server prints its port. */
async function connectTo(script: Subprocess): Promise<() => Promise<TestClient>> {
  const [, port] = await script.stdoutMatch(/port (\d+)\n/);
  return async () => new TestClient(await Deno.connect({ port: Number(port) }));
}

const SERVE = serveWith("");

/** A script that serves with the given options and the usual ones. */
function serveWith(options: string): string {
  return `
    import { serve } from "@x/shouty";
    const events = [];
    const options = { hostname: "127.0.0.1", port: 0, idleTimeout: Infinity, firstLineTimeout: Infinity, ${options} };
    const server = serve({ ...options, onEvent: (event) => events.push(event.type) });
    console.log("port " + server.addr.port);
  `;
}

const WHEN_ACCEPTED = `
  const client = await Deno.connect({ port: server.addr.port });
  while (!events.includes("accepted")) await new Promise((resolve) => setTimeout(resolve, 1));
`;

const FULL = serveWith(`maxConnections: 1, atCapacity: "wait"`);
const PACED = serveWith("maxLinesPerSecond: 0.001");

const ON_FD = `
  import { listenFd } from "./ops/mod.ts";
  import { listeningFd } from "./tests/kit/sockets/fd.ts";
  ${serveWith("listener: listenFd({ fd: listeningFd() })")}
`;

const ASK_TWICE = `
  await client.write(new TextEncoder().encode("once\\ntwice\\n"));
  await client.read(new Uint8Array(5));
`;

for (
  const [when, script, missing = ""] of [
    ["without clients", `${SERVE} server.unref();`],
    ["with a client, unref'd after it was accepted", `${SERVE} ${WHEN_ACCEPTED} server.unref();`],
    ["with a client, unref'd before it was accepted", `${SERVE} server.unref(); ${WHEN_ACCEPTED}`],
    ["at its capacity, unref'd while it waits", `${FULL} ${WHEN_ACCEPTED} server.unref();`],
    ["at its capacity, unref'd before", `${FULL} server.unref(); ${WHEN_ACCEPTED}`],
    ["that delays a client", `${PACED} ${WHEN_ACCEPTED} ${ASK_TWICE} server.unref();`],
    ["on a descriptor, without clients", `${ON_FD} server.unref();`, NO_EPOLL],
    ["on a descriptor, with a client", `${ON_FD} ${WHEN_ACCEPTED} server.unref();`, NO_EPOLL],
  ]
) {
  test(
    `a process ends by itself with an unref'd server ${when}`,
    async () => {
      await using process = run(script);
      const { code, stderr } = await process.outcome();
      assertEquals([code, stderr], [0, ""]);
    },
    60,
    missing,
  );
}

test("a shutdown keeps the process alive to its end, also that of an unref'd server", async () => {
  // Not a top-level `await`: with one, Deno waits in any case.
  const shutDown = "server.shutdown({ drainTimeout: 100 }).then(({ closed }) => console.log(JSON.stringify(closed)));";
  await using process = run(`${SERVE} ${WHEN_ACCEPTED} server.unref(); ${shutDown}`);
  const { code, stdout, stderr } = await process.outcome();
  assertEquals([code, stderr], [0, ""]);
  assertMatch(stdout, /\{"drain-timeout":1\}\n$/);
});

test("a process lives as long as a server that was unref'd and ref'd again", async () => {
  await using process = run(`${SERVE} server.unref(); server.ref();`);
  const connect = await connectTo(process);
  for (let i = 0; i < 2; i++) {
    using client = await connect();
    await client.write("alive?\n");
    assertEquals(await client.readLine(), "ALIVE?");
  }
});

for (const engine of ["Deno's sockets", "epoll"]) {
  const onEpoll = engine === "epoll";
  test(
    `a process lives on while its server holds connections back for acceptRate, and none is there, on ${engine}`,
    async () => {
      const listener = onEpoll ? `listener: listenEpoll({ hostname: "127.0.0.1", port: 0 }),` : "";
      const ops = onEpoll ? `import { listenEpoll } from "@x/shouty/ops";` : "";
      await using process = run(ops + serveWith(`acceptRate: 1, ${listener}`));
      const connect = await connectTo(process);
      for (const word of ["first", "second"]) {
        using client = await connect();
        await client.write(`${word}\n`);
        assertEquals(await client.readLine(), word.toUpperCase());
      }
    },
    60,
    onEpoll ? NO_EPOLL : "",
  );
}

for (const engine of ["Deno's sockets", "epoll"]) {
  const onEpoll = engine === "epoll";
  const name = `a server that runs out of descriptors serves on, and accepts again when there are some, on ${engine}`;
  const body = async () => {
    const told = `event.type === "accept-error" && console.log(event.error.code, event.retryMs)`;
    const serve = SERVE.replace("events.push(event.type)", told);
    const script = onEpoll ? serve.replace("serve({", `serve({ listener: listenEpoll({ port: 0 }), `) : serve;
    const ops = `import { listenEpoll } from "./ops/mod.ts";`;
    // Deno sets up signal handling late, and panics if no descriptor is free for it. Adding a listener does it now.
    const early = `Deno.addSignalListener("SIGINT", () => {});`;
    const command = `ulimit -n 60; exec "${Deno.execPath()}" eval --ext=ts '${onEpoll ? ops : ""}${early}${script}'`;
    await using process = new Subprocess("sh", ["-c", command]);
    const connect = await connectTo(process);
    const clients = await Promise.all(Array.from({ length: 80 }, connect));
    await process.stdoutMatch(/EMFILE 5\nEMFILE 10\nEMFILE 20\n/);
    await clients[0].write("served meanwhile\n");
    assertEquals(await clients[0].readLine(), "SERVED MEANWHILE");
    for (const client of clients) client.close();
    using late = await connect();
    await late.write("served again\n");
    assertEquals(await within(60, late.readLine()), "SERVED AGAIN");
  };
  test(name, body, 60, onEpoll ? NO_EPOLL : NO_ULIMIT);
}

async function giveBack(): Promise<void> {
  await using process = run(`
    import { inMemory, startConversations, startServer } from "./tests/kit/server.ts";

    /** Ends connections in all possible ways. */
    async function play() {
      const options = { idleTimeout: 300, maxLineBytes: 100, maxConnections: 8 };
      await using t = startServer(options, (line, conn) => {
        if (line === "throw") throw new Error(line);
        if (line === "close") conn.close();
        return line === "big" ? "x".repeat(20_000_000) : line;
      });
      const connect = async (text) => {
        const client = await t.admitted();
        await client.write(text);
        return client;
      };
      const clients = [];
      for (const text of ["", "x\\n", "throw\\n", "close\\n", "x".repeat(200), "big\\n", "mid-line"]) {
        clients.push(await connect(text));
      }
      const ended = await connect("bye\\n");
      for (let i = 0; i < 3; i++) await t.connect();
      await ended.closeWrite();
      clients[1].close();
      await t.closed(3);
    }

    /** Counts TCP sockets only: the runtime opens other descriptors at any time. */
    function count() {
      const tcp = Deno.readTextFileSync("/proc/self/net/tcp") + Deno.readTextFileSync("/proc/self/net/tcp6");
      const inodes = new Set(tcp.split("\\n").map((row) => row.trim().split(/ +/)[9]));
      const links = [...Deno.readDirSync("/proc/self/fd")].map(({ name }) => linkOf("/proc/self/fd/" + name));
      return links.filter((link) => inodes.has(/^socket:.(\\d+)/.exec(link)?.[1] ?? "")).length;
    }

    function linkOf(path) {
      try {
        return Deno.readLinkSync(path);
      } catch {
        return "";
      }
    }

    for (let i = 0; i < 3; i++) await play();
    while (count() > 0) await new Promise((resolve) => setTimeout(resolve, 1));
    console.log("given back");
  `);
  await process.stdoutMatch(/given back/);
  const { code, stderr } = await process.outcome();
  assertMatch(`${code} ${stderr}`, /^0 $/);
}

test("every kind of ending gives its descriptor back", giveBack, 60, NO_PROC);
