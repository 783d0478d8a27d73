import { assertEquals, assertMatch } from "@std/assert";
import { within } from "../kit/bounded.ts";
import { ask, converse, runCommand, startCommand, type StartOptions, Subprocess } from "../kit/command.ts";
import { listeningFd, NO_FD, withFd } from "../kit/sockets/fd.ts";
import { freePort } from "../kit/sockets/free_port.ts";
import { ask as askAdmin } from "../kit/admin/admin.ts";
import { adminOf, Lineage, Load, startOnFd, untilAccepted, Waiting } from "../kit/admin/upgrades.ts";

/** Registers a test that needs descriptors, and a system with SIGUSR2. */
function test(name: string, body: () => Promise<void>): void {
  Deno.test({ name: name + NO_FD, ignore: NO_FD !== "", fn: () => within(300, body()) });
}

const LOOPBACK = ["--hostname", "127.0.0.1", "--port", "0"];

/** The ways in which a server comes by a socket that it can hand on. */
const WAYS: Readonly<Record<string, (args: string[], options?: StartOptions) => Subprocess>> = {
  "a descriptor on Deno's sockets": (args, options = {}) =>
    startOnFd(args, { permissions: ["--allow-net", "--allow-run"], ...options }),
  "a descriptor on epoll": (args, options = {}) =>
    startOnFd(["--engine", "epoll", ...args], {
      permissions: ["--allow-net", "--allow-run", "--allow-ffi"],
      ...options,
    }),
  "a port on epoll": (args, options = {}) =>
    startCommand([...LOOPBACK, "--engine", "epoll", ...args], {
      permissions: ["--allow-net", "--allow-run", "--allow-ffi"],
      ...options,
    }),
};

/** Why clients wait at an upgrade, and the number of those that do not. */
const WAITS: Readonly<Record<string, { args: string[]; pause?: true; kept: number }>> = {
  "for the end of a pause": { args: [], pause: true, kept: 0 },
  "for room": { args: ["--max-connections", "1", "--at-capacity", "wait"], kept: 1 },
  "for the rate": { args: ["--accept-rate", "1"], kept: 1 },
};

for (const [way, start] of Object.entries(WAYS)) {
  for (const [why, { args, pause, kept }] of Object.entries(WAITS)) {
    test(`clients that wait ${why} at an upgrade are all answered by one of the processes, with ${way}`, async () => {
      await using servers = new Lineage(
        start(["--upgrade", "--drain", "finish", "--admin", "127.0.0.1:0", ...args]),
      );
      const port = await servers.port();
      const admin = await adminOf(servers.first);
      using keeping = await Waiting.at(port, kept);
      await untilAccepted(admin, kept);
      if (pause) assertEquals((await askAdmin(admin, "POST /pause")).status, 200);
      using waiting = await Waiting.at(port, 5);
      // On epoll, they wait in the kernel, but for the one that the server has asked for already.
      await untilAccepted(admin, way.includes("Deno") ? kept + 5 : pause ? 1 : kept);
      const second = await servers.upgrade(servers.first.pid);
      assertEquals(await waiting.answers(), ["LINE 0\n", "LINE 1\n", "LINE 2\n", "LINE 3\n", "LINE 4\n"]);
      assertEquals((await keeping.answers()).length, kept);
      await servers.stop(second);
    });
  }

  test(`under load, two upgrades refuse no connection and lose no line, with ${way}`, async () => {
    await using servers = new Lineage(start(["--upgrade", "--drain-timeout", "60s"]));
    const port = await servers.port();
    await using load = new Load(port, 20);
    await load.more(20);
    const second = await servers.upgrade(servers.first.pid);
    await load.more(40);
    const third = await servers.upgrade(second);
    await load.more(40);
    await load[Symbol.asyncDispose]();
    assertEquals(load.failures, []);
    assertEquals(await servers.first.exitCode(), 0);
    assertEquals(servers.pids, [servers.first.pid, second, third]);
    const log = await servers.stop(third);
    assertEquals(log.match(/cut|error/g), null);
    console.log(`${load.conversations} conversations of 3 lines`);
  });

  test(`a connection that is open at an upgrade goes on, and ends with the old process, with ${way}`, async () => {
    await using servers = new Lineage(start(["--upgrade", "--drain-timeout", "3s", "--idle-timeout", "60s"]));
    const port = await servers.port();
    using conn = await Deno.connect({ port });
    assertEquals(await ask(conn, "before\n"), "BEFORE\n");
    const second = await servers.upgrade(servers.first.pid);
    // The new process has not got the connection: its end reaches the client, although that process lives on.
    const end = conn.read(new Uint8Array(10));
    assertEquals(await converse({ hostname: "127.0.0.1", port }, "new\n"), "NEW\n");
    assertEquals(await within(60, end.catch(() => null)), null);
    assertEquals(await servers.first.exitCode(), 0);
    assertEquals(await converse({ hostname: "127.0.0.1", port }, "newer\n"), "NEWER\n");
    await servers.stop(second);
  });

  test(`a connection whose PROXY header is still awaited at an upgrade is served, with ${way}`, async () => {
    const args = [
      "--upgrade",
      "--proxy-protocol",
      "127.0.0.1",
      "--proxy-header-timeout",
      "60s",
      "--drain-timeout",
      "60s",
    ];
    await using servers = new Lineage(start(args));
    const port = await servers.port();
    using conn = await Deno.connect({ port });
    await conn.write(new TextEncoder().encode("PROXY TCP4 192.0.2.1 "));
    const second = await servers.upgrade(servers.first.pid);
    assertEquals(await ask(conn, "192.0.2.2 1 2\r\nhello\n"), "HELLO\n");
    await servers.first.stderrMatch(/accepted connection from 192\.0\.2\.1:1\n/);
    conn.close();
    assertEquals(await servers.first.exitCode(), 0);
    await servers.stop(second);
  });
}

