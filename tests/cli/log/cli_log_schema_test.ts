import { assert, assertEquals, assertMatch } from "@std/assert";
import { type LogEvent, openLog } from "../../../cli/log/log.ts";
import { report } from "../../../cli/log/report.ts";
import { reportWorker } from "../../../cli/serve/workers.ts";
import schema from "../../../docs/log_schema.json" with { type: "json" };
import { CLOSE_REASONS, REJECT_REASONS } from "../../../internal/api/reasons.ts";
import { makeIdentity } from "../../kit/certificates.ts";
import { ask, listening, NO_SIGNALS, type StartOptions, startServer, Subprocess } from "../../kit/command.ts";
import { NO_EPOLL } from "../../kit/sockets/epoll.ts";
import { FakeStderr } from "../../kit/fakes/fake_stderr.ts";
import { load } from "../../kit/foreign/npm.ts";
import { IDENTITY } from "../../kit/tls.ts";
import { Lineage } from "../../kit/admin/upgrades.ts";

interface Validator {
  (line: unknown): boolean;
  errors?: unknown;
}

const { module: ajv, missing } = await load<
  { Ajv2020: new (options: object) => { compile(schema: object): Validator } }
>(
  "npm:ajv@8.20.0/dist/2020.js",
);
const MISSING = missing + NO_SIGNALS;

/** Every event of the log. `deno check` sees to it that none is missing. */
const EVENTS: Record<LogEvent, true> = {
  ...{ "listening": true, "accepted": true, "closed": true, "rejected": true, "gone": true, "accept-error": true },
  ...{ "handler-error": true, "draining": true, "waiting": true, "stopped": true, "cut": true, "failed": true },
  ...{ "options": true, "engine": true, "ignored-variable": true, "signal": true, "ignored-signal": true },
  ...{ "certificate": true, "certificate-dates": true, "certificate-kept": true, "ending": true },
  ...{ "paused": true, "resumed": true, "limits-changed": true, "lame-duck": true },
  ...{ "admin": true, "admin-drain": true },
  ...{ "upgrade-begun": true, "upgraded": true, "upgrade-failed": true, "systemd-error": true, "admin-failed": true },
  ...{ "worker-started": true, "worker-crashed": true, "worker-stopped": true, "workers-alone": true },
  ...{ "tracing": true, "wire": true, "left-out": true, "dropped": true },
};
/** What no run of the command shows at will: a defect, a listener that breaks, a reader that stops and goes on, a pause. */
const NOT_RUN = [
  ...["admin-failed", "dropped", "failed", "handler-error", "limits-changed", "paused", "resumed"],
  ...["worker-crashed", "workers-alone"],
];

const seen = new Set<string>();

/** Checks each line of a log, and returns their events. */
function checkLines(stderr: string): string[] {
  const validate = new ajv.Ajv2020({ strict: true, strictTypes: false, strictRequired: false }).compile(schema);
  const lines = stderr.trimEnd().split("\n");
  return lines.map((text) => {
    assert(validate(JSON.parse(text)), `${text}\n${JSON.stringify(validate.errors, undefined, 2)}`);
    const { event } = JSON.parse(text);
    seen.add(event);
    return event;
  });
}

/** Starts the command on the loopback with its log in JSON, at the level `debug`. */
async function start(args: string[], options: StartOptions = {}) {
  const json = ["--log-format", "json", "--log-level", "debug"];
  return await startServer([...json, ...args], options);
}

async function end(server: Subprocess, signal: Deno.Signal = "SIGTERM"): Promise<string[]> {
  server.signal(signal);
  return checkLines((await server.outcome()).stderr);
}

function test(name: string, fn: () => void | Promise<void>): void {
  Deno.test({ name: name + MISSING, ignore: MISSING !== "", fn });
}

/** The tests whose lines are in `seen` once they have run. */
const LOGS: (() => Promise<void>)[] = [];

/** Registers one of them. It runs once: as a test, or before that for the test that looks at `seen`. */
function logTest(name: string, fn: () => void | Promise<void>): void {
  let run: Promise<void> | undefined;
  const once = () => run ??= Promise.try(fn);
  LOGS.push(once);
  test(name, once);
}

