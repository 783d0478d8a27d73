/**
 * What `@std/cli` exports, declared for the copy that `tools/setup.ts` takes from
 * npm.
 * @module
 */
export * from "./parse_args.d.ts";

/** How {@linkcode promptSecret} shows what is typed. */
export interface PromptSecretOptions {
  /** Shown for each character. @default {"*"} */
  mask?: string;
  /** Clears the line after the answer. @default {false} */
  clear?: boolean;
}

/** Asks for a text that the terminal does not show; `null` where there is no terminal. */
export function promptSecret(
  message?: string,
  options?: PromptSecretOptions,
): string | null;

/** Counts the columns that a text takes on a terminal. */
export function unicodeWidth(str: string): number;