test("A -- at the end of the command line keeps no new process from taking over", async () => {
  const permissions = ["--allow-net", "--allow-run"];
  await using servers = new Lineage(startOnFd(["--upgrade", "--"], { permissions }));
  const port = await servers.port();
  Deno.kill(servers.first.pid, "SIGUSR2");
  const [, second] = await servers.first.stderrMatch(/process (\d+) has taken over|kept running/);
  assertEquals(await converse({ hostname: "127.0.0.1", port }, "new\n"), "NEW\n");
  assertEquals((await servers.stop(Number(second ?? servers.first.pid))).includes("kept running"), false);
});

test("The admin port is the new process's after an upgrade, and answers until then and from then on", async () => {
  const permissions = ["--allow-net", "--allow-run", "--allow-read"];
  const flags = ["--upgrade", "--admin", `127.0.0.1:${freePort()}`, "--idle-timeout", "off", "--drain-timeout", "60s"];
  await using servers = new Lineage(startOnFd(flags, { permissions }));
  // While its connection is open, the old process lives on.
  const client = await Deno.connect({ port: await servers.port() });
  await servers.first.stderrMatch(/accepted connection/);
  const [, address] = await servers.first.stderrMatch(/admin on (\S+)\n/);
  const pid = async () => (await (await fetch(`http://${address}/status`)).json()).pid;
  assertEquals(await pid(), servers.first.pid);
  const second = await servers.upgrade(servers.first.pid);
  await servers.first.stderrMatch(/admin on [^]*admin on /);
  assertEquals(await pid(), second);
  client.close();
  while ((await (await fetch(`http://${address}/readyz`)).text()).trim() !== "ready");
  assertEquals((await servers.stop(second)).includes("admin port"), false);
});

