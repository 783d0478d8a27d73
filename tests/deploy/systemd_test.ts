import { assertEquals, assertGreater, assertLess, assertMatch } from "@std/assert";
import { test } from "../kit/bounded.ts";
import { adapted, ask, flagsOf, makeFolder, milliseconds, shipped } from "../kit/project/deploy.ts";
import { missingProgram } from "../kit/foreign/foreign.ts";

const SERVICE = shipped("systemd/shouty.service");
const SOCKET = shipped("systemd/shouty.socket");
const NO_SYSTEMD = await missingProgram("systemd-analyze", "--version");

/** The most that `systemd-analyze security` may find exposed, from 0 to 10; "OK" ends at 4. */
const MOST_EXPOSED = 2;

/** The value of a setting, which is there once. */
function setting(unit: string, name: string): string {
  const values = [...unit.matchAll(new RegExp(`^${name}=(.*)$`, "gm"))].map(([, value]) => value);
  assertEquals(values.length, 1, `${name}= is there once`);
  return values[0];
}

/** The command line of the service, without the program. */
function commandLine(): string[] {
  const words = setting(SERVICE, "ExecStart").split(" ");
  assertEquals(words.shift(), "/usr/local/bin/shouty");
  assertEquals(words[words.indexOf("--listen-fd") + 1], "systemd");
  return words;
}

/** The units in a folder, with a program that is there. */
async function installed(): Promise<{ path: string } & AsyncDisposable> {
  const folder = await makeFolder();
  await Deno.writeTextFile(`${folder.path}/shouty.socket`, SOCKET);
  await Deno.writeTextFile(`${folder.path}/shouty.service`, adapted(SERVICE, { "/usr/local/bin/shouty": "/bin/true" }));
  return folder;
}

test(
  "systemd accepts the units",
  async () => {
    await using folder = await installed();
    const units = ["shouty.service", "shouty.socket"].map((name) => `${folder.path}/${name}`);
    // Only what systemd says about these units: others of this machine may have faults of their own.
    const { code, text } = await ask("systemd-analyze", ["verify", "--man=no", ...units]);
    assertEquals([code, text.split("\n").filter((line) => line.includes("shouty"))], [0, []], text);
  },
  30,
  NO_SYSTEMD,
);

test(
  "systemd finds little of the machine exposed to the service",
  async () => {
    await using folder = await installed();
    const { text } = await ask("systemd-analyze", ["security", "--offline=yes", `${folder.path}/shouty.service`]);
    const [, exposed] = /exposure level for shouty\.service: ([\d.]+)/.exec(text) ?? [];
    assertMatch(exposed ?? text, /^\d/);
    assertLess(Number(exposed), MOST_EXPOSED);
  },
  30,
  NO_SYSTEMD,
);

test("systemd's limits fit the service's flags", () => {
  const flags = flagsOf(commandLine());
  const stopMs = milliseconds(setting(SERVICE, "TimeoutStopSec"));
  assertLess(flags.drainDelay + flags.drainTimeout, stopMs - 2000, "the drain is over before systemd kills");
  // Rejected connections that still end, and those of the admin port.
  assertGreater(Number(setting(SERVICE, "LimitNOFILE")), flags.maxConnections + 100 + 64 + 100);
  assertEquals(setting(SOCKET, "ListenStream"), `${flags.hostname}:${flags.port}`);
  assertEquals(milliseconds(`${setting(SOCKET, "KeepAliveTimeSec")}s`), flags.keepAliveMs);
  assertEquals(setting(SERVICE, "Requires"), "shouty.socket");
});

test("the service's sandbox does not forbid what V8 needs, and says so", () => {
  assertEquals(/^MemoryDenyWriteExecute=/m.test(SERVICE), false);
  assertMatch(SERVICE, /^# MemoryDenyWriteExecute=/m);
});
