import { assertEquals, assertLess } from "@std/assert";
import { TestClient } from "@x/shouty/testing";
import { test, withScript } from "../../kit/sockets/epoll_peers.ts";

const MODULES = `
  import { serve } from ${JSON.stringify(new URL("../../../mod.ts", import.meta.url))};
  import { listenEpoll } from ${JSON.stringify(new URL("../../../ops/mod.ts", import.meta.url))};
`;

/** Functions for scripts that count threads and descriptors. In the tests' own process, other tests have some as well. */
const COUNTS = `
  const list = (folder) => Array.from(Deno.readDirSync("/proc/self/" + folder), ({ name }) => name);
  const descriptors = () => list("fd").length;
  function link(fd) {
    try {
      return Deno.readLinkSync("/proc/self/fd/" + fd);
    } catch {
      return ""; // It was the descriptor with which the folder was read.
    }
  }
  function nameOf(thread) {
    try {
      return Deno.readTextFileSync("/proc/self/task/" + thread + "/comm");
    } catch {
      return ""; // The thread has ended.
    }
  }
  const workers = () => list("task").filter((thread) => nameOf(thread).startsWith("worker-")).length;
  async function until(holds) {
    while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
  }
`;

/** Waits until a condition holds that no event of this process tells. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** Runs a script that counts in a separate process; returns the counts, which it prints. */
async function counted(script: string): Promise<unknown> {
  let counted: unknown;
  await withScript(MODULES + COUNTS + script, ["-A"], async (process) => {
    const { code, stdout, stderr } = await process.outcome();
    assertEquals([code, stderr], [0, ""]);
    counted = JSON.parse(stdout);
  });
  return counted;
}

const [MAJOR, MINOR] = Deno.osRelease().split(".").map(Number);
const NO_THREAD_ENDS = MAJOR > 6 || MAJOR === 6 && MINOR >= 9 ? "" : " (skipped: it takes Linux 6.9)";

test("a listener on epoll has one thread, which ends with its last connection, as all descriptors do", async () => {
  const counts = await counted(`
    const where = { hostname: "127.0.0.1", port: 0 };
    const counts = [];
    const use = async () => {
      const listeners = [listenEpoll(where), listenEpoll(where)];
      counts.push(workers());
      const client = await Deno.connect({ port: listeners[0].addr.port });
      const transport = await listeners[0].accept();
      for (const listener of listeners) await listener.close();
      counts.push(workers());
      transport.close();
      client.close();
      await until(() => workers() === 0);
    };
    await use();
    const before = descriptors();
    for (let i = 0; i < 10; i++) await use();
    // Deno may close its own descriptors of an ended thread much later, but not those of ten.
    console.log(JSON.stringify([...counts, descriptors() - before < 10]));
  `);
  assertEquals(counts, [...Array(22).fill(1), true]);
});

test("the thread of the last listener on epoll has closed its descriptors when the listener is closed", async () => {
  const counts = await counted(`
    // The engine's thread has one such descriptor, and Deno has none.
    const pidfds = () => list("fd").filter((fd) => link(fd).includes("pidfd")).length;
    const listener = listenEpoll({ hostname: "127.0.0.1", port: 0 });
    const counts = [pidfds()];
    await listener.close();
    counts.push(pidfds());
    console.log(JSON.stringify(counts));
  `);
  assertEquals(counts, [1, 0]);
}, NO_THREAD_ENDS);

test("connections that were reset before they are accepted leave no descriptors on epoll", async () => {
  const counts = await counted(`
    const { RawPeer } = await import(${JSON.stringify(new URL("../../kit/sockets/epoll_peers.ts", import.meta.url))});
    const listener = listenEpoll({ hostname: "127.0.0.1", port: 0 });
    const accept = async () => {
      new RawPeer(listener.addr.port).reset();
      let transport;
      try {
        transport = await listener.accept();
        return transport.remoteAddr;
      } catch {
        transport?.close();
      }
    };
    await accept();
    const before = descriptors();
    const addresses = [];
    for (let i = 0; i < 20; i++) addresses.push(await accept());
    await until(() => descriptors() <= before);
    console.log(JSON.stringify(addresses.filter((address) => address !== undefined)));
    listener.close();
  `);
  assertEquals(counts, []);
});

test("a listener on epoll that cannot have all of its descriptors leaves none, and can be had later", () =>
  withScript(
    `${MODULES}
    const RLIMIT_NOFILE = 7;
    const { symbols: libc } = Deno.dlopen("libc.so.6", { setrlimit: { parameters: ["i32", "buffer"], result: "i32" } });
    libc.setrlimit(RLIMIT_NOFILE, new BigUint64Array([200n, 200n]));
    const open = () => Array.from(Deno.readDirSync("/proc/self/fd")).length;
    listenEpoll({ hostname: "127.0.0.1", port: 0 }).close();
    await new Promise((resolve) => setTimeout(resolve, 100));
    const files = [];
    try {
      for (;;) files.push(Deno.openSync("/dev/null"));
    } catch { /* There is no descriptor left. */ }
    // Frees the one descriptor that counting them needs.
    files.pop().close();
    let failures = 0;
    for (;;) {
      const before = open();
      try {
        const listener = listenEpoll({ hostname: "127.0.0.1", port: 0 });
        console.log("had behind", failures, "failures");
        listener.close();
        break;
      } catch (error) {
        if (error.code !== "EMFILE" || open() !== before) throw error;
        failures++;
        files.pop().close();
      }
    }
    for (const file of files) file.close();
    `,
    ["-A"],
    async (process) => {
      const [, failures] = await process.stdoutMatch(/had behind (\d+) failures/);
      assertEquals([(await process.outcome()).code, Number(failures) > 4], [0, true]);
    },
  ));

