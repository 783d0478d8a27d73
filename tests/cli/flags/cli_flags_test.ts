import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { CONNECT, SERVE } from "../../../cli/flags/flags.ts";
import { answer } from "../../../cli/help/help.ts";
import { parse } from "../../../cli/line/parse.ts";
import manifest from "../../../deno.json" with { type: "json" };
import { serve } from "../../../server.ts";
import { complaint, values } from "../../kit/flags.ts";

const DEFAULTS = {
  hostname: "0.0.0.0",
  port: 8080,
  idleTimeout: 10_000,
  firstLineTimeout: 10_000,
  lineTimeout: 10_000,
  writeTimeout: 10_000,
  keepAliveMs: 15_000,
  maxAge: Infinity,
  drainTimeout: 8000,
  drainDelay: 0,
  drainSpread: 0,
  drain: "linger",
  maxLineBytes: 65_536,
  maxConnectionBytes: Infinity,
  maxLines: Infinity,
  maxLinesPerSecond: Infinity,
  maxBytesPerSecond: Infinity,
  maxBufferedBytes: 134_217_728,
  answerMisdirected: true,
  telnet: false,
  maxConnections: 10_000,
  atCapacity: "reject",
  maxConnectionsPerIp: Infinity,
  allow: null,
  deny: null,
  acceptRate: Infinity,
  acceptRatePerIp: Infinity,
  maxPenaltyMs: 0,
  proxyProtocol: null,
  proxyHeaderTimeout: 5000,
  unix: null,
  tlsCert: null,
  tlsKey: null,
  tlsClientCa: null,
  tlsPort: null,
  tlsHandshakeTimeout: 10_000,
  listenFd: null,
  upgrade: "off",
  upgradeTimeout: 30_000,
  engine: "deno",
  admin: null,
  adminTokenFile: null,
  adminHost: null,
  workers: null,
  logLevel: "info",
  logFormat: "text",
  logSample: Infinity,
  trace: false,
} as const;

Deno.test("Without flags the defaults hold, and the server takes them", async () => {
  assertEquals<unknown>(values(""), DEFAULTS);
  await using _ = serve({ ...values("--hostname 127.0.0.1 --port 0") });
});

Deno.test("A flag's value follows it, or is joined to it", () => {
  assertEquals(values("--port 9000").port, 9000);
  assertEquals(values("--port=9000").port, 9000);
  assertEquals(values("--hostname ::1").hostname, "::1");
  assertEquals(values("--hostname=[::1]").hostname, "::1");
  assertEquals(values("--hostname fe80::1%eth0").hostname, "fe80::1%eth0");
  assertEquals(values("--hostname my-host.example").hostname, "my-host.example");
  assertEquals(values("--drain finish").drain, "finish");
  assertEquals(values("--log-format json --log-level debug").logLevel, "debug");
});

Deno.test("Times have a unit, and are switched off by a word", () => {
  const times = ["1ms", "500ms", "10s", "2m", "1h", "2147483647ms", "off"].map((time) => `--drain-timeout=${time}`);
  const expected = [1, 500, 10_000, 120_000, 3_600_000, 2 ** 31 - 1, Infinity];
  assertEquals(times.map((flag) => values(flag).drainTimeout), expected);
});

Deno.test("Workers are a number, one per processor, or none", () => {
  assertEquals(["1", "128", "auto", "off"].map((word) => values(`--workers ${word}`).workers), [1, 128, "auto", null]);
});

Deno.test("Lists are addresses and networks, or none", () => {
  assertEquals(values("--allow 10.0.0.0/8,::1").allow, ["10.0.0.0/8", "::1"]);
  assertEquals(values("--deny off").deny, null);
  const expected = "expected addresses and networks such as 127.0.0.1,10.0.0.0/8,::1, or off";
  assertEquals(complaint(["--deny", "10.0.0.0/33"]), `cannot use --deny "10.0.0.0/33": ${expected}`);
});

Deno.test("Files are names, or none, and mode bits are octal", () => {
  assertEquals(values("--unix /run/shouty.sock").unix, "/run/shouty.sock");
  assertEquals([values("--tls-cert off").tlsCert, values("--tls-cert ./off").tlsCert], [null, "./off"]);
  const modes = ["0660", "660", "0", "777"].map((mode) => values(`--unix-mode ${mode}`).unixMode);
  assertEquals(modes, [0o660, 0o660, 0, 0o777]);
  const expected = "expected a file's permissions in octal, such as 0660, from 0 to 0777";
  for (const mode of ["0o660", "800", "1000", "rw", "-1"]) {
    assertEquals(complaint(["--unix-mode", mode]), `cannot use --unix-mode "${mode}": ${expected}`);
  }
});

Deno.test("A port for TLS is a number, or none, and what flags and variables have set is told", () => {
  assertEquals(["off", "0", "65535"].map((port) => values(`--tls-port ${port}`).tlsPort), [null, 0, 65_535]);
  const expected = "expected a whole number from 0 to 65535, or off";
  assertEquals(complaint(["--tls-port", "65536"]), `cannot use --tls-port "65536": ${expected}`);
  const given = (args: string[], env: Record<string, string> = {}) => {
    const parsed = parse(SERVE, args, (name) => env[name]);
    assert(parsed.ask === undefined);
    return [...parsed.given];
  };
  assertEquals(given([]), []);
  assertEquals(given(["--port", "8080"], { SHOUTY_UNIX: "/run/s", SHOUTY_PORT: "tcp://10.96.0.12:80" }), [
    "port",
    "unix",
  ]);
  assertEquals(given([], { SHOUTY_PORT: "tcp://10.96.0.12:80" }), []);
});

