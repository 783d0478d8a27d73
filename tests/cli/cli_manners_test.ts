import { assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { closest } from "../../cli/line/closest.ts";
import { CommandError } from "../../cli/system/errors.ts";
import { SERVE } from "../../cli/flags/flags.ts";
import { parse } from "../../cli/line/parse.ts";
import { checkTogether } from "../../cli/line/together.ts";
import { HAS_SCRIPT, runCommand, startInTerminal, startServer } from "../kit/command.ts";

const NO_TERMINAL = HAS_SCRIPT ? "" : " (skipped: util-linux's script is missing)";
// deno-lint-ignore no-control-regex
const ANSI = /\x1b\[\d+m/;

Deno.test("A misspelt name is close to one with few letters added, left out, replaced or exchanged", () => {
  const names = ["port", "idle-timeout", "tls-cert", "tls-key"];
  const found = ["port", "prt", "prot", "poort", "pork", "idel-timout", "idleTimeout", "TLS_CERT", "tls-certificate"]
    .map((word) => closest(word, names));
  const [port, idle, cert] = names;
  assertEquals(found, [...Array(5).fill(port), idle, idle, cert, cert]);
  for (const word of ["", "p", "unix", "p-o-x-y", "certificate"]) assertEquals(closest(word, names), undefined, word);
  assertEquals(closest("tls-kex", names), "tls-key");
  assertEquals(closest("idl", names), "idle-timeout");
});

Deno.test("A misspelt subcommand is told with the one that it may have been", async () => {
  const { code, stderr } = await runCommand(["conect", "localhost:1"]);
  assertEquals([code, stderr], [2, 'shouty: cannot use argument "conect": did you mean shouty connect?\n']);
});

/** Flags and variables that cancel each other, and what the command says. */
const CANCELLED: [args: string, says: string | undefined, env?: Record<string, string>][] = [
  ["--hostname 127.0.0.1 --unix /run/s", "cannot use --hostname with --unix alone: expected --port, too"],
  ["--keep-alive-ms 5s --unix /run/s", "cannot use --keep-alive-ms with --unix alone: expected --port, too"],
  ["--hostname 127.0.0.1 --unix /run/s --port 1", undefined],
  ["--hostname 127.0.0.1 --unix /run/s", undefined, { SHOUTY_PORT: "1" }],
  ["--unix /run/s", undefined, { SHOUTY_HOSTNAME: "127.0.0.1" }],
  ["--port 1 --unix /run/s", undefined],
  ["--unix-mode 600", "cannot use --unix-mode without --unix: expected both"],
  ["--admin-host a.example", "cannot use --admin-host without --admin: expected both"],
  ["--tls-handshake-timeout 1s", "cannot use --tls-handshake-timeout without --tls-cert: expected both"],
  ["--tls-handshake-timeout 1s --tls-cert f", undefined],
  ["", undefined, {
    SHOUTY_TLS_HANDSHAKE_TIMEOUT: "1s",
    SHOUTY_PROXY_HEADER_TIMEOUT: "1s",
    SHOUTY_AT_CAPACITY: "wait",
    SHOUTY_UNIX_MODE: "600",
    SHOUTY_ADMIN_HOST: "a.example",
    SHOUTY_ADMIN_TOKEN_FILE: "f",
  }],
  ["--max-connections off", undefined, { SHOUTY_AT_CAPACITY: "wait" }],
  ["--proxy-header-timeout 1s", "cannot use --proxy-header-timeout without --proxy-protocol: expected both"],
  [
    "--at-capacity wait --max-connections off",
    "cannot use --at-capacity with --max-connections off: expected a number of connections",
  ],
  [
    "--drain-spread 20s",
    "cannot use --drain-spread 20000ms with --drain-timeout 8000ms: expected a spread of at most the timeout",
  ],
  ["--drain-spread 8s", undefined],
  ["--tls-client-ca f", "cannot use --tls-client-ca without --tls-cert: expected both"],
  ["--tls-port 1", "cannot use --tls-port without --tls-cert: expected both"],
  ["--port 7 --tls-port 7 --tls-cert f", "cannot use --port 7 with --tls-port 7: expected two ports"],
  ["--port 0 --tls-port 0 --tls-cert f", undefined],
  ["--proxy-protocol unix", "cannot use --proxy-protocol unix without --unix: expected both"],
  ["--proxy-protocol ::1 --unix s", "cannot use --proxy-protocol ::1 with --unix: expected unix in the list"],
  ["--proxy-protocol ::1,unix --unix s", undefined],
  ["--workers 2 --unix s", "cannot use --workers with --unix: expected one of them"],
  ["--workers 2 --listen-fd 3", "cannot use --workers with --listen-fd: expected one of them"],
  ["--workers 2 --upgrade --engine epoll", "cannot use --workers with --upgrade: expected one of them"],
  ["--upgrade", "cannot use --upgrade without --engine epoll or --listen-fd: expected one of them"],
  ["--upgrade --listen-fd 3", undefined],
  ["--upgrade --engine epoll", undefined],
  ["--listen-fd 3 --tls-port 1 --tls-cert f", "cannot use --listen-fd with --tls-port: expected one of them"],
  // A new process gets the flags of the old one, too.
  ["--port 1 --listen-fd 3 --upgrade=child", undefined],
  ["--trace --log-level error", "cannot use --trace with --log-level error: expected debug or info"],
  ["--trace --log-level debug", undefined],
  // What a variable has set is named by it: the user looks for it there.
  ["--unix s", "cannot use SHOUTY_ENGINE epoll with --unix: expected one of them", { SHOUTY_ENGINE: "epoll" }],
  ["", "cannot use SHOUTY_TLS_KEY without --tls-cert: expected both", { SHOUTY_TLS_KEY: "k" }],
  ["--workers 2", "cannot use --workers with SHOUTY_TRACE: expected one of them", { SHOUTY_TRACE: "on" }],
  [
    "",
    "cannot use SHOUTY_DRAIN_SPREAD 9000ms with --drain-timeout 8000ms: expected a spread of at most the timeout",
    { SHOUTY_DRAIN_SPREAD: "9s" },
  ],
  ["--trace", "cannot use --trace with SHOUTY_LOG_LEVEL error: expected debug or info", { SHOUTY_LOG_LEVEL: "error" }],
  ["--trace --log-level debug", undefined, { SHOUTY_LOG_LEVEL: "error" }],
  ["", 'cannot use SHOUTY_UPGRADE "child": expected on or off', { SHOUTY_UPGRADE: "child" }],
];

for (const [args, says, env = {}] of CANCELLED) {
  const variables = Object.entries(env).map(([name, value]) => `${name}=${value} `).join("");
  Deno.test(`${variables}shouty ${args} ${says === undefined ? "holds together" : "ends with 2"}`, () => {
    const parsed = parse(SERVE, args.split(" ").filter(Boolean), (name) => env[name]);
    const check = () => parsed.ask ?? checkTogether(parsed.values, parsed);
    if (says === undefined) check();
    else assertEquals(assertThrows(check, CommandError).message, says);
  });
}

Deno.test("Flags that cancel each other end the command with 2 and one line, before it opens anything", async () => {
  const { code, stdout, stderr } = await runCommand(["--trace", "--log-level", "warn"]);
  assertEquals([code, stdout], [2, ""]);
  assertEquals(stderr, "shouty: cannot use --trace with --log-level warn: expected debug or info\n");
});

Deno.test("Variables that no flag has are warnings, and those of Kubernetes are one line, where they can be listed", async () => {
  const env = {
    ...{ SHOUTY_PROT: "secret", SHOUTY_WHATEVER: "secret", SHOUTY_DRAIN: "finish", OTHER_PORT: "x" },
    ...{ SHOUTY_SERVICE_HOST: "10.96.0.12", SHOUTY_SERVICE_PORT: "80", SHOUTY_SERVICE_PORT_WEB: "80" },
    ...{
      SHOUTY_PORT_80_TCP: "tcp://10.96.0.12:80",
      SHOUTY_PORT_80_TCP_ADDR: "10.96.0.12",
      SHOUTY_MAX_AGE: "tcp://10:80",
    },
    ...{ SHOUTY_WEB_PORT: "tcp://10.96.0.12:80", SHOUTY_WEB_SERVICE_HOST: "10.96.0.12" },
  };
  await using server = await startServer([], { env, permissions: ["--allow-net", "--allow-env"] });
  const said = server.stderr.split("\n").filter((line) => line.includes("ignored")).map((line) => line.slice(25));
  assertEquals(said, [
    "warn ignored SHOUTY_MAX_AGE, SHOUTY_PORT_80_TCP, SHOUTY_PORT_80_TCP_ADDR and 5 more: Kubernetes sets them to the addresses of a Service",
    "warn ignored SHOUTY_PROT: no flag has this variable; did you mean SHOUTY_PORT?",
    "warn ignored SHOUTY_WHATEVER: no flag has this variable",
  ]);
  await using other = await startServer([], { env, permissions: ["--allow-net", "--allow-env=SHOUTY_*"] });
  assertMatch(other.stderr, /^\S+ warn ignored SHOUTY_MAX_AGE: Kubernetes .*\n\S+ info listening/);
});

Deno.test("A variable that the command reads without a flag is none that sets nothing", () => {
  const command = { ...SERVE, otherVariables: ["SHOUTY_TOKEN"] };
  const parsed = parse(command, [], () => undefined, ["SHOUTY_TOKEN", "SHOUTY_TOKENS"]);
  const ignored = parsed.ask === undefined ? parsed.ignored : [];
  const text = "ignored SHOUTY_TOKENS: no flag has this variable; did you mean SHOUTY_TOKEN?";
  assertEquals(ignored, [{ variables: ["SHOUTY_TOKENS"], text }]);
});

Deno.test("The help is plain in a pipe", async () => {
  for (const args of [["--help"], ["connect", "--help"], ["completions", "--help"], ["man", "-h"]]) {
    const { code, stdout } = await runCommand(args, { env: { NO_COLOR: "" } });
    assertEquals([code, ANSI.test(stdout)], [0, false]);
    assertStringIncludes(stdout, `Usage: shouty ${args[0].replace("--help", "")}`.trimEnd());
  }
});

Deno.test({
  name: `The help has colours on a terminal, and none with NO_COLOR${NO_TERMINAL}`,
  ignore: !HAS_SCRIPT,
  async fn() {
    const texts = await Promise.all(["", "1"].map(async (value) => {
      await using command = startInTerminal(["run", "--no-check", "mod.ts", "--help"], { NO_COLOR: value });
      const { code, stdout } = await command.outcome();
      assertEquals(code, 0);
      return stdout;
    }));
    assertStringIncludes(texts[0], "\x1b[1mWhere to listen\x1b[22m\r\n\x1b[36m--hostname\x1b[39m HOST ");
    assertEquals(texts[0].replaceAll(new RegExp(ANSI, "g"), ""), texts[1]);
    assertEquals(ANSI.test(texts[1]), false);
  },
});