test("an address that cannot be had costs no descriptor", async () => {
  const counts = await counted(`
    const taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const errorAt = (where) => {
      try {
        listenEpoll(where);
      } catch (error) {
        return error.name;
      }
    };
    const fail = () => [taken.addr, { hostname: "192.0.2.1", port: 0 }].map(errorAt);
    const names = fail();
    const before = descriptors();
    for (let i = 0; i < 100; i++) fail();
    // Deno may open a few of its own meanwhile.
    console.log(JSON.stringify([...names, descriptors() - before < 100]));
  `);
  assertEquals(counts, ["AddrInUse", "AddrNotAvailable", true]);
});

test("a poller that cannot take its first descriptor ends", async () => {
  const url = (path: string) => JSON.stringify(new URL(path, import.meta.url));
  const counts = await counted(`
    const { Poller } = await import(${url("../../../ops/epoll/poller.ts")});
    const { Libc } = await import(${url("../../../ops/epoll/libc.ts")});
    let closed = 0;
    const poller = new Poller(new Libc(), () => closed++);
    let code;
    try {
      poller.add(-1, 0, {});
    } catch (error) {
      code = error.code;
    }
    await poller.ended;
    console.log(JSON.stringify([code, closed]));
  `);
  assertEquals(counts, ["EBADF", 1]);
});

const SERVER = `${MODULES}
  const server = serve({ listener: listenEpoll({ hostname: "127.0.0.1", port: Number(Deno.args[0] ?? 0) }) });
  console.log("port", server.addr.port, "pid", Deno.pid);
`;

async function shouts(port: number): Promise<void> {
  using client = new TestClient(await Deno.connect({ port }));
  await client.write("hello\n");
  assertEquals(await client.readLine(), "HELLO");
}

/** Number of times that a process has gone to sleep. */
function sleeps(pid: string): number {
  const threads = Array.from(Deno.readDirSync(`/proc/${pid}/task`), ({ name }) => name);
  const statuses = threads.map((thread) => Deno.readTextFileSync(`/proc/${pid}/task/${thread}/status`));
  return statuses.reduce((sum, status) => sum + Number(/^voluntary_ctxt_switches:\s*(\d+)/m.exec(status)![1]), 0);
}

test("an idle server on epoll sleeps, though a client is connected", () =>
  withScript(SERVER, ["-A"], async (process) => {
    const [, port, pid] = await process.stdoutMatch(/port (\d+) pid (\d+)/);
    await shouts(Number(port));
    using _idle = new TestClient(await Deno.connect({ port: Number(port) }));
    // Waits until the process has finished its start.
    let before = -1;
    await until(() => before === (before = sleeps(pid)));
    // In the quietest of some seconds: if the machine holds the process up, each of its threads goes to sleep twice.
    let least = Infinity;
    for (let left = 5; left > 0 && least >= 20; left--) {
      before = sleeps(pid);
      await new Promise((resolve) => setTimeout(resolve, 1000));
      least = Math.min(least, sleeps(pid) - before);
    }
    assertLess(least, 20);
  }));

test("a script under --watch has its port again when it begins anew", () =>
  withScript(SERVER, ["-A", "--watch"], async (process, path) => {
    const [, port] = await process.stdoutMatch(/port (\d+)/);
    await shouts(Number(port));
    const fixed = SERVER.replace("Deno.args[0] ?? 0", port);
    for (const [round, pattern] of [/(port.*[^]*){2}/, /(port.*[^]*){3}/].entries()) {
      await Deno.writeTextFile(path, `${fixed}// ${round}\n`);
      await process.stdoutMatch(pattern);
      await shouts(Number(port));
    }
  }));

test("a worker that is terminated leaves neither its listener on epoll nor a connection open", async () => {
  const counts = await counted(`
    const script = ${JSON.stringify(`${SERVER}postMessage(server.addr.port);`.replace(/console.*/, ""))};
    const worker = new Worker("data:text/javascript," + encodeURIComponent(script), { type: "module" });
    const port = await new Promise((resolve) => worker.onmessage = ({ data }) => resolve(data));
    const clients = [];
    // More clients than one read of the kernel's list returns.
    for (let i = 0; i < 200; i++) clients.push(await Deno.connect({ port }));
    worker.terminate();
    // A connection that was not accepted yet is reset.
    for (const client of clients) await client.read(new Uint8Array(1)).catch(() => {});
    const refused = await Deno.connect({ port }).then(() => false, (error) => error.name);
    for (const client of clients) client.close();
    await until(() => workers() === 0);
    console.log(JSON.stringify([clients.length, refused]));
  `);
  assertEquals(counts, [200, "ConnectionRefused"]);
}, NO_THREAD_ENDS);
