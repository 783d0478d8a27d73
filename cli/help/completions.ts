/**
 * The completions of shells.
 *
 * @module
 */

import type { Shell } from "../flags/commands.ts";
import { bashScript } from "./bash.ts";
import { fishScript } from "./fish.ts";
import { zshScript } from "./zsh.ts";

const SCRIPTS: Readonly<Record<Shell, () => string>> = { bash: bashScript, zsh: zshScript, fish: fishScript };

/** Writes the script with which a shell completes the command. */
export function completions(shell: Shell): string {
  return SCRIPTS[shell]();
}
