/**
 * Measures the memory that a program still holds after its work. It runs in a process whose collector can be called.
 *
 * @module
 */

import { assert } from "@std/assert";

/** Runs a module's text, and returns the memory that its process holds afterwards, without garbage. */
export async function memoryAfter(program: string): Promise<Deno.MemoryUsage> {
  // The first collection may leave buffers to be swept in the background.
  const text = `${program}; gc(), gc(); console.log(JSON.stringify(Deno.memoryUsage())); Deno.exit();`;
  const command = new Deno.Command(Deno.execPath(), { args: ["eval", "--v8-flags=--expose-gc", text] });
  const { success, stdout, stderr } = await command.output();
  assert(success, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout));
}
