/** The folders of the code: how many files each has, which way its imports run, and what the maps say of it. */
import { assertEquals, assertGreater } from "@std/assert";
import { test } from "../../kit/bounded.ts";
import { filesBelow, readCode, readFile } from "../../kit/project/files.ts";

/** The folders of `internal/`, `ops/` and `cli/`, and what each may import of the same layer besides itself. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  "internal/api": [],
  "internal/memory": [],
  "internal/time": ["api"],
  "internal/lines": ["api", "memory"],
  "internal/io": ["api", "memory", "time", "lines"],
  "internal/reads": ["api", "memory", "time", "lines", "io"],
  "internal/conn": ["api", "memory", "time", "lines", "io", "reads"],
  "internal/client": ["api", "time", "server"],
  "internal/admission": ["api", "memory", "time", "lines", "io"],
  "internal/server": ["api", "time"],
  "ops/sockets": [],
  "ops/wrappers": ["sockets"],
  "ops/epoll": ["sockets"],
  "ops/fd": ["sockets", "epoll"],
  "ops/proxy": ["wrappers"],
  "ops/tls/certificates": [],
  "ops/tls/peer": ["tls/certificates"],
  "ops/tls/engine": ["wrappers", "tls/certificates", "tls/peer"],
  "ops/tls/streams": ["wrappers", "tls/peer", "tls/engine"],
  "ops/tls": ["wrappers", "tls/certificates", "tls/peer", "tls/engine", "tls/streams"],
  "ops/metrics": ["tls"],
  "ops/workers/shared": ["epoll"],
  "ops/workers/worker": ["wrappers", "epoll", "workers/shared"],
  "ops/workers/supervision": ["workers/shared"],
  "ops/workers": ["workers/shared", "workers/supervision"],
  "ops/admin/http": ["sockets"],
  "ops/admin": ["metrics", "workers", "admin/http"],
  "cli/flags": [],
  "cli/system": ["flags"],
  "cli/line": ["flags", "system"],
  "cli/help": ["flags", "system"],
  "cli/log": ["system"],
  "cli/connect": ["flags", "system", "line"],
  "cli/serve": ["flags", "system", "line", "log"],
  "cli/process": ["flags", "system", "line", "log", "serve"],
  "cli/admin": ["flags", "system", "line", "help", "log"],
  "cli/run": ["flags", "system", "line", "log", "serve", "process", "admin"],
};

/** The layers that have such folders; beside the folders lies nothing but an entry point. */
const LAYERS = ["internal", "ops", "cli"];

/** The folders of all code. */
const CODE = [...LAYERS, "testing", "create", "tools", "bench"];

/** Folders with the same files as what they stand in for. */
const STAND_IN = /^tools\/std\b/;

/** The folders of all code, each with the folders that its modules import from. */
async function readFolders(): Promise<Map<string, Set<string>>> {
  const folders = new Map<string, Set<string>>();
  for (const path of (await Promise.all(CODE.map(filesBelow))).flat().filter((path) => path.endsWith(".ts"))) {
    const folder = folderOf(path);
    if (!folders.has(folder)) folders.set(folder, new Set());
    for (const [, specifier] of (await readCode(path)).matchAll(/(?:\bfrom |^import |\bimport\()"(\.[^"]+)"/gm)) {
      const target = folderOf(new URL(specifier, `file:///${path}`).pathname.slice(1));
      if (target !== folder) folders.get(folder)!.add(target);
    }
  }
  assertGreater([...folders.values()].reduce((sum, { size }) => sum + size, 0), 150, "The imports are read wrongly");
  return folders;
}

