/**
 * Places in which a test does what a user, or the workflow of a release, does.
 *
 * @module
 */

import { type Outcome, Subprocess } from "../command.ts";
import type { Registry } from "./registry.ts";

const ROOT = `${import.meta.dirname}/../../..`;

/** A folder of its own, with a registry in place of JSR. */
export interface Place extends AsyncDisposable {
  /** The folder, which is empty. */
  readonly dir: string;
  /** Starts a program there. */
  start(program: string, args: string[], env?: Record<string, string>): Subprocess;
  /** Runs Deno there, to its end. */
  deno(args: string[], env?: Record<string, string>): Promise<Outcome>;
}

/** Copies the project's files to a folder, without its history and generated folders. */
export async function copyProject(to: string): Promise<void> {
  await copy(ROOT, to);
}

async function copy(from: string, to: string): Promise<void> {
  for await (const { name, isDirectory } of Deno.readDir(from)) {
    if (/^(\.git|vendor|dist|node_modules)$/.test(name)) continue;
    if (!isDirectory) {
      await Deno.copyFile(`${from}/${name}`, `${to}/${name}`);
      continue;
    }
    await Deno.mkdir(`${to}/${name}`);
    await copy(`${from}/${name}`, `${to}/${name}`);
  }
}

/** An empty folder and an empty cache, for a user with this registry in place of JSR. */
export async function emptyPlace(registry: Registry): Promise<Place> {
  const dir = await Deno.makeTempDir({ prefix: "shouty_registry_" });
  const env = { JSR_URL: registry.url, NO_PROXY: "127.0.0.1", DENO_DIR: `${dir}/cache`, DENO_NO_UPDATE_CHECK: "1" };
  await Deno.mkdir(`${dir}/work`);
  return {
    dir: `${dir}/work`,
    start: (program, args, extra = {}) =>
      new Subprocess(program, args, { cwd: `${dir}/work`, env: { ...env, ...extra } }),
    async deno(args, extra = {}) {
      const options = { args, cwd: `${dir}/work`, env: { ...env, NO_COLOR: "1", ...extra } };
      const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), options).output();
      const decoder = new TextDecoder();
      return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
    },
    [Symbol.asyncDispose]: () => Deno.remove(dir, { recursive: true }),
  };
}
