/**
 * The token of the admin port, for the server and for its client. It is never in a message.
 *
 * @module
 */

import { quote } from "../../internal/api/errors.ts";
import { isToken, TOKEN_ALLOWED } from "../../ops/admin/http/token.ts";
import { CommandError } from "../system/errors.ts";
import { readFile } from "../system/files.ts";
import { TOKEN_VARIABLE } from "../flags/flags.ts";
import type { Naming } from "../line/parse.ts";

/**
 * Reads the token.
 *
 * @param path The file that a flag or a variable names; it overrides the variable.
 * @param variable The content of {@linkcode TOKEN_VARIABLE}.
 * @param nameOf Names the flag or the variable.
 * @returns The token; undefined if there is none.
 * @throws {CommandError} (As a rejection.) If the file cannot be read, or what is found cannot be a token.
 */
export async function readToken(
  path: string | null,
  variable: string | undefined,
  nameOf: Naming,
): Promise<string | undefined> {
  if (path === null) {
    // An empty variable is how some systems unset one.
    if (variable === undefined || variable === "" || isToken(variable)) return variable || undefined;
    throw new CommandError(`cannot use ${TOKEN_VARIABLE}: expected ${TOKEN_ALLOWED}`, 2);
  }
  const name = nameOf("adminTokenFile");
  const token = (await readFile(name, path)).replace(/\r?\n$/, "");
  if (isToken(token)) return token;
  throw new CommandError(`cannot use ${name} ${quote(path)}: expected ${TOKEN_ALLOWED}`, 2);
}
