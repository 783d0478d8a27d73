/**
 * util-linux's `logger` as a client of a server under test.
 *
 * @module
 */

import { isUtilLinux } from "../command.ts";

/** The suffix of the names of tests that need it. */
export const NO_LOGGER: string = await isUtilLinux("logger") ? "" : " (skipped: util-linux's logger is missing)";

/** Sends each line of a text as a message, on one connection. */
export async function logger(port: number, text: string, ...args: string[]): Promise<void> {
  const address = ["--tcp", "--server", "127.0.0.1", "--port", `${port}`];
  const command = new Deno.Command("logger", { args: [...address, ...args], stdin: "piped", stderr: "inherit" });
  await using child = command.spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(text));
  await writer.close();
  const { success, code } = await child.status;
  if (!success) throw new Error(`logger has ended with ${code}`);
}
