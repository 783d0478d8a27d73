/**
 * Gives up the permissions that the command no longer needs, so that an attacker's code could not use them.
 *
 * @module
 */

const NAMES = ["ffi", "run", "sys", "import", "env", "write", "read", "net"] as const;

/** A permission, by its name. */
export type PermissionName = typeof NAMES[number];

/**
 * Gives up permissions for the rest of the process's life. Deno cannot narrow a permission: a process that may read all
 * files keeps all of them or none.
 *
 * @param needed The permissions that stay, as far as they were granted.
 */
export function keepOnly(...needed: readonly PermissionName[]): void {
  for (const name of NAMES) {
    if (!needed.includes(name)) Deno.permissions.revokeSync({ name });
  }
}
