/**
 * Where the admin port listens: a TCP port of a loopback or other address, or a Unix socket.
 *
 * @module
 */

import type { Server } from "node:http";
import { isIP } from "node:net";
import { formatAddr } from "../../../internal/api/transport.ts";
import { ofDeno } from "../../sockets/socket_errors.ts";
import { replacingDead, withMode } from "../../sockets/unix.ts";

/** A place to listen at. */
export type Place =
  | { readonly hostname: string; readonly port: number }
  | { readonly path: string; readonly mode: number };

/** The port would be open to other machines, and there is no token. */
export class TokenNeeded extends TypeError {
  /** @param address Where it was to listen. */
  constructor(address: string) {
    super(`Cannot listen on ${address} without a token: expected one, or a loopback address or a Unix socket`);
    this.name = "TokenNeeded";
  }
}

/** An address as text. */
function formatPlace(place: Place): string {
  return formatAddr("path" in place ? { transport: "unix", path: place.path } : { transport: "tcp", ...place });
}

/**
 * Makes a server listen.
 *
 * @param server The server.
 * @param place Where.
 * @param guarded Whether there is a token.
 * @returns The address, with the port that was bound.
 * @throws {TokenNeeded} (As a rejection.) If other machines could reach it, and there is no token.
 * @throws {Deno.errors.AddrInUse} (As a rejection.) If the address is taken.
 */
export async function bind(server: Server, place: Place, guarded: boolean): Promise<Deno.Addr> {
  if ("path" in place) return await bindUnix(server, place);
  const { hostname, port } = place;
  const addresses = await addressesOf(hostname);
  if (!guarded && !addresses.every(isLoopback)) throw new TokenNeeded(formatPlace(place));
  const errors: unknown[] = [];
  for (const address of addresses) {
    try {
      await permit({ name: "net", host: formatPlace({ hostname: address, port }) });
      await listening(server, () => server.listen({ host: address, port }));
      const bound = server.address() as { address: string; port: number };
      return { transport: "tcp", hostname: bound.address, port: bound.port };
    } catch (error) {
      errors.push(error);
    }
  }
  throw errors.find((error) => error instanceof Deno.errors.AddrInUse) ?? errors[0];
}

/** Whether only this machine can reach an address. */
function isLoopback(address: string): boolean {
  return isIP(address) === 4 ? address.startsWith("127.") : address === "::1";
}

/** The addresses of a host, in the resolver's order. The check of the token needs them: a name says nothing. */
async function addressesOf(hostname: string): Promise<string[]> {
  if (isIP(hostname)) return [hostname];
  await permit({ name: "net", host: hostname });
  const { lookup } = await import("node:dns/promises");
  const found = await lookup(hostname, { all: true, order: "verbatim" });
  return found.map(({ address }) => address);
}

async function bindUnix(server: Server, place: { path: string; mode: number }): Promise<Deno.Addr> {
  const { path, mode } = place;
  await permit({ name: "net", host: formatPlace(place) });
  for (const name of ["read", "write"] as const) await permit({ name, path });
  await replacingDead(path, () => listening(server, () => withMode(mode, () => server.listen({ path }))));
  try {
    Deno.chmodSync(path, mode);
  } catch (error) {
    server.close();
    throw error;
  }
  return { transport: "unix", path };
}

/**
 * Throws if a permission is not granted. Without this, `node:net` would throw where nothing can catch the error, and on a
 * terminal Deno would ask for it first, in a question that stops the process.
 */
async function permit(descriptor: Deno.PermissionDescriptor): Promise<void> {
  const { state } = await Deno.permissions.query(descriptor);
  if (state === "granted") return;
  const { name } = descriptor;
  const what = "host" in descriptor ? descriptor.host : "path" in descriptor ? descriptor.path : "";
  throw new Deno.errors.NotCapable(`Requires ${name} access to "${what}", run again with the --allow-${name} flag`);
}

async function listening(server: Server, listen: () => void): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("listening", resolve);
  server.once("error", reject);
  try {
    listen();
    await promise;
  } catch (error) {
    throw ofDeno(error as Error);
  } finally {
    server.off("listening", resolve);
    server.off("error", reject);
  }
}