test("imports run one way between the folders of internal/, ops/ and cli/", async () => {
  const folders = new Map([...await readFolders()].filter(([folder]) => LAYERS.includes(layerOf(folder))));
  // Only the entry point lies beside the folders, and imports from all of them.
  folders.delete("ops");
  assertEquals([...folders.keys()].toSorted(), Object.keys(MAY_IMPORT).toSorted());
  for (const [folder, targets] of folders) {
    const layer = layerOf(folder);
    const within = [...targets].filter((target) => layerOf(target) === layer);
    const allowed = MAY_IMPORT[folder].map((name) => `${layer}/${name}`);
    assertEquals(within.filter((target) => !allowed.includes(target)), [], `${folder} imports`);
  }
});

test("no folder's imports lead back to it", async () => {
  assertEquals(circlesIn(await readFolders()), []);
});

test("no module's imports lead back to it, but for types", async () => {
  const modules = new Map<string, Set<string>>();
  for (const path of (await Promise.all(CODE.map(filesBelow))).flat().filter((path) => path.endsWith(".ts"))) {
    const imports = (await readCode(path)).matchAll(/^(?:import|export) (?!type )([^"]*?) from "(\.[^"]+)"/gm);
    const values = [...imports].filter(([, names]) => !/^\{(\s*type [^,}]+,?)+\s*\}$/.test(names));
    modules.set(path, new Set(values.map(([, , from]) => new URL(from, `file:///${path}`).pathname.slice(1))));
  }
  assertGreater([...modules.values()].reduce((sum, { size }) => sum + size, 0), 500, "The imports are read wrongly");
  assertEquals(circlesIn(modules), []);
});

/** Returns the circles of what imports what, and what leads to them. */
function circlesIn(imports: Map<string, Set<string>>): [string, Set<string>][] {
  // Removes what imports nothing that remains, again and again; a circle remains.
  for (let before = Infinity; imports.size < before;) {
    before = imports.size;
    for (const [from, targets] of imports) {
      if (![...targets].some((target) => imports.has(target))) imports.delete(from);
    }
  }
  return [...imports];
}

test("each folder of the code has three to nine files, or its entry point alone", async () => {
  const files: Record<string, string[]> = {};
  for (const path of (await Promise.all(CODE.map(filesBelow))).flat()) (files[folderOf(path)] ??= []).push(path);
  assertGreater(Object.keys(files).length, 50, "The files are read wrongly");
  const wrong = Object.entries(files).filter(([folder, paths]) => {
    if (STAND_IN.test(folder) || paths.length === 1 && paths[0].endsWith("/mod.ts")) return false;
    return paths.length < 3 || paths.length > 9;
  });
  assertEquals(wrong, []);
});

test("the maps in the README, docs/code_tour.md and CONTRIBUTING.md have each folder, and say the same of it", async () => {
  const [readme, tour, contributing] = await Promise.all(
    ["README.md", "docs/code_tour.md", "CONTRIBUTING.md"].map(readFile),
  );
  const rowsOf = (text: string) => {
    const [, table] = /^\| file or folder .*\n.*\n((?:\|.*\n)+)/m.exec(text)!;
    // The tour says more of `ops/`.
    return table.replace(/^\| `ops\/`.*\n/m, "").trimEnd().split("\n").map((row) => row.replaceAll(/ +\|/g, " |"));
  };
  assertEquals(rowsOf(readme), rowsOf(tour));
  const named = rowsOf(tour).flatMap((row) => [...row.matchAll(/`(internal\/\w+)\/`/g)].map(([, folder]) => folder));
  const internal = Object.keys(MAY_IMPORT).filter((folder) => layerOf(folder) === "internal");
  assertEquals([...new Set(named)].toSorted(), internal.toSorted());
  const rows = contributing.matchAll(/^\| `((?:internal|ops|cli)\/[\w/]+)\/` .*\| +([^|]+?) +\|$/gm);
  const mayImport = [...rows].map((
    [, folder, from],
  ) => [folder, [...from.matchAll(/`([\w/]+)`/g)].map(([, name]) => name)]);
  assertEquals(Object.fromEntries(mayImport), MAY_IMPORT);
});

function folderOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/"));
}

function layerOf(path: string): string {
  return path.split("/")[0];
}
