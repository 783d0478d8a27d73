/**
 * Opens the admin port, if the flags ask for one.
 *
 * @module
 */

import { formatAddr } from "../../internal/api/transport.ts";
import type { AdminPort } from "../../ops/admin/port.ts";
import type { ServerMetrics } from "../../ops/metrics/metrics.ts";
import manifest from "../../deno.json" with { type: "json" };
import { readToken } from "./token.ts";
import { CommandError } from "../system/errors.ts";
import { requireFile } from "../system/files.ts";
import type { SERVE } from "../flags/flags.ts";
import type { Log } from "../log/log.ts";
import { failed, formatTarget, requireNet } from "../system/net.ts";
import type { Given, Values } from "../line/parse.ts";
import type { PermissionName } from "../system/permissions.ts";

/** The values of the flags about the admin port, and the token of the environment. */
export type AdminFlags =
  & Pick<Values<typeof SERVE.flags>, "admin" | "adminTokenFile" | "adminHost">
  & Pick<Given<typeof SERVE.flags>, "nameOf">
  & { readonly adminToken: string | undefined };

/** The permissions that {@linkcode openAdminPort} can use with these flags. */
export function neededToAdmin({ admin, adminTokenFile }: Omit<AdminFlags, "adminToken" | "nameOf">): PermissionName[] {
  if (admin === null) return [];
  if ("path" in admin) return ["net", "read", "write", "sys"];
  return adminTokenFile === null ? ["net"] : ["net", "read"];
}

/**
 * Opens the admin port. It is open before the server, so that nothing is served if it cannot be, and says that the server
 * starts.
 *
 * @param flags The flags' values.
 * @param metrics What counts the server's events.
 * @param log The log, which gets the address.
 * @returns The port, which waits for its server; undefined if the flags ask for none.
 * @throws {CommandError} (As a rejection.) If it cannot be opened.
 */
export async function openAdminPort(
  flags: AdminFlags,
  metrics: ServerMetrics | undefined,
  log: Log,
): Promise<AdminPort | undefined> {
  const { admin, adminHost, adminTokenFile, nameOf } = flags;
  if (admin === null) return undefined;
  const token = await readToken(adminTokenFile, flags.adminToken, nameOf);
  const address = formatTarget(admin);
  const action = "open the admin port on";
  requireNet(action, address);
  if ("path" in admin) requireFile(`${action} ${address}`, admin.path, ["read", "write"]);
  // Imported only if it is used.
  const [{ openAdmin }, { TokenNeeded }] = await Promise.all([
    import("../../ops/admin/admin.ts"),
    import("../../ops/admin/http/bind.ts"),
  ]);
  try {
    const options = { ...admin, token, hosts: adminHost ?? [], metrics, version: manifest.version };
    const port = await openAdmin(options);
    const addr = formatAddr(port.addr);
    log.write("info", "admin", () => `admin on ${addr}`, () => ({ addr }));
    return port;
  } catch (error) {
    if (error instanceof TokenNeeded) throw tokenNeeded(`${nameOf("admin")} ${address}`);
    throw failed(action, address, error);
  }
}

function tokenNeeded(what: string): CommandError {
  const expected = "expected --admin-token-file, or SHOUTY_ADMIN_TOKEN, or a loopback address";
  return new CommandError(`cannot use ${what} without a token: ${expected}`, 2);
}
