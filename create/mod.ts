/**
 * Makes a new project with a server, its tests and a Dockerfile:
 *
 * ```sh
 * deno create jsr:@x/shouty -- my-server
 * ```
 *
 * It writes into the folder that its argument names, `shouty-server` by default, and never over a file that is there.
 *
 * @module
 */

import config from "../deno.json" with { type: "json" };
import dockerfile from "./template/Dockerfile" with { type: "text" };
import main from "./template/main.ts.txt" with { type: "text" };
import test from "./template/main_test.ts.txt" with { type: "text" };
import readme from "./template/README.md" with { type: "text" };

// The programs are text here: in a file with the name of a program, `deno publish` would write other imports.

const { name, version, imports } = config;

/** The files of a new project, by name. */
const FILES: Readonly<Record<string, string>> = {
  "main.ts": main,
  "main_test.ts": test,
  "Dockerfile": dockerfile,
  "README.md": readme,
  "deno.json": `${JSON.stringify(projectConfig(), null, 2)}\n`,
};

function projectConfig(): unknown {
  const start = "deno run --allow-net --allow-env=PORT main.ts";
  return {
    tasks: { start, dev: start.replace("run", "run --watch"), test: "deno test" },
    imports: { [name]: `jsr:${name}@^${version}`, "@std/assert": imports["@std/assert"] },
  };
}

/**
 * Writes the files of a new project. It needs the permission to read and write the folder.
 *
 * @param folder The folder, which is made if it does not exist.
 * @throws {Error} (As a rejection.) If the name is empty, or one of the files exists; nothing is written then.
 */
export async function create(folder: string): Promise<void> {
  // With permissions for everything, Deno makes it, and the files would be those of the root folder.
  if (folder === "") throw new TypeError('Cannot make a project in "": expected the name of a folder');
  await Deno.mkdir(folder, { recursive: true });
  const taken = Object.keys(FILES).filter((file) => exists(`${folder}/${file}`));
  if (taken.length > 0) throw new Error(`${folder} has a ${taken.join(", a ")} already: expected a new folder`);
  for (const [file, text] of Object.entries(FILES)) {
    await Deno.writeTextFile(`${folder}/${file}`, text, { createNew: true });
  }
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

if (import.meta.main) {
  const [folder = "shouty-server", ...more] = Deno.args;
  try {
    if (more.length > 0 || folder.startsWith("-")) {
      throw new Error(`cannot use arguments "${Deno.args.join(" ")}": expected the name of a folder`);
    }
    await create(folder);
    console.log(`Made ${folder}. Next:\n\n  cd ${folder}\n  deno task test\n  deno task start`);
  } catch (error) {
    console.error(`create: ${error instanceof Error ? error.message : error}`);
    Deno.exit(1);
  }
}
