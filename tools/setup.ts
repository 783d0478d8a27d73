/**
 * Lets the project run where npm can be reached but JSR cannot: fills `vendor/`
 * with the modules of `jsr:@std/…`, taken from npm's `deno-std`, in the layout
 * that Deno itself uses there. If JSR answers, or the modules are in place, it
 * changes nothing.
 *
 * Deno downloads the modules, so its registry, proxy and certificate settings
 * apply. Remove `vendor/` to start over.
 *
 * @module
 */

import { requireDeno } from "../cli/system/deno_version.ts";

requireDeno();

const STD_VERSION = "1.4.0";
/** Kept in a variable, because Deno loads a module in advance if an import names it literally. */
const STD = `npm:deno-std@${STD_VERSION}`;
const IMPORT = /^(?:import|export|\}).* from "(\..+)";$/gm;

interface Package {
  version: string;
  /**
   * Modules by their names on JSR. A `.js` module comes from npm, and its types
   * from the `.d.ts` of the same path in `tools/std/`; a `.ts` module is there.
   */
  exports: Record<string, string>;
  /** Further modules in `tools/std/`, which those import. */
  imported?: string[];
}

const PACKAGES: Record<string, Package> = {
  assert: { version: STD_VERSION, exports: { ".": "./assert/mod.js" } },
  // The rest of `@std/cli` imports a file that `deno-std` lacks.
  cli: {
    version: STD_VERSION,
    exports: {
      ".": "./cli/parse_args.js",
      "./parse-args": "./cli/parse_args.js",
    },
  },
  streams: {
    version: STD_VERSION,
    exports: {
      ".": "./streams/mod.js",
      "./text-line-stream": "./streams/text_line_stream.js",
    },
  },
  log: {
    version: "0.224.0",
    exports: {
      ".": "./log/mod.ts",
      "./base-handler": "./log/base_handler.ts",
      "./console-handler": "./log/console_handler.ts",
      "./critical": "./log/default_logger.ts",
      "./debug": "./log/default_logger.ts",
      "./error": "./log/default_logger.ts",
      "./formatters": "./log/formatters.ts",
      "./get-logger": "./log/default_logger.ts",
      "./info": "./log/default_logger.ts",
      "./levels": "./log/levels.ts",
      "./logger": "./log/logger.ts",
      "./setup": "./log/default_logger.ts",
      "./warn": "./log/default_logger.ts",
    },
    imported: ["./log/log_record.ts"],
  },
};

const JSR = new URL(
  (Deno.env.get("JSR_URL") || "https://jsr.io").replace(/\/?$/, "/"),
);
const TOOLS = import.meta.dirname!;
const VENDOR = `${TOOLS}/../vendor`;
const JSR_TIMEOUT = 2_000;
const NPM_TIMEOUT = 60_000;

async function setup() {
  const mark = await fingerprint();
  const missing = await missingPackages(mark);
  if (missing.length === 0) return;
  if (await jsrAnswers()) return await removeOutdated(missing);

  await Deno.mkdir(VENDOR, { recursive: true });
  // Two runs at once are ordinary: `deno task start` beside `deno task test`.
  // The kernel frees the lock when its holder dies.
  using lock = await Deno.open(`${VENDOR}/.lock`, {
    create: true,
    write: true,
  });
  await lock.lock(true);
  const names = await missingPackages(mark);
  if (names.length === 0) return;
  await download();
  for (const name of names) await fill(name, mark);
  const held = names.map(describe).join(", ");
  console.error(`setup: ${JSR} does not answer, so vendor/ now holds ${held}`);
}

/**
 * A hash of this script and its files: a run replaces what an older version of
 * them has put into `vendor/`.
 */
