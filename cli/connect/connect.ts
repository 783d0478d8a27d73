/**
 * The command `shouty connect`: connects to a server, and talks with it to the end.
 *
 * @module
 */

import type { CONNECT } from "../flags/flags.ts";
import type { Target, UnixTarget } from "../flags/kinds.ts";
import type { Given } from "../line/parse.ts";
import { formatTarget } from "../system/net.ts";
import { keepOnly } from "../system/permissions.ts";
import { talk } from "./client.ts";
import { dial, neededToConnect } from "./dial.ts";

/** Connects to a server, and talks with it to the end. */
export async function connectTo(
  { operand: target, values, nameOf }: Given<typeof CONNECT.flags> & { readonly operand: Target | UnixTarget },
): Promise<number> {
  const flags = { ...values, nameOf };
  keepOnly(...neededToConnect(target, flags));
  const conn = await dial(target, flags);
  // What the server sends can make the client do nothing more than it does already.
  keepOnly();
  await talk(conn, formatTarget(target), flags.timeout);
  return 0;
}