Deno.test("Sizes are bytes, or have a unit", () => {
  const sizes = ["1", "4096", "64KiB", "1MiB", "3GiB", "off"].map((size) => `--max-connection-bytes=${size}`);
  const expected = [1, 4096, 65_536, 2 ** 20, 3 * 2 ** 30, Infinity];
  assertEquals(sizes.map((flag) => values(flag).maxConnectionBytes), expected);
});

Deno.test("The other timeouts follow the idle timeout until they are given", () => {
  const { firstLineTimeout, lineTimeout, writeTimeout } = values("--idle-timeout 3s --write-timeout 4s");
  assertEquals([firstLineTimeout, lineTimeout, writeTimeout], [3000, 3000, 4000]);
});

Deno.test("A variable stands for its flag, and the flag wins", () => {
  const env = { SHOUTY_PORT: "9000", SHOUTY_IDLE_TIMEOUT: "2s", SHOUTY_MAX_LINE_BYTES: "1KiB" };
  const { port, idleTimeout, lineTimeout, maxLineBytes } = values("--port 9001", env);
  assertEquals([port, idleTimeout, lineTimeout, maxLineBytes], [9001, 2000, 2000, 1024]);
  assertEquals(values("--port 9001", { SHOUTY_PORT: "nonsense" }).port, 9001);
});

Deno.test("A variable that Kubernetes sets to the address of a Service is ignored, with a line in the log", () => {
  const read = (env: Record<string, string>, ...args: string[]) => {
    const parsed = parse(SERVE, args, (name) => env[name]);
    assert(parsed.ask === undefined);
    return parsed;
  };
  const address = "tcp://10.96.0.12:8080";
  const { values, ignored } = read({ SHOUTY_PORT: address, SHOUTY_UNIX: "udp://[fd00::1]:53", SHOUTY_DRAIN: "finish" });
  assertEquals([values.port, values.unix, values.drain], [8080, null, "finish"]);
  const text = "ignored SHOUTY_PORT, SHOUTY_UNIX: Kubernetes sets them to the addresses of a Service";
  assertEquals(ignored, [{ variables: ["SHOUTY_PORT", "SHOUTY_UNIX"], text }]);
  assertEquals(read({ SHOUTY_PORT: address }, "--port", "9000").ignored, []);
  assertMatch(complaint(["--port", address]), /^cannot use --port "tcp:/);
  assertMatch(complaint([], { SHOUTY_PORT: "http://10.96.0.12:8080" }), /^cannot use SHOUTY_PORT "http:/);
});

Deno.test("Asking for help or the version wins over whatever else is there", () => {
  for (const args of ["--help", "-h", "--bogus --help", "--port --help", "stray -h", "--port 1 --port 2 --help"]) {
    assertEquals(parse(SERVE, args.split(" ")), { ask: "help" });
  }
  assertEquals(parse(SERVE, ["--version", "--port", "x"]), { ask: "version" });
  assertEquals(parse(CONNECT, ["--version"]), { ask: "version" });
});

Deno.test("The help is a table of all flags with their defaults and units, within 100 columns", () => {
  const help = answer("help", SERVE);
  const rows = help.split("\n").filter((line) => line.startsWith("--"));
  const headings = help.split("\n\n").slice(3, -1).map((group) => group.split("\n")[0]);
  assertEquals(headings, [...Object.values(SERVE.groups!), "Help"]);
  assertEquals(rows.length, Object.keys(SERVE.flags).length + 1);
  const cells = rows.map((row) => row.split(/ {2,}/));
  assertEquals(cells[0], ["--hostname HOST", "0.0.0.0", "address or name to listen on"]);
  const row = (flag: string) => cells.find(([name]) => name.startsWith(`${flag} `))?.slice(0, 2);
  assertEquals(row("--line-timeout"), ["--line-timeout TIME|off", "as --idle-timeout"]);
  assertEquals(row("--first-line-timeout"), ["--first-line-timeout TIME|off", "as --idle-timeout"]);
  assertEquals(row("--max-line-bytes"), ["--max-line-bytes SIZE", "65536"]);
  assertStringIncludes(help, "TIME is a time such as 500ms, 10s, 2m or 1h.");
  assertStringIncludes(help, "SHOUTY_HOSTNAME for --hostname");
  assertEquals(help.split("\n").filter((line) => line.length > 100), []);
  assertStringIncludes(answer("help", CONNECT), "Usage: shouty connect HOST:PORT|unix:PATH [FLAG...]");
});

Deno.test("The version is the package's", () => {
  assertEquals(answer("version", SERVE), `shouty ${manifest.version}`);
});

Deno.test("Values that only look like others are told from them", () => {
  assertEquals(values("--admin unix:/run/a:0").admin, { path: "/run/a:0" });
  assertEquals(values("--admin 127.0.0.1:0").admin, { hostname: "127.0.0.1", port: 0 });
  assertEquals<unknown>(values("--admin off --tls-cert off --workers off"), DEFAULTS);
  assertMatch(
    complaint(["--admin-host", "a.example,b c"]),
    /^cannot use --admin-host "a.example,b c": expected host names/,
  );
  assertMatch(complaint(["--tls-cert", ""]), /^cannot use --tls-cert without a value: expected a file's name, or off$/);
  assertMatch(complaint(["--workers", "100000"]), /^cannot use --workers "100000": expected a whole number from 1 to /);
  assertMatch(complaint(["--frst", "--scnd"]), /^unknown flag "--frst"/);
});
