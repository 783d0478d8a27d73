/**
 * How the tools are called.
 *
 * @module
 */

/** The user has to change the command line. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** Reads the whole number of an option. */
export function parseCount(name: string, value: string, least: number, most: number): number {
  if (/^\d+$/.test(value) && Number(value) >= least && Number(value) <= most) return Number(value);
  throw new UsageError(`${name} wants a whole number from ${least} to ${most}, not "${value}"`);
}

/**
 * Runs a tool with the arguments of the process.
 *
 * @param name The tool, for errors.
 * @param usage What `--help` prints.
 * @param run Does the work; returns the exit code. A {@linkcode UsageError} is one line, and exit code 2.
 */
export async function runTool(name: string, usage: string, run: (args: string[]) => Promise<number>): Promise<void> {
  try {
    if (Deno.args.includes("--help")) console.log(usage);
    else Deno.exitCode = await run(Deno.args);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(`${name}: ${error.message}`);
    Deno.exitCode = 2;
  }
}