logTest("The log of clients that are served, refused and left out is as its schema says", async () => {
  const env = { SHOUTY_UNIX: "tcp://10.96.0.12:8080" };
  const args = ["--trace", "--log-sample", "1", "--max-connections", "1"];
  await using server = await start(args, { env, permissions: ["--allow-net", "--allow-env=SHOUTY_*"] });
  using first = await Deno.connect({ port: server.port });
  assertEquals(await ask(first, "hello\n"), "HELLO\n");
  for (let i = 0; i < 3; i++) {
    using conn = await Deno.connect({ port: server.port });
    await new Response(conn.readable).text();
  }
  await server.stderrMatch(/"left-out"/);
  server.signal("SIGHUP");
  await server.stderrMatch(/"ignored-signal"/);
  first.close();
  await server.stderrMatch(/"closed"/);
  const events = await end(server);
  assertEquals(events.filter((event) => event === "tracing").length, 1);
});

logTest("The log of a server that its admin port ends is as its schema says", async () => {
  await using server = await start(["--admin", "127.0.0.1:0"]);
  const [, port] = await server.stderrMatch(/"admin","addr":"127\.0\.0\.1:(\d+)"/);
  const drained = await fetch(`http://127.0.0.1:${port}/drain`, { method: "POST" });
  assertEquals([drained.status, (await drained.json()).state], [202, "draining"]);
  const events = checkLines((await server.outcome()).stderr);
  assertEquals([events.includes("admin-drain"), events.at(-1)], [true, "stopped"]);
});

logTest("The log of upgrades is as its schema says", async () => {
  // What cannot be run here has not been seen to differ.
  if (NO_EPOLL !== "") {
    return ["systemd-error", "upgrade-begun", "upgrade-failed", "upgraded"].forEach((e) => seen.add(e));
  }
  const env = { NOTIFY_SOCKET: "/run/nowhere" };
  const permissions = ["--allow-net", "--allow-ffi", "--allow-run", "--allow-env=NOTIFY_SOCKET"];
  const folder = await Deno.makeTempDir();
  const program = `${folder}/program`;
  await Deno.symlink(Deno.execPath(), program);
  const args = ["run", ...permissions, "mod.ts", "--engine", "epoll", "--hostname", "127.0.0.1", "--port", "0"];
  const command = [...args, "--log-format", "json", "--upgrade"];
  await using servers = new Lineage(new Subprocess(program, command, { env }));
  await servers.port();
  await Deno.remove(program);
  Deno.kill(servers.first.pid, "SIGUSR2");
  await servers.first.stderrMatch(/"upgrade-failed"/);
  await Deno.symlink(Deno.execPath(), program);
  const second = await servers.upgrade(servers.first.pid);
  const events = checkLines(await servers.stop(second));
  assertEquals(events.filter((event) => event === "upgraded").length, 1);
  await Deno.remove(folder, { recursive: true });
});

logTest("The log of workers is as its schema says", async () => {
  await using server = await start(["--workers", "2"], { permissions: ["--allow-net", "--allow-read"] });
  assertEquals((await end(server)).filter((event) => event.startsWith("worker-")).length, 4);
});

