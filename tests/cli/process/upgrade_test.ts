import { assertEquals } from "@std/assert";
import { Upgrade, type UpgradeParts } from "../../../cli/process/upgrade.ts";
import { test } from "../../kit/bounded.ts";

const NO_SHELL = Deno.build.os === "windows" ? " (skipped: Windows has no signal for it)" : "";

/** An upgrade to a program, and what it logs and does, in this order; `N` stands for the new process. */
function upgrade(script: string, more: (note: (line: string) => void) => object = () => ({})) {
  const lines: string[] = [];
  const stop = new AbortController();
  const note = (line: string) => void lines.push(line.replace(/(?<=process |to )\d+/, "N"));
  const all = {
    ...{ flags: { upgrade: "on", upgradeTimeout: 600_000 }, program: ["sh", "-c", script], bound: [] },
    ...{ server: { state: "listening" }, stop: stop.signal },
    log: { write: (_level: string, event: string, text: () => string) => note(`${event}: ${text()}`) },
    ...more(note),
  };
  return { upgrade: new Upgrade(all as unknown as UpgradeParts), lines, stop };
}

test(
  "While a process starts, no other one does; when it has failed, another one may, until the server stops",
  async () => {
    const { upgrade: tried, lines, stop } = upgrade("exit 3");
    tried.run();
    tried.run();
    await tried.over;
    tried.run();
    await tried.over;
    stop.abort();
    tried.run();
    assertEquals(lines, [
      "upgrade-begun: started process N to take over",
      "ignored-signal: ignored SIGUSR2: another process is taking over already",
      "upgrade-failed: kept running: the new process ended with exit code 3 before it was ready",
      "upgrade-begun: started process N to take over",
      "upgrade-failed: kept running: the new process ended with exit code 3 before it was ready",
      "ignored-signal: ignored SIGUSR2: shutting down",
    ]);
  },
  60,
  NO_SHELL,
);

/** Whether there is such a process. */
function isAlive(pid: number): boolean {
  try {
    Deno.kill(pid, "SIGCONT");
    return true;
  } catch {
    return false;
  }
}

/**
 * Parts that note what is done with them: a listening socket, and a server in which one connection waits. The process
 * that takes over is ended.
 */
function noting(note: (line: string) => void) {
  const queued = [1, 1, 0];
  const listener = {
    fd: 7,
    addr: { transport: "tcp", hostname: "127.0.0.1", port: 1 },
    inherit: (on: boolean) => note(`inherit ${on}`),
    release: () => note("release"),
  };
  const server = {
    ...{ state: "listening", limits: { atCapacity: "reject", acceptRate: Infinity } },
    stats: () => ({ queued: queued.shift() }),
    resume: () => note("resume"),
    shutdown: async (options: object) => {
      note(`shut down ${JSON.stringify(options)}`);
      while (isAlive(taker)) await new Promise((next) => setTimeout(next, 1));
    },
  };
  let taker = 0;
  const handOver = (pid: number) => {
    note(`hand over to ${pid}`);
    taker = pid;
    Deno.kill(pid, "SIGKILL");
  };
  const notifier = { handOver };
  return { bound: [{ listener, tls: false }], server, notifier, handedOver: () => note("handed over") };
}

test(
  "A new process that is ready takes over, and this one serves what it has accepted before it drains",
  async () => {
    // Its words come in parts, and some come before.
    const { upgrade: tried, lines } = upgrade(
      `printf 'READY=0\\nREA'; sleep 0.1; printf 'DY=1\\n'; exec sleep 600`,
      noting,
    );
    tried.run();
    await tried.over;
    assertEquals(lines, [
      "inherit true",
      "inherit false",
      "upgrade-begun: started process N to take over",
      "upgraded: process N has taken over",
      "hand over to N",
      "handed over",
      "release",
      "resume",
      'shut down {"delay":0}',
    ]);
  },
  60,
  NO_SHELL,
);

test(
  "A new process that says something else is not ready, and has failed when the time is up",
  async () => {
    const flags = { upgrade: "on", upgradeTimeout: 250 };
    const { upgrade: tried, lines } = upgrade("echo READY=0; exec sleep 600", (note) => ({ ...noting(note), flags }));
    tried.run();
    await tried.over;
    assertEquals(lines, [
      "inherit true",
      "inherit false",
      "upgrade-begun: started process N to take over",
      "upgrade-failed: kept running: the new process was not ready within 0.25 s",
    ]);
  },
  60,
  NO_SHELL,
);

test(
  "A new process that is not ready when the server stops is told to end, and its end is waited for",
  async () => {
    const folder = await Deno.makeTempDir();
    try {
      const script = `trap 'sleep 0.1; echo told > ${folder}/told; exit' TERM
        echo > ${folder}/begun; while true; do sleep 0.01; done`;
      const { upgrade: tried, lines, stop } = upgrade(script);
      tried.run();
      while (Array.from(Deno.readDirSync(folder)).length === 0) await new Promise((next) => setTimeout(next, 1));
      stop.abort();
      await tried.over;
      assertEquals(Deno.readTextFileSync(`${folder}/told`), "told\n");
      assertEquals(lines, [
        "upgrade-begun: started process N to take over",
        "upgrade-failed: gave the upgrade up: the new process was not ready yet, and this one is to stop",
      ]);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
  60,
  NO_SHELL,
);

test(
  "A program that cannot be started is a failure that passes on no socket, and one that may not be is ignored",
  async () => {
    const missing = upgrade("", (note) => ({ ...noting(note), program: ["/no/such/program"] }));
    missing.upgrade.run();
    await missing.upgrade.over;
    const why = "cannot start /no/such/program: no such file or directory";
    assertEquals(missing.lines, ["inherit true", "inherit false", `upgrade-failed: kept running: ${why}`]);
    const bound = [{ listener: { addr: { transport: "tcp", hostname: "127.0.0.1", port: 1 } }, tls: false }];
    for (const parts of [{ program: undefined }, { bound }]) {
      const { upgrade: refused, lines } = upgrade("", () => parts);
      refused.run();
      const reason = "bound" in parts
        ? "cannot hand on 127.0.0.1:1: that takes --engine epoll or --listen-fd"
        : "--upgrade is off";
      assertEquals(lines, [`ignored-signal: ignored SIGUSR2: ${reason}`]);
    }
  },
  60,
  NO_SHELL,
);
