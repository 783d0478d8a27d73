/**
 * What the server and the client need to know of the network.
 *
 * @module
 */

import { formatAddr } from "../internal/api/transport.ts";
import { CommandError, reasonOf } from "./errors.ts";
import type { Target } from "./kinds.ts";

/** A host and a port as people write them, which is also how Deno's permissions name them. */
export function formatTarget(target: Target): string {
  return formatAddr({ transport: "tcp", ...target });
}

/**
 * Refuses to go on without the permission, instead of having Deno ask for it on the terminal.
 *
 * @param action What is to be done, to be read after "cannot".
 * @param address Where, as Deno's permissions name it.
 * @throws {CommandError} If it is not granted.
 */
export function requireNet(action: string, address: string): void {
  if (Deno.permissions.querySync({ name: "net", host: address }).state === "granted") return;
  throw failed(action, address, `no permission to use the network, which --allow-net grants`);
}

/**
 * What to throw when something with an address failed.
 *
 * @param action What was to be done, to be read after "cannot".
 * @param address Where.
 * @param error Why it was not.
 * @returns One line, exit code 1.
 */
export function failed(action: string, address: string, error: unknown): CommandError {
  return new CommandError(`cannot ${action} ${address}: ${reasonOf(error)}`, 1);
}
