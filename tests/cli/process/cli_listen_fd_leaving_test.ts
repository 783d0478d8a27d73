import { assertEquals, assertThrows } from "@std/assert";
import type { ServerLimits, ServerState, ShutdownOptions } from "@x/shouty";
import { type LeavingServer, serveAccepted, shutdownOf } from "../../../cli/process/leaving.ts";
import { ask as askAdmin } from "../../kit/admin/admin.ts";
import { within } from "../../kit/bounded.ts";
import { listening, type ServerProcess, startCommand } from "../../kit/command.ts";
import { closeFd, listeningFd, NO_FD, withFd } from "../../kit/sockets/fd.ts";
import { adminOf, untilAccepted, Waiting } from "../../kit/admin/upgrades.ts";

function test(name: string, body: () => Promise<void>, missing = NO_FD): void {
  Deno.test({ name: name + missing, ignore: missing !== "", fn: () => within(120, body()) });
}

const ENGINES: Readonly<Record<string, string[]>> = {
  deno: ["--allow-net"],
  epoll: ["--allow-net", "--allow-ffi"],
};

/** A server with a number of waiting connections, at each look; it notes what is done to it. */
function leaving(state: ServerState, limits: ServerLimits, ...queued: number[]) {
  const done: unknown[] = [];
  const stats = () => ({ queued: queued.length > 1 ? queued.shift() : queued[0] });
  const resume = () => done.push("resumed");
  const setLimits = (limits: ServerLimits) => done.push(limits);
  return { done, server: { state, limits, stats, resume, setLimits } as unknown as LeavingServer };
}

test("Before a drain, a pause and the limits that let connections wait end, and no other limit", async () => {
  const [off, one] = [Infinity, 1];
  const cases: [ServerLimits, unknown[]][] = [
    [{ atCapacity: "wait", maxConnections: one, acceptRate: off }, [{ maxConnections: off }]],
    [{ atCapacity: "wait", maxConnections: off, acceptRate: one }, [{ acceptRate: off }]],
    [{ atCapacity: "reject", maxConnections: one, acceptRate: one }, [{ acceptRate: off }]],
    [{ atCapacity: "reject", maxConnections: one, acceptRate: off }, []],
    [{ atCapacity: "wait", maxConnections: off, acceptRate: off }, []],
  ];
  for (const [limits, lifted] of cases) {
    for (const state of ["listening", "lame-duck"] as const) {
      const { server, done } = leaving(state, limits, 1, 0);
      await serveAccepted(server, 1);
      assertEquals(done, ["resumed", ...lifted]);
    }
  }
  for (const { server, done } of [leaving("draining", cases[0][0], 1), leaving("listening", cases[0][0], 0)]) {
    await serveAccepted(server, 1);
    assertEquals(done, [], "None waits, or the server has begun the drain by itself");
  }
}, "");

/** Runs a function while each timer expires at once; returns the times that it has given to them. */
function withTimersAtOnce(call: () => void): unknown[] {
  const { setTimeout } = globalThis;
  const times: unknown[] = [];
  const atOnce = (callback: () => void, ms: number) => {
    times.push(ms);
    return setTimeout(callback, 0);
  };
  try {
    globalThis.setTimeout = atOnce as typeof setTimeout;
    call();
  } finally {
    globalThis.setTimeout = setTimeout;
  }
  return times;
}

test("In the last second of a delay, sockets are released that came as descriptors, and no others", async () => {
  const listenFd = [{ fd: 3, tls: false }];
  for (const [given, delay, times] of [[listenFd, 900, [0]], [listenFd, 10_000, [9000]], [null, 900, []]] as const) {
    const { server } = leaving("listening", {}, 0);
    const done: string[] = [];
    const listener = { inherit() {}, release: () => done.push("released") } as never;
    const leavingServer = { ...server, shutdown: () => done.push("shut down") } as never;
    const end = shutdownOf(leavingServer, [{ listener, tls: false }], { listenFd: given });
    assertEquals(withTimersAtOnce(() => void end({ delay })), [...times]);
    assertEquals(done, ["shut down"]);
    await new Promise((resolve) => setTimeout(resolve, 0));
    assertEquals(done, given === null ? ["shut down"] : ["shut down", "released"]);
  }
}, "");

