/**
 * Opens the client's connection: TCP or a Unix socket, in plain text or under TLS.
 *
 * @module
 */

import { connect } from "../../client.ts";
import type { ConnOptions } from "../../internal/api/conn_options.ts";
import type { Conn } from "../../internal/api/handlers.ts";
import { TlsCredentialsError } from "../../ops/tls/errors.ts";
import { CommandError } from "../system/errors.ts";
import { cannotUse, readFiles, requireFile } from "../system/files.ts";
import type { CONNECT } from "../flags/flags.ts";
import type { Target, UnixTarget } from "../flags/kinds.ts";
import { failed, formatTarget, reasonOfPeer, requireNet } from "../system/net.ts";
import type { Given, Values } from "../line/parse.ts";
import { checkOf } from "../line/together.ts";
import type { PermissionName } from "../system/permissions.ts";

/** The values of the client's flags. */
export type ClientFlags = Values<typeof CONNECT.flags> & Pick<Given<typeof CONNECT.flags>, "nameOf">;

/** The flag that names the file of each option of `connect`. */
const FILES = { caCerts: "tlsCa", cert: "tlsCert", key: "tlsKey" } as const;

/**
 * Switches off the limits that would end a good connection: a user may be silent for hours, and what comes may
 * wait for hours until stdout takes it. `Talk` sets `idleTimeout` while the server has to act.
 */
export const NO_LIMITS: ConnOptions = { idleTimeout: Infinity, halfCloseTimeout: Infinity };

/** The permissions that {@linkcode dial} can use. */
export function neededToConnect(target: Target | UnixTarget, flags: ClientFlags): PermissionName[] {
  if ("path" in target) return ["net", "read", "write"];
  return Object.values(FILES).some((option) => flags[option] !== null) ? ["net", "read"] : ["net"];
}

/**
 * Connects to a server.
 *
 * @param target The server's address.
 * @param flags The flags' values.
 * @returns The connection, without limits of time.
 * @throws {CommandError} (As a rejection.) If the flags contradict each other, or the server cannot be reached, or it is
 * not the right one.
 */
export async function dial(target: Target | UnixTarget, flags: ClientFlags): Promise<Conn> {
  checkTogether(target, flags);
  const address = formatTarget(target);
  requireNet("connect to", address);
  if ("path" in target) requireFile(`connect to ${address}`, target.path, ["read", "write"]);
  const tls = flags.tls && { serverName: flags.tlsServerName, ...await readFiles(FILES, flags) };
  try {
    return await connect({ ...target, tls, connectTimeout: flags.timeout, ...NO_LIMITS });
  } catch (error) {
    throw worded(error, address, flags);
  }
}

/** Throws if a flag has no meaning without another that is missing. */
function checkTogether(target: Target | UnixTarget, flags: ClientFlags): void {
  const { tls, tlsServerName, tlsCert, tlsKey, nameOf } = flags;
  const check = checkOf(nameOf);
  for (const option of ["tlsCa", "tlsServerName", "tlsCert", "tlsKey"] as const) {
    check(Boolean(flags[option]) && !tls, option, "without", "tls");
  }
  check(tlsKey !== null && tlsCert === null, "tlsKey", "without", "tlsCert");
  check(tls && "path" in target && tlsServerName === undefined, "tls", "without", "tlsServerName", " on a Unix socket");
}

/** Words an error of `connect`, which knows only names and texts, and no flags and files. */
function worded(error: unknown, address: string, flags: ClientFlags): CommandError {
  const { message, cause } = error as Error;
  // Also a host that no certificate can be for, such as `fe80::1%eth0`, needs the flag.
  const [, name] = /^Cannot use serverName (.*)/.exec(message) ?? [];
  if (name !== undefined) return new CommandError(`cannot use --tls-server-name ${name}`, 2);
  if (error instanceof TlsCredentialsError) return cannotUse(FILES, flags, error);
  // These messages name the address, and their causes do not.
  const reason = reasonOfPeer(message.startsWith("Cannot connect") ? cause : error);
  return failed("connect to", address, reword(reason, flags));
}

const NO_TLS = "it may not speak TLS at this port";

/** Puts words of the command in place of the library's, and says what else may be wrong. */
function reword(reason: string, { tls, timeout }: ClientFlags): string {
  return reason
    .replace(/^no answer within \d+ ms$/, `no answer${tls ? " to TLS" : ""} within ${timeout / 1000} s`)
    .replace("the authorities in caCerts", "the authorities in --tls-ca")
    // A server that sends back what it gets.
    .replace(/^received unexpected handshake message: got ClientHello .*/, "the server does not speak TLS at this port")
    .replace(/^the peer ended the connection during the TLS handshake$/, `$&; ${NO_TLS}`)
    // A shouty that does not speak TLS sends this alert, too.
    .replace(/ \(HandshakeFailure\)$/, `$&; ${NO_TLS}, or ask for --tls-cert`);
}
