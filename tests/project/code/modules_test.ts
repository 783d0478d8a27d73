import { assertEquals, assertGreater } from "@std/assert";
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