/** Starts a server whose program can be replaced while it runs; gives the path of the program. */
async function withProgram(args: string[], body: (servers: Lineage, program: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  const program = `${folder}/program`;
  await Deno.symlink(Deno.execPath(), program);
  try {
    const fd = listeningFd();
    // However long the machine takes, a connection that is open goes on.
    const flags = ["--listen-fd", `${fd}`, "--upgrade", "--idle-timeout", "off", ...args];
    const command = ["run", "--allow-net", "--allow-run", "mod.ts", ...flags];
    await using servers = new Lineage(withFd(fd, () => new Subprocess(program, command)));
    await body(servers, program);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Puts a shell script in the place of a program; undefined removes the program. */
async function replace(program: string, script: string | undefined): Promise<void> {
  await Deno.remove(program);
  if (script !== undefined) await Deno.writeTextFile(program, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
}

const FAILURES: Readonly<Record<string, [script: string | undefined, timeout: string, line: RegExp]>> = {
  "ends": ["exit 3", "60s", /error kept running: the new process ended with exit code 3 before it was ready\n/],
  "is not ready in time": ["exec sleep 600", "1s", /error kept running: the new process was not ready within 1 s\n/],
  "ignores that it is told to end": [
    "trap '' TERM; while true; do sleep 1; done",
    "1s",
    /error kept running: the new process was not ready within 1 s\n/,
  ],
  "is missing": [undefined, "60s", /error kept running: cannot start \/\S+: no such file or directory\n/],
};

for (const [what, [script, timeout, line]] of Object.entries(FAILURES)) {
  test(`A new process that ${what} is one line in the log, and the old one goes on`, () =>
    withProgram(["--upgrade-timeout", timeout], async (servers, program) => {
      const port = await servers.port();
      using conn = await Deno.connect({ port });
      assertEquals(await ask(conn, "before\n"), "BEFORE\n");
      await replace(program, script);
      Deno.kill(servers.first.pid, "SIGUSR2");
      await servers.first.stderrMatch(line);
      assertEquals(await ask(conn, "after\n"), "AFTER\n");
      assertEquals(await converse({ hostname: "127.0.0.1", port }, "new\n"), "NEW\n");
      conn.close();
      assertEquals((await servers.stop(servers.first.pid)).match(/kept running/g)?.length, 1);
    }));
}

test("After an upgrade that failed, the next one succeeds, with the program that is there by then", () =>
  withProgram([], async (servers, program) => {
    const port = await servers.port();
    await replace(program, "exit 1");
    Deno.kill(servers.first.pid, "SIGUSR2");
    await servers.first.stderrMatch(/kept running/);
    await Deno.remove(program);
    await Deno.symlink(Deno.execPath(), program);
    const second = await servers.upgrade(servers.first.pid);
    assertEquals(await servers.first.exitCode(), 0);
    assertEquals(await converse({ hostname: "127.0.0.1", port }, "new\n"), "NEW\n");
    await servers.stop(second);
  }));

const STOPS: Readonly<Record<string, (server: Subprocess) => unknown>> = {
  "a signal": (server) => server.signal("SIGTERM"),
  "its admin port": async (server) => assertEquals((await askAdmin(await adminOf(server), "POST /drain")).status, 202),
};

for (const [by, stop] of Object.entries(STOPS)) {
  test(`A server that ${by} tells to stop while a new process starts ends both, and answers what it has accepted`, () =>
    withProgram(["--admin", "127.0.0.1:0"], async (servers, program) => {
      await servers.port();
      await replace(program, "exec sleep 600");
      Deno.kill(servers.first.pid, "SIGUSR2");
      await servers.first.stderrMatch(/started process/);
      await stop(servers.first);
      const { code, stderr } = await servers.first.outcome();
      assertEquals(code, 0);
      assertMatch(stderr, /info gave the upgrade up: the new process was not ready yet, and this one is to stop\n/);
      assertMatch(stderr, /all connections closed\n$/);
    }));
}

const IGNORED: Readonly<Record<string, [args: string[], permissions: string[], line: RegExp]>> = {
  "without --upgrade": [[], [], /warn ignored SIGUSR2: --upgrade is off\n/],
  // From a variable, which may be there for other servers of the machine, it is no mistake.
  "on a port of Deno's sockets": [
    [],
    ["--allow-run", "--allow-env=SHOUTY_*"],
    /warn ignored SIGUSR2: cannot hand on 127\.0\.0\.1:\d+: that takes --engine epoll or --listen-fd\n/,
  ],
};

for (const [what, [args, permissions, line]] of Object.entries(IGNORED)) {
  test(`SIGUSR2 is one line in the log, and nothing else, ${what}`, async () => {
    const env: Record<string, string> = permissions.length > 0 ? { SHOUTY_UPGRADE: "on" } : {};
    const options = { permissions: ["--allow-net", ...permissions], env };
    await using servers = new Lineage(startCommand([...LOOPBACK, ...args], options));
    const port = await servers.port();
    Deno.kill(servers.first.pid, "SIGUSR2");
    await servers.first.stderrMatch(line);
    assertEquals(await converse({ hostname: "127.0.0.1", port }, "on\n"), "ON\n");
    await servers.stop(servers.first.pid);
  });
}

test("SIGUSR2 while the server drains, whatever began that, is ignored", () =>
  withProgram(["--admin", "127.0.0.1:0"], async (servers) => {
    const port = await servers.port();
    const [, admin] = await servers.first.stderrMatch(/admin on (\S+)\n/);
    const client = await Deno.connect({ hostname: "127.0.0.1", port });
    await servers.first.stderrMatch(/accepted connection/);
    await (await fetch(`http://${admin}/drain`, { method: "POST" })).body?.cancel();
    Deno.kill(servers.first.pid, "SIGUSR2");
    await servers.first.stderrMatch(/warn ignored SIGUSR2: shutting down\n/);
    client.close();
    assertEquals(await servers.first.exitCode(), 0);
  }));

test("--upgrade without the permission to start a process is refused at the start", async () => {
  for (const permissions of [["--allow-net"], ["--allow-net", "--allow-run=deno"]]) {
    const { code, stderr } = await runCommand([...LOOPBACK, "--engine", "epoll", "--upgrade"], {
      permissions: ["--no-prompt", ...permissions],
    });
    const why = "no permission to start the new process, which --allow-run without a list grants";
    assertEquals([code, stderr], [1, `shouty: cannot use --upgrade: ${why}\n`]);
  }
});
