/**
 * Whether tests can use IPv6.
 *
 * @module
 */

/** Why tests that need IPv6 are skipped, for their names; empty if the loopback has it. Containers often have none. */
export const NO_IPV6: string = isThere() ? "" : " (skipped: the loopback has no IPv6)";

function isThere(): boolean {
  try {
    Deno.listen({ hostname: "::1", port: 0 }).close();
    return true;
  } catch {
    return false;
  }
}
