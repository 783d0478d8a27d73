/**
 * Compiles the command to one executable: `deno task compile` for this machine, and
 * `deno task compile --target TARGET` for another one. The executable has the permissions
 * of `deno task start`, and never prompts for more. Other flags are those of `deno compile`.
 *
 * Deno downloads the base executable that it adds the command to, unless `DENORT_BIN` names one.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { TextLineStream } from "@std/streams/text-line-stream";
import config from "../deno.json" with { type: "json" };

/** Parts of Deno's errors when it cannot get the base executable. */
const NO_BASE = /Setting up base binary|Could not find denort/;

const { target, output } = parseArgs(Deno.args, { string: ["target", "output"], alias: { output: "o" } });

const { success, error } = await deno([
  "compile",
  "--no-prompt",
  ...config.tasks.start.command.split(" ").filter((word) => word.startsWith("--allow-")),
  ...output === undefined ? ["--output", `dist/shouty${target === undefined ? "" : `-${target}`}`] : [],
  // The module of its workers, which no import names.
  ...["--include", "cli/serve/worker.ts"],
  ...Deno.args,
  "mod.ts",
]);
if (!success) {
  console.error(`compile: ${explain(error)}`);
  Deno.exit(1);
}

/** Runs Deno in the project's folder; prints its output, and returns the error. */
async function deno(args: string[]): Promise<{ success: boolean; error: string }> {
  const cwd = new URL("..", import.meta.url);
  const env = { NO_COLOR: "1", RUST_BACKTRACE: "0" };
  const child = new Deno.Command(Deno.execPath(), { args, cwd, env, stderr: "piped" }).spawn();
  let error = "";
  for await (const line of child.stderr.pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream())) {
    if (error !== "" || line.startsWith("error: ")) error += `${line}\n`;
    else console.error(line);
  }
  return { success: (await child.status).success, error };
}

/** Words Deno's error and its causes in one line. */
function explain(error: string): string {
  const [summary, chain = ""] = error.split("\nCaused by:\n");
  const what = summary.split("\n")[0].replace("error: ", "");
  const causes = Array.from(chain.matchAll(/^ +(?:\d+: )?(.+)$/gm), ([, cause]) => cause);
  if (!NO_BASE.test(chain)) return [what, ...causes].join(": ");
  const why = causes.find((cause) => !cause.startsWith("Setting up")) ?? what;
  return `no base executable for ${target ?? Deno.build.target} (DENORT_BIN can name one): ${why}`;
}
