/**
 * The permissions that the command gives up: code that breaks in must not get more of them than the server still needs.
 *
 * @module
 */

const NAMES = ["ffi", "run", "sys", "import", "env", "write", "read", "net"] as const;

/** A permission, by its name. */
export type PermissionName = typeof NAMES[number];

/**
 * Gives up permissions, for the rest of the process's life. Deno knows no way to narrow one: whoever was granted all
 * files keeps all of them or none.
 *
 * @param needed The permissions that stay, as far as they were granted.
 */
export function keepOnly(...needed: readonly PermissionName[]): void {
  for (const name of NAMES) {
    if (!needed.includes(name)) Deno.permissions.revokeSync({ name });
  }
}
