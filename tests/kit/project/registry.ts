/**
 * A registry on loopback. It speaks the part of JSR's protocol that Deno uses, takes what `deno publish` uploads, and
 * serves exactly that, together with the standard library.
 *
 * @module
 */

import { untar } from "./untar.ts";

const ROOT = `${import.meta.dirname}/../../..`;
const UPSTREAM = (Deno.env.get("JSR_URL") || "https://jsr.io").replace(/\/$/, "");

/** One version of a package: what an upload carries, and what Deno asks for. */
export interface Package {
  version: string;
  /** Modules by entry point. */
  exports: Record<string, string>;
  /** Contents by path, which begins with a slash. */
  files: Map<string, Uint8Array<ArrayBuffer>>;
}

/** The packages that a registry has, and those that it lacks. */
export interface RegistryOptions {
  /** Packages by name, one version of each. */
  packages?: Iterable<[string, Package]>;
  /** Names that it does not know. */
  unknown?: string[];
}

/** A running registry. */
export class Registry implements AsyncDisposable {
  /** Packages by name: given, uploaded, or from `vendor/`. */
  readonly packages: Map<string, Package>;
  /** The token that Deno must send with an upload. */
  readonly token: string = crypto.randomUUID();
  readonly #unknown: string[];
  readonly #server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    (request) => this.#answer(request).catch((error) => new Response(String(error), { status: 500 })),
  );

  constructor({ packages = [], unknown = [] }: RegistryOptions = {}) {
    this.packages = new Map(packages);
    this.#unknown = unknown;
  }

  /** Its address, for `JSR_URL`. */
  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    const [, scope, name, version] =
      /^\/api\/scopes\/([\w-]+)\/packages\/([\w-]+)(?:\/versions\/([\w.+-]+))?$/.exec(pathname) ?? [];
    if (scope === undefined) return await this.#serve(pathname);
    if (version === undefined) return Response.json({ scope, name });
    if (request.method === "POST") return await this.#publish(request, `@${scope}/${name}`, version);
    return this.packages.get(`@${scope}/${name}`)?.version === version
      ? Response.json({ scope, package: name, version })
      : notFound();
  }

  async #publish(request: Request, name: string, version: string): Promise<Response> {
    if (request.headers.get("authorization") !== `Bearer ${this.token}`) {
      return Response.json({ code: "unauthorized", message: "Wrong token." }, { status: 401 });
    }
    const files = await untar(request.body!.pipeThrough(new DecompressionStream("gzip")));
    const path = new URL(request.url).searchParams.get("config")!;
    const config = JSON.parse(new TextDecoder().decode(files.get(path)));
    const exports = typeof config.exports === "string" ? { ".": config.exports } : config.exports;
    this.packages.set(name, { version, exports, files });
    return Response.json({ id: crypto.randomUUID(), status: "success", error: null });
  }

  async #serve(pathname: string): Promise<Response> {
    const [, name, path] = /^\/(@[\w-]+\/[\w-]+)(\/.+)$/.exec(pathname) ?? [];
    if (name === undefined || this.#unknown.includes(name)) return notFound();
    const found = this.packages.get(name) ?? await fromVendor(name);
    if (found === undefined) return await fromUpstream(pathname);
    this.packages.set(name, found);
    const { version, exports, files } = found;
    // Without dates: Deno refuses a version that it knows to be younger than a day.
    if (path === "/meta.json") return Response.json({ latest: version, versions: { [version]: {} } });
    // Without the module graph, which is optional: without it, Deno looks for the imports itself.
    if (path === `/${version}_meta.json`) return Response.json({ exports, manifest: await manifestOf(files) });
    const bytes = path.startsWith(`/${version}/`) ? files.get(path.slice(version.length + 1)) : undefined;
    return bytes === undefined ? notFound() : new Response(bytes);
  }
}

function notFound(): Response {
  return Response.json({ code: "notFound", message: "Nothing there." }, { status: 404 });
}

/** The checksum with which Deno compares each file. */
async function manifestOf(files: Package["files"]): Promise<Record<string, { size: number; checksum: string }>> {
  const entries = Array.from(files, async ([path, bytes]) => {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    return [path, { size: bytes.length, checksum: `sha256-${digest.toHex()}` }] as const;
  });
  return Object.fromEntries(await Promise.all(entries));
}

/** Asks the upstream registry. */
async function fromUpstream(pathname: string): Promise<Response> {
  const response = await fetch(UPSTREAM + pathname);
  return new Response(await response.bytes(), { status: response.status });
}

/** A package that `tools/setup.ts` wrote because JSR did not answer. What Deno itself keeps there may be incomplete. */
async function fromVendor(name: string): Promise<Package | undefined> {
  for await (const host of Deno.readDir(`${ROOT}/vendor`)) {
    const folder = `${ROOT}/vendor/${host.name}/${name}`;
    const { versions = {}, setup } = await readJson(`${folder}/meta.json`);
    if (setup === undefined) continue;
    const [version] = Object.keys(versions);
    const { exports } = await readJson(`${folder}/${version}_meta.json`);
    return { version, exports, files: new Map(await Array.fromAsync(walk(`${folder}/${version}`))) };
  }
}

// deno-lint-ignore no-explicit-any
async function readJson(path: string): Promise<any> {
  try {
    return JSON.parse(await Deno.readTextFile(path));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return {};
    throw error;
  }
}

async function* walk(dir: string, prefix = "/"): AsyncGenerator<[string, Uint8Array<ArrayBuffer>]> {
  for await (const { name, isDirectory } of Deno.readDir(dir)) {
    if (isDirectory) yield* walk(`${dir}/${name}`, `${prefix}${name}/`);
    else yield [prefix + name, await Deno.readFile(`${dir}/${name}`)];
  }
}
