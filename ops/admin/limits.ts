/**
 * The limits of a server in JSON, which has no `Infinity`: there it is `null`.
 *
 * @module
 */

import { checked, readObject, type Request } from "./http/exchange.ts";
import type { Steered } from "./steered.ts";

/**
 * Changes the limits that a request names.
 *
 * @param server The server.
 * @param request The request, whose body is an object of limits.
 * @returns All limits that hold now.
 * @throws {Refusal} (As a rejection.) If one of them is wrong; nothing has changed then.
 */
export async function patchLimits(server: Steered, request: Request): Promise<Steered["limits"]> {
  const { limits } = server;
  const given = await readObject(request, Object.keys(limits));
  const changes = Object.entries(given).map(([name, value]) => {
    // Where the limit is no number, `null` is what it is, such as no list.
    const off = value === null && typeof limits[name as keyof typeof limits] === "number";
    return [name, off ? Infinity : value] as const;
  });
  checked(() => server.setLimits(Object.fromEntries(changes)), (message) => message.replaceAll("Infinity", "null"));
  return server.limits;
}