async function fingerprint(): Promise<string> {
  const files = Object.keys(PACKAGES).flatMap(ownFiles);
  const texts = await Promise.all([
    Deno.readTextFile(`${TOOLS}/setup.ts`),
    ...files.map((path) => Deno.readTextFile(`${TOOLS}/std/${path}`)),
  ]);
  const bytes = new TextEncoder().encode(texts.join("\0"));
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

/** The files in `tools/std/` that a package needs. */
function ownFiles(name: string): string[] {
  const { exports, imported = [] } = PACKAGES[name];
  const modules = new Set([...Object.values(exports), ...imported]);
  return [...modules].map((path) => path.replace(/\.js$/, ".d.ts"));
}

/** The packages that neither Deno nor the present version of this script has put in place. */
async function missingPackages(mark: string): Promise<string[]> {
  const names = Object.keys(PACKAGES);
  const marks = await Promise.all(names.map(readMark));
  return names.filter((_, i) => marks[i] !== null && marks[i] !== mark);
}

/**
 * The mark that {@linkcode fill} has left; `null` if Deno itself has put the
 * package in place, `undefined` if it is missing.
 */
async function readMark(name: string): Promise<string | null | undefined> {
  try {
    const meta = await Deno.readTextFile(`${folder(name)}/meta.json`);
    return JSON.parse(meta).setup ?? null;
  } catch {
    return undefined; // There is no such file, or a crash has cut it short.
  }
}

/** The folder in which Deno looks for a package, named after JSR's address. */
function folder(name: string): string {
  const scheme = JSR.protocol === "http:" ? "http_" : "";
  const host = JSR.host.replace(":", "_");
  return `${VENDOR}/${scheme}${host}${JSR.pathname}@std/${name}`;
}

/** Whether JSR answers. Asks for a file that only JSR has, because a captive portal answers any request. */
async function jsrAnswers(): Promise<boolean> {
  try {
    const response = await fetch(new URL("@std/assert/meta.json", JSR), {
      signal: AbortSignal.timeout(JSR_TIMEOUT),
    });
    return "versions" in await response.json();
  } catch {
    return false;
  }
}

/**
 * Removes older packages of this script, so that Deno gets JSR's own. A package
 * without a mark stays: Deno may be downloading it.
 */
async function removeOutdated(names: string[]) {
  for (const name of names) {
    if (await readMark(name) === undefined) continue;
    await Deno.remove(folder(name), { recursive: true });
  }
}

/** Loads `deno-std` into Deno's cache, which a text import alone does not do. */
async function download() {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => late.reject(new Error(`No answer within ${NPM_TIMEOUT} ms`)),
    NPM_TIMEOUT,
  );
  try {
    await Promise.race([import(`${STD}/assert/mod.js`), late.promise]);
  } catch (error) {
    const [reason] = String(error).split("\n");
    throw new Error(`Neither ${JSR} nor npm answers: ${reason}`);
  } finally {
    clearTimeout(timer);
  }
}

/** Puts a package in place, either complete or not at all. */
async function fill(name: string, mark: string) {
  const { version, exports } = PACKAGES[name];
  const modules = new Map<string, string>();
  for (const path of ownFiles(name)) {
    modules.set(path, await Deno.readTextFile(`${TOOLS}/std/${path}`));
  }
  for (const path of Object.values(exports)) {
    if (path.endsWith(".js")) await addFromNpm(path, modules);
  }
  for (const [path, text] of modules) {
    await write(`${folder(name)}/${version}/${path}`, text);
  }
  await write(
    `${folder(name)}/${version}_meta.json`,
    JSON.stringify({ exports, manifest: {} }),
  );
  // Comes last: without it, the package counts as missing, here and for Deno.
  await write(
    `${folder(name)}/meta.json`,
    JSON.stringify({ versions: { [version]: {} }, setup: mark }),
  );
}

/** Adds a module of `deno-std` and the modules that it imports; its types, if there are any. */
async function addFromNpm(path: string, modules: Map<string, string>) {
  if (modules.has(shorten(path))) return;
  const { default: source } = await import(`${STD}${path.slice(1)}`, {
    with: { type: "text" },
  });
  const types = path.replace(/\.js$/, ".d.ts");
  const typed = modules.has(types) ? `/* @ts-self-types="./${types.split("/").at(-1)}" */\n` : "";
  modules.set(shorten(path), typed + shorten(source));
  for (const [, specifier] of source.matchAll(IMPORT)) {
    const { pathname } = new URL(specifier, `file:///${path}`);
    await addFromNpm(`.${pathname}`, modules);
  }
}

/** Shortens file names to 30 characters: Deno replaces longer ones by a hash. */
function shorten(text: string): string {
  return text.replace(/\w+(?=\w{27}\.js\b)/g, "");
}

async function write(path: string, text: string) {
  await Deno.mkdir(path.replace(/\/[^/]*$/, ""), { recursive: true });
  await Deno.writeTextFile(path, text);
}

function describe(name: string): string {
  const isFromNpm = PACKAGES[name].exports["."].endsWith(".js");
  return isFromNpm ? `@std/${name} from npm` : `a small stand-in for @std/${name}`;
}

try {
  await setup();
} catch (error) {
  console.error(`setup: ${error instanceof Error ? error.message : error}`);
  Deno.exit(1);
}
