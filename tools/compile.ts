/**
 * Compiles the command to one executable: `deno task compile` for this machine, and
 * `deno task compile --target TARGET` for another one. It may do what `deno task
 * start` may do, and never asks for more. Other flags are those of `deno compile`.
 *
 * Deno downloads the executable that this begins with, unless `DENORT_BIN` names one.
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { TextLineStream } from "@std/streams/text-line-stream";
import config from "../deno.json" with { type: "json" };

/** What Deno says when it cannot get the executable to begin with. */
const NO_BASE = /Setting up base binary|Could not find denort/;

const { target, output } = parseArgs(Deno.args, { string: ["target", "output"], alias: { output: "o" } });

const { success, error } = await deno([
  "compile",
  "--no-prompt",
  ...config.tasks.start.command.split(" ").filter((word) => word.startsWith("--allow-")),
  ...output === undefined ? ["--output", `dist/shouty${target === undefined ? "" : `-${target}`}`] : [],
  ...Deno.args,
  "mod.ts",
]);
if (!success) {
  console.error(`compile: ${explain(error)}`);
  Deno.exit(1);
}

/** Runs Deno in the project's folder, passes on what it says, and holds back the error. */
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

/** Deno's error and what caused it, in one line. */
function explain(error: string): string {
  const [summary, chain = ""] = error.split("\nCaused by:\n");
  const what = summary.split("\n")[0].replace("error: ", "");
  const causes = Array.from(chain.matchAll(/^ +(?:\d+: )?(.+)$/gm), ([, cause]) => cause);
  if (!NO_BASE.test(chain)) return [what, ...causes].join(": ");
  const why = causes.find((cause) => !cause.startsWith("Setting up")) ?? what;
  return `no base executable for ${target ?? Deno.build.target} (DENORT_BIN can name one): ${why}`;
}
