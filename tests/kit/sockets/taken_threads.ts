/**
 * Jobs that occupy the threads which Deno shares among file operations, cryptography and foreign calls.
 *
 * @module
 */

import { assertEquals } from "@std/assert";

/** Number of jobs: more than there are threads. */
const JOBS = 40;

/** Running jobs, which end when this is disposed of. */
export interface Jobs {
  [Symbol.asyncDispose](): Promise<void>;
}

/** Ways to occupy all threads, by name. */
export const TAKE: Readonly<Record<string, () => Promise<Jobs>>> = {
  "opening a FIFO": openFifo,
  "deriving keys": deriveKeys,
};

/** Opens pipes; each job blocks its thread until the other end is opened. */
async function openFifo(): Promise<Jobs> {
  const folder = await Deno.makeTempDir();
  const fifo = `${folder}/fifo`;
  assertEquals((await new Deno.Command("mkfifo", { args: [fifo] }).output()).success, true);
  const opening = Array.from({ length: JOBS }, () => Deno.open(fifo));
  return {
    async [Symbol.asyncDispose]() {
      using _writer = Deno.openSync(fifo, { read: true, write: true });
      for (const file of await Promise.all(opening)) file.close();
      await Deno.remove(folder, { recursive: true });
    },
  };
}

/** These jobs keep the processor's cores busy, too. */
async function deriveKeys(): Promise<Jobs> {
  const key = await crypto.subtle.importKey("raw", new Uint8Array(8), "PBKDF2", false, ["deriveBits"]);
  const how = { name: "PBKDF2", hash: "SHA-512", salt: new Uint8Array(8), iterations: 50_000 };
  const deriving = Array.from({ length: JOBS }, () => crypto.subtle.deriveBits(how, key, 256));
  return {
    async [Symbol.asyncDispose]() {
      await Promise.all(deriving);
    },
  };
}
