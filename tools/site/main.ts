/**
 * Builds the site into `dist/site`, or into the folder that `--output` names: `deno task site`. Any static host can serve
 * it, in any folder.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { Progress } from "../progress.ts";

const USAGE = `Usage: deno task site [options]

  --output FOLDER  where to (default dist/site); what is there is replaced
  --help           show this`;

const { output, help, _: rest } = parseArgs(Deno.args, {
  string: ["output"],
  boolean: ["help"],
  default: { output: "dist/site" },
  unknown: (arg) => refuse(`Unknown option "${arg}"; --help lists what there is`),
});
if (help) {
  console.log(USAGE);
  Deno.exit();
}
if (output === "" || rest.length > 0) refuse("--output wants a folder");

/** Ends the tool with what is wrong about its arguments. */
function refuse(why: string): never {
  console.error(`site: ${why}`);
  Deno.exit(2);
}

const root = `${import.meta.dirname}/../..`;
try {
  // Not before: these need packages of npm.
  const { buildSite, STEPS } = await import("./build.ts");
  using progress = new Progress({ total: STEPS });
  progress.show("pages");
  await buildSite({ root, output, onStep: (what) => progress.step(`site: ${what}`) });
} catch (error) {
  console.error(`site: ${error instanceof Error ? error.message : error}`);
  Deno.exit(1);
}
console.log(`${output}/index.html`);