logTest("The log of certificates is as its schema says", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const cert = `${folder}/cert.pem`;
    const write = ({ cert: text, key } = IDENTITY) => Deno.writeTextFile(cert, text + key);
    await write(makeIdentity("old", { days: [-9, -1] }));
    await using server = await start(["--tls-cert", cert], { permissions: ["--allow-net", `--allow-read=${cert}`] });
    await server.stderrMatch(/"certificate-dates"/);
    server.signal("SIGHUP");
    await server.stderrMatch(/"certificate-kept"/);
    await write();
    server.signal("SIGHUP");
    await server.stderrMatch(/took new certificate/);
    (await Deno.connect({ port: server.port })).close();
    await server.stderrMatch(/"gone"/);
    assertEquals((await end(server)).filter((event) => event === "certificate").length, 2);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

logTest(
  "The log of a shutdown that takes too long, and of one that a second signal ends, is as its schema says",
  async () => {
    {
      await using server = await start(["--drain-timeout", "700ms", "--drain-delay", "1ms"]);
      using _ = await Deno.connect({ port: server.port });
      await server.stderrMatch(/"accepted"/);
      const events = await end(server);
      assertEquals(events.slice(-3).toSorted(), ["closed", "cut", "stopped"]);
    }
    await using server = await start(["--drain-timeout", "off"]);
    using _ = await Deno.connect({ port: server.port });
    await server.stderrMatch(/"accepted"/);
    server.signal("SIGTERM");
    await server.stderrMatch(/"waiting"/); // 500 ms later, so that the next signal is a second one.
    assertEquals((await end(server)).at(-1), "ending");
  },
);

logTest("The log of a server without a free descriptor is as its schema says", async () => {
  const args = "run --allow-net mod.ts --hostname 127.0.0.1 --port 0 --log-format json";
  // Deno would read these certificates late, and warn in its own words that it has no descriptor for their file.
  const command = `unset NODE_EXTRA_CA_CERTS; ulimit -n 40; exec "${Deno.execPath()}" ${args}`;
  await using server = await listening(new Subprocess("sh", ["-c", command]));
  const clients = await Promise.all(Array.from({ length: 60 }, () => Deno.connect({ port: server.port })));
  await server.stderrMatch(/"accept-error"/);
  for (const client of clients) client.close();
  await end(server);
});

logTest("The lines that no run shows at will are as the schema says, too", async () => {
  const stderr = new FakeStderr();
  const log = openLog("info", "json", stderr);
  const addr = { transport: "tcp", hostname: "127.0.0.1", port: 1 } as const;
  stderr.behave = () => Promise.reject(new Deno.errors.BrokenPipe());
  log.write("warn", "tracing", () => "lost");
  await log.flush();
  stderr.behave = (bytes) => Promise.resolve(bytes.length);
  const conn = { id: 1, remoteAddr: addr, localAddr: addr };
  const traceOf = () => ({ traceId: "0123456789abcdef".repeat(2), spanId: "0123456789abcdef" });
  report(log, { type: "handler-error", conn, error: new Error("\x1b[31m\n\u202e") }, { traceOf });
  report(log, { type: "paused" });
  report(log, { type: "resumed" });
  report(log, { type: "limits-changed", limits: { acceptRate: Infinity, allow: ["\u009b"], maxConnections: 7 } });
  reportWorker(log, { type: "worker-crashed", worker: 1, error: new Error("\x1b[31m\n"), lost: 2, retryMs: 100 });
  reportWorker(log, { type: "worker-crashed", worker: 2, error: new Error("In a shutdown"), lost: 0 });
  reportWorker(log, { type: "workers-alone", problem: "no permission" });
  log.write("error", "failed", () => "cannot accept any more: closed", () => ({ error: "closed" }));
  log.write("error", "admin-failed", () => "cannot open the admin port", () => ({ error: "address already in use" }));
  await log.flush();
  assertEquals([...new Set(checkLines(stderr.text))].toSorted(), NOT_RUN);
  assertEquals(stderr.text.match(/"lost":.*/g), ['"lost":2,"retryMs":100}', '"lost":0}']);
  assertMatch(stderr.text, /^[ -~\n]+$/);
  assertMatch(stderr.text, /"trace_id":"[0-9a-f]{32}"/);
});

test("The schema has every event, and each of them has been seen here", async () => {
  for (const log of LOGS) await log();
  assertEquals([...seen].toSorted(), Object.keys(EVENTS).toSorted());
  assertEquals(schema.oneOf.map(({ title }) => title).toSorted(), Object.keys(EVENTS).toSorted());
});

test("The schema refuses a line that it does not describe", () => {
  const line = { time: "2026-01-02T03:04:05.678Z", level: "info", msg: "shutting down", event: "draining", active: 1 };
  const validate = new ajv.Ajv2020({ strictTypes: false, strictRequired: false }).compile(schema);
  const wrong = [
    { ...line, active: "1" },
    { ...line, more: 1 },
    { ...line, event: "other" },
    { ...line, level: "warn" },
    { ...line, time: "now" },
    { ...line, active: undefined },
  ];
  assertEquals([validate(line), ...wrong.map((line) => validate(line))], [true, ...wrong.map(() => false)]);
});

Deno.test("The schema has every reason, and docs/logs.md every event", async () => {
  assertEquals(schema.$defs.closeReason.enum.toSorted(), CLOSE_REASONS.toSorted());
  assertEquals(schema.$defs.rejectReason.enum.toSorted(), REJECT_REASONS.toSorted());
  const text = await Deno.readTextFile(new URL("../../../docs/logs.md", import.meta.url));
  assertEquals(Object.keys(EVENTS).filter((event) => !text.includes(`\`${event}\``)), []);
});

logTest("The log of a server that cannot start is as its schema says, and has its error alone", async () => {
  for (
    const [args, error] of [
      [
        ["--tls-cert", "/nowhere/cert.pem"],
        /^cannot read --tls-cert "\/nowhere\/cert.pem": no such file or directory$/,
      ],
      [["--admin", "203.0.113.1:0"], /^cannot /],
    ] as const
  ) {
    await using server = new Subprocess(Deno.execPath(), [
      ...["run", "--allow-all", "mod.ts", "--hostname", "127.0.0.1", "--port", "0", "--log-format", "json", ...args],
    ]);
    const { code, stderr } = await server.outcome();
    assertEquals([code > 0, checkLines(stderr)], [true, ["failed"]]);
    assertMatch(JSON.parse(stderr).error, error);
  }
});
