import { assertEquals } from "@std/assert";
import * as shouty from "@x/shouty";
import * as ops from "@x/shouty/ops";
import * as testing from "@x/shouty/testing";
import manifest from "../../../deno.json" with { type: "json" };
import { test } from "../../kit/bounded.ts";

const ROOT = new URL("../../../", import.meta.url);

test("importing the package evaluates no part of the command", async () => {
  const names = await evaluated("mod.ts");
  assertEquals(names.filter((name) => /@std\/(cli|log)|^\.\/(cli\.ts|cli\/|ops\/)/.test(name)), []);
  assertEquals(names.includes("./internal/lines/limiter.ts"), true, "The graph is read wrongly");
});

test("importing ops evaluates neither node:http nor the page of the admin port", async () => {
  const names = await evaluated("ops/mod.ts");
  assertEquals(names.filter((name) => /^node:http|^npm:|page/.test(name)), []);
  assertEquals(names.includes("./ops/admin/http/carrier.ts"), true, "The graph is read wrongly");
});

/** The modules that are evaluated when one is imported. */
async function evaluated(entry: string): Promise<string[]> {
  const { modules, redirects } = JSON.parse(await deno("info", "--json", entry));
  const dependencies = new Map<string, { code?: { specifier: string }; isDynamic?: boolean }[]>(
    modules.map((module: { specifier: string; dependencies?: [] }) => [module.specifier, module.dependencies ?? []]),
  );
  const reached = new Set([new URL(entry, ROOT).href]);
  for (const specifier of reached) {
    for (const { code, isDynamic } of dependencies.get(specifier) ?? []) {
      if (code !== undefined && !isDynamic) reached.add(redirects[code.specifier] ?? code.specifier);
    }
  }
  return [...reached].map((name) => name.replace(ROOT.href, "./"));
}

test("importing the package starts nothing, needs no permission, and prints nothing", async () => {
  const script = `import ${JSON.stringify(new URL("mod.ts", ROOT).href)};`;
  const { code, stdout, stderr } = await run(["run", "--no-prompt", "-"], script);
  assertEquals([code, stdout, stderr], [0, "", ""]);
});

test("the types pass stricter checks than Deno's default", () => {
  // `deno check` takes these from here; without them, an error of ours would show in the users' code alone.
  assertEquals(manifest.compilerOptions, { exactOptionalPropertyTypes: true, isolatedDeclarations: true });
});

test("the entry points export these values and no others", () => {
  assertEquals(Object.keys(shouty).toSorted(), [
    "AcceptRejection",
    "ByteLimitStream",
    "ConnectionClosedError",
    "LimitError",
    "connect",
    "connectPool",
    "formatAddr",
    "lineStream",
    "serve",
    "serveConnections",
    "shout",
  ]);
  assertEquals(Object.keys(ops).toSorted(), [
    "ProxyHeaderError",
    "ServerMetrics",
    "TlsCredentialsError",
    "exportTelemetry",
    "formatTrace",
    "listenEpoll",
    "listenFd",
    "listenTls",
    "listenUnix",
    "prometheus",
    "proxyProtocol",
    "serveAdmin",
    "serveInWorker",
    "serveWorkers",
    "tlsCredentials",
    "withTelnet",
    "withTrace",
  ]);
  assertEquals(Object.keys(testing).toSorted(), ["FakeClock", "MemoryListener", "MemoryTls", "TestClient"]);
});

test("mod.ts exports these types and no others", async () => {
  const { nodes } = JSON.parse(await deno("doc", "--json", "mod.ts"));
  const { symbols } = (nodes[new URL("mod.ts", ROOT).href] ?? Object.values(nodes)[0]) as {
    symbols: { name: string; declarations: { kind: string }[] }[];
  };
  const types = symbols.filter(({ declarations }) => /interface|typeAlias/.test(declarations[0].kind));
  assertEquals(types.map(({ name }) => name).toSorted(), TYPES);
});

const TYPES = [
  "AcceptErrorEvent",
  "AcceptedEvent",
  "AdmissionRejectReason",
  "AdmitInfo",
  "AdmitResult",
  "Breach",
  "ByteLimitStreamOptions",
  "Clock",
  "CloseOptions",
  "CloseReason",
  "ClosedEvent",
  "Conn",
  "ConnHandler",
  "ConnInfo",
  "ConnOptions",
  "ConnPhase",
  "ConnPool",
  "ConnStats",
  "ConnectErrorEvent",
  "ConnectOptions",
  "ConnectTlsOptions",
  "Delimiter",
  "DialOptions",
  "DrainMode",
  "DrainingEvent",
  "Framing",
  "GoneEvent",
  "HandlerErrorEvent",
  "LameDuckEvent",
  "LimitsChangedEvent",
  "LineEnd",
  "LineHandler",
  "LineStreamOptions",
  "Listener",
  "ListenerRejectReason",
  "ListeningEvent",
  "PausedEvent",
  "PeerCertificate",
  "PoolEvent",
  "PoolOptions",
  "PoolStats",
  "ProxyInfo",
  "ReadBytesOptions",
  "ReadLineOptions",
  "ReadOptions",
  "ReadUntilOptions",
  "RejectReason",
  "RejectedEvent",
  "Reply",
  "ResumedEvent",
  "ServeOptions",
  "Server",
  "ServerEvent",
  "ServerLimits",
  "ServerState",
  "ServerStats",
  "ShutdownOptions",
  "ShutdownReport",
  "SizeBreach",
  "StoppedEvent",
  "TlsCredentialsHandle",
  "TlsInfo",
  "Traffic",
  "Transport",
  "WaitingEvent",
  "WaitsFor",
];

async function deno(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(args);
  assertEquals(code, 0, stderr);
  return stdout;
}

async function run(args: string[], stdin = "") {
  const options = {
    args,
    cwd: ROOT,
    env: { NO_COLOR: "1" },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  } as const;
  const child = new Deno.Command(Deno.execPath(), options).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(stdin));
  await writer.close();
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}
