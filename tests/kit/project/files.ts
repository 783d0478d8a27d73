/**
 * The files of the project, for tests that read them.
 *
 * @module
 */

/** The project's folder. */
const ROOT = new URL("../../../", import.meta.url);

/**
 * Lists the files in a folder of the project and in all folders below it.
 *
 * @param folder The folder, from the project's root on: `ops`.
 * @returns The files' paths, from the project's root on: `ops/tls/tls.ts`.
 */
export async function filesBelow(folder: string): Promise<string[]> {
  const paths: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(new URL(folder, ROOT))) {
    if (isDirectory) paths.push(...await filesBelow(`${folder}/${name}`));
    else paths.push(`${folder}/${name}`);
  }
  return paths;
}

/** Reads a file of the project. */
export function readFile(path: string): Promise<string> {
  return Deno.readTextFile(new URL(path, ROOT));
}

/** Reads a module of the project, and leaves out its comments. */
export async function readCode(path: string): Promise<string> {
  return (await readFile(path)).replaceAll(/\/\*\*[^]*?\*\/|\/\/ .*/g, "");
}
