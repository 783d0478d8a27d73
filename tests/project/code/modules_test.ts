import { assertEquals, assertGreater } from "@std/assert";
import * as shouty from "@x/shouty";
import * as ops from "@x/shouty/ops";
import * as testing from "@x/shouty/testing";
import manifest from "../../../deno.json" with { type: "json" };
import { test } from "../../kit/bounded.ts";
import { filesBelow, readCode } from "../../kit/project/files.ts";

const ROOT = new URL("../../../", import.meta.url);

/** The layers of the code, and what each may import; a layer is a file or a folder. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  internal: ["internal"],
  conn: ["internal"],
  server: ["conn", "internal"],
  client: ["server", "conn", "internal"],
  ops: ["ops", "server", "conn", "internal"],
  cli: ["cli", "ops", "client", "server", "conn", "internal", "deno.json"],
  mod: ["client", "server", "conn", "internal"],
  testing: ["testing", "internal"],
};

/**
 * What is imported only when it is used, by file. Where a layer could not import it otherwise: TLS of the core and of the
 * test kit loads `node:tls`, which most programs and nearly all tests need not.
 */
const MAY_LOAD: Readonly<Record<string, readonly string[]>> = {
  "client.ts": ["./ops/tls/client.ts"],
  "mod.ts": ["./cli/system/deno_version.ts", "./cli.ts"],
  "cli/serve/metrics.ts": ["../../ops/metrics/metrics.ts", "../../ops/metrics/telemetry.ts"],
  "cli/run/serving.ts": ["../serve/workers.ts"],
  "ops/workers/worker/in_worker.ts": ["node:worker_threads"],
  "ops/workers/supervision/supervisor.ts": ["node:worker_threads"],
  "ops/workers/workers.ts": ["node:v8"],
  "cli/serve/wrap.ts": ["../../ops/tls/tls.ts", "../../ops/tls/handle.ts"],
  // `node:http` and the page are for those alone who open an admin port.
  "ops/admin/http/bind.ts": ["node:dns/promises"],
  "ops/admin/http/carrier.ts": ["node:http"],
  "ops/admin/port.ts": ["./page.ts"],
  "cli/admin/client.ts": ["node:http"],
  "cli/admin/port.ts": ["../../ops/admin/admin.ts", "../../ops/admin/http/bind.ts"],
  "testing/test_client.ts": ["../ops/tls/client.ts"],
};

/** What is not ours, by layer; the core has one dependency. */
const MAY_DEPEND: Readonly<Record<string, RegExp>> = {
  cli: /^(@std\/(cli|log)\b|node:)/,
  ops: /^node:/,
  internal: /^(node:(timers|net)|@std\/streams\/text-line-stream)$/,
  testing: /^node:timers$/,
};

interface Source {
  path: string;
  layer: string;
  code: string;
}

test("imports run one way: cli, ops, server, conn, internal", async () => {
  let imports = 0;
  for (const { path, layer, code } of await readSources()) {
    for (const [, specifier] of code.matchAll(/(?:\bfrom|^import) "([^"]+)"/gm)) {
      imports++;
      if (!specifier.startsWith(".")) {
        assertEquals(MAY_DEPEND[layer]?.test(specifier) ?? false, true, `${path} depends on ${specifier}`);
        continue;
      }
      const target = new URL(specifier, new URL(path, ROOT)).href.slice(ROOT.href.length);
      assertEquals(MAY_IMPORT[layer].includes(layerOf(target)), true, `${path} imports ${target}`);
    }
  }
  assertGreater(imports, 100, "The imports are read wrongly");
});

test("only these files import something when it is used, and not before", async () => {
  const loaded: Record<string, string[]> = {};
  for (const { path, code } of await readSources()) {
    const specifiers = [...code.matchAll(/(?<!typeof )\bimport\("?([^")]+)"?\)/g)].map(([, text]) => text);
    if (specifiers.length > 0) loaded[path] = specifiers;
  }
  assertEquals(loaded, MAY_LOAD);
});

test("only the command touches arguments, signals, the environment, exit and the console", async () => {
  const reserved = /\bconsole\.|\bDeno\.(args|env|exit|exitCode|addSignalListener|stdin|stdout|stderr)\b/g;
  let byCommand = 0;
  for (const { path, layer, code } of await readSources()) {
    const uses = [...code.matchAll(reserved)].map(([text]) => text);
    if (layer === "cli") byCommand += uses.length;
    if (layer === "cli") continue;
    assertEquals(uses, path === "mod.ts" ? ["Deno.args"] : [], path);
  }
  assertGreater(byCommand, 10, "The sources are read wrongly");
});

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

/** The code that is published or imported by it, without its comments. */
async function readSources(): Promise<Source[]> {
  const paths: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(ROOT)) {
    if (layerOf(name) in MAY_IMPORT) paths.push(...isDirectory ? await filesBelow(name) : [name]);
  }
  const modules = paths.filter((path) => path.endsWith(".ts"));
  return await Promise.all(modules.map(async (path) => ({ path, layer: layerOf(path), code: await readCode(path) })));
}

function layerOf(path: string): string {
  return path.split("/")[0].replace(/\.ts$/, "");
}

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
