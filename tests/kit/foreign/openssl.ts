/**
 * OpenSSL as a client of a server under test, and as a server of a client under test.
 *
 * @module
 */

import { test as bounded } from "../bounded.ts";
import { Subprocess } from "../command.ts";
import { missingProgram } from "./foreign.ts";
import type { TestServer } from "../server.ts";

const MISSING = await missingProgram("openssl", "version");

/** Registers a test that needs OpenSSL. */
export function test(name: string, body: () => Promise<void>): void {
  bounded(name, body, 60, MISSING);
}

/** A folder with files that OpenSSL reads. */
export async function withFiles(
  files: Record<string, string>,
): Promise<((name: string) => string) & AsyncDisposable> {
  const folder = await Deno.makeTempDir();
  for (const [name, text] of Object.entries(files)) await Deno.writeTextFile(`${folder}/${name}`, text);
  return Object.assign((name: string) => `${folder}/${name}`, {
    [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }),
  });
}

/** Connects OpenSSL's client. */
export function openssl(t: Pick<TestServer, "port">, ...args: string[]): Subprocess {
  return new Subprocess("openssl", ["s_client", "-connect", `127.0.0.1:${t.port}`, ...args]);
}

/** Starts OpenSSL's server on a free port of the loopback. */
export async function opensslServer(...args: string[]): Promise<Subprocess & { readonly port: number }> {
  const server = new Subprocess("openssl", ["s_server", "-accept", "127.0.0.1:0", ...args]);
  const [, port] = await server.stdoutMatch(/ACCEPT 127\.0\.0\.1:(\d+)/);
  return Object.assign(server, { port: Number(port) });
}

/** Runs OpenSSL to its end; returns its output. */
export async function runOpenssl(...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command("openssl", { args }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}