test("A shutdown begins at once if nothing waits, and with wrong options it throws, and releases nothing", async () => {
  const end = async (queued: number, options: ShutdownOptions) => {
    const { server } = leaving("listening", {}, queued, 0);
    const done: string[] = [];
    const listener = { inherit() {}, release: () => done.push("released") } as never;
    const leavingServer = { ...server, shutdown: () => done.push("shut down") } as never;
    const call = () => shutdownOf(leavingServer, [{ listener, tls: false }], { listenFd: null })(options);
    if (options.drainTimeout === -1) assertThrows(call, RangeError, "drainTimeout");
    else {
      const over = call();
      done.push("asked");
      await over;
    }
    return done;
  };
  assertEquals(await end(0, {}), ["released", "shut down", "asked"]);
  assertEquals(await end(1, {}), ["released", "asked", "shut down"]);
  assertEquals(await end(1, { drainTimeout: -1 }), []);
}, "");

test(
  "A server whose sockets no other process has shuts down at once, also in a pause, and accepts nothing more",
  () => {
    const { server, done } = leaving("listening", {}, 1);
    const shutdown = () => void done.push("shut down");
    shutdownOf({ ...server, shutdown } as never, [{ listener: {} as never, tls: false }], { listenFd: null })();
    assertEquals(done, ["shut down"]);
    return Promise.resolve();
  },
  "",
);

test("A server that gets none of the connections that wait shuts down all the same", async () => {
  let looks = 0;
  const { server } = leaving("listening", {}, 1);
  const stats = () => (looks++, server.stats());
  await serveAccepted({ ...server, stats }, 3);
  assertEquals(looks, 1 + 3);
}, "");

/** Why clients wait, and how the server is told to end. */
const WAITS: Readonly<Record<string, { args: string[]; pause?: true; kept?: number; drain?: true }>> = {
  "for the end of a pause": { args: [], pause: true },
  "for the end of a pause, at a drain over HTTP": { args: [], pause: true, drain: true },
  "for the end of a pause, at a drain that begins later": { args: ["--drain-delay", "1500ms"], pause: true },
  "for room": { args: ["--max-connections", "1", "--at-capacity", "wait"], kept: 1 },
  "for the rate": { args: ["--accept-rate", "1"], kept: 1 },
};

for (const engine of Object.keys(ENGINES)) {
  for (const [why, { args, pause, kept = 0, drain }] of Object.entries(WAITS)) {
    test(`Clients that wait ${why} are all answered by this process or the next, with --engine ${engine}`, async () => {
      const fd = listeningFd();
      const all = ["--listen-fd", `${fd}`, "--engine", engine, "--admin", "127.0.0.1:0", "--drain", "finish", ...args];
      const start = async (): Promise<ServerProcess> =>
        await listening(withFd(fd, () => startCommand(all, { permissions: ENGINES[engine] }), true));
      try {
        await using first = await start();
        const admin = await adminOf(first);
        using keeping = await Waiting.at(first.port, kept);
        await untilAccepted(admin, kept);
        if (pause) assertEquals((await askAdmin(admin, "POST /pause")).status, 200);
        using waiting = await Waiting.at(first.port, 5);
        // On epoll, they wait in the kernel, but for the one that the server has asked for already.
        await untilAccepted(admin, engine === "deno" ? kept + 5 : pause ? 1 : kept);
        if (drain) assertEquals((await askAdmin(admin, "POST /drain")).status, 202);
        else first.signal("SIGTERM");
        assertEquals((await first.outcome()).code, 0);
        await using second = await start();
        assertEquals(await waiting.answers(), ["LINE 0\n", "LINE 1\n", "LINE 2\n", "LINE 3\n", "LINE 4\n"]);
        assertEquals((await keeping.answers()).length, kept);
        second.signal("SIGTERM");
        assertEquals((await second.outcome()).code, 0);
      } finally {
        closeFd(fd);
      }
    });
  }
}
