/**
 * The completions of shells.
 *
 * @module
 */

import type { Shell } from "./commands.ts";
import { bashScript } from "./shells/bash.ts";
import { fishScript } from "./shells/fish.ts";
import { zshScript } from "./shells/zsh.ts";

const SCRIPTS: Readonly<Record<Shell, () => string>> = { bash: bashScript, zsh: zshScript, fish: fishScript };

/** Writes the script with which a shell completes the command. */
export function completions(shell: Shell): string {
  return SCRIPTS[shell]();
}
