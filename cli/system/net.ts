/**
 * Addresses, permissions and errors of the network, for the server and the client.
 *
 * @module
 */

import { formatAddr } from "../../internal/api/transport.ts";
import { CommandError, reasonOf } from "./errors.ts";
import type { Target, UnixTarget } from "../flags/kinds.ts";

/** An address as text, in the form that Deno's permissions have too. */
export function formatTarget(target: Target | UnixTarget): string {
  return formatAddr("path" in target ? { transport: "unix", ...target } : { transport: "tcp", ...target });
}

/**
 * Throws if the permission is not granted, so that Deno does not prompt for it on the terminal.
 *
 * @param action What needs the permission, to be read after "cannot".
 * @param address The address, in the form of Deno's permissions.
 * @throws {CommandError} If the permission is not granted.
 */
export function requireNet(action: string, address: string): void {
  if (Deno.permissions.querySync({ name: "net", host: address }).state === "granted") return;
  throw failed(action, address, `no permission to use the network, which --allow-net grants`);
}

/** Words why a connection has failed, also if the peer has said so in TLS's words. */
export function reasonOfPeer(error: unknown): string {
  return reasonOf(error).replace(/^received fatal alert: (\w+)$/, "the peer refused TLS ($1)");
}

/**
 * Makes the error for a failure with an address.
 *
 * @param action What failed, to be read after "cannot".
 * @param address The address.
 * @param error The cause.
 * @returns The error, with exit code 1.
 */
export function failed(action: string, address: string, error: unknown): CommandError {
  return new CommandError(`cannot ${action} ${address}: ${reasonOf(error)}`, 1);
}
