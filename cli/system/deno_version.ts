/**
 * Checks the version of Deno. Imports nothing and uses no new feature, so that an old Deno can run it.
 *
 * @module
 */

/** The first version of Deno in which a blocked write does not keep a closed socket alive. */
const NEEDED = [2, 9, 5];

/**
 * Tells whether a version of Deno is too old.
 *
 * @param version The version of Deno, such as `2.9.6` or `2.9.5-rc.1`.
 * @returns An error in one line; `undefined` if the version is new enough.
 */
export function tooOld(version: string): string | undefined {
  const parts = version.split(/[.+-]/).slice(0, 3).map(Number);
  const differing = NEEDED.findIndex((needed, i) => parts[i] !== needed);
  // A version that cannot be parsed is not refused.
  if (differing < 0 || !(parts[differing] < NEEDED[differing])) return undefined;
  return `needs Deno ${NEEDED.join(".")} or newer, and this is ${version}`;
}

/** Ends the process with one line if Deno is too old. */
export function requireDeno(): void {
  const problem = tooOld(Deno.version.deno);
  if (problem === undefined) return;
  console.error(`shouty: ${problem}`);
  Deno.exit(1);
}
