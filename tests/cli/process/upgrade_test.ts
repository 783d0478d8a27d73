import { assertEquals } from "@std/assert";
import { Upgrade, type UpgradeParts } from "../../../cli/process/upgrade.ts";
import { test } from "../../kit/bounded.ts";

const NO_SHELL = Deno.build.os === "windows" ? " (skipped: Windows has no signal for it)" : "";

/** An upgrade to a program, and what it logs. */
function upgrade(script: string) {
  const lines: string[] = [];
  const stop = new AbortController();
  const parts = {
    ...{ flags: { upgrade: "on", upgradeTimeout: 600_000 }, program: ["sh", "-c", script], bound: [] },
    ...{ server: { state: "listening" }, stop: stop.signal },
    log: { write: (_level: string, event: string, text: () => string) => void lines.push(`${event}: ${text()}`) },
  };
  return { upgrade: new Upgrade(parts as unknown as UpgradeParts), lines, stop };
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
    assertEquals(lines.map((line) => line.replace(/process \d+/, "process N")), [
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
