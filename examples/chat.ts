/**
 * A chat room: a client's first line is its name, and every further line goes to all members.
 *
 * Run it with a port, 8080 by default: `deno run --allow-net examples/chat.ts 8080`
 *
 * ```text
 * $ nc 127.0.0.1 8080
 * Your name?
 * ada
 * * here: ada
 * * bob joined
 * Hello, Bob!
 * ada: Hello, Bob!
 * bob: Hi.
 * * bob left
 * ```
 *
 * @module
 */

import { type Conn, type ConnHandler, formatAddr, serveConnections, type ServeOptions, type Server } from "@x/shouty";

const NAME = /^[\p{L}\p{N}_-]{1,20}$/u;

type Members = Map<string, Conn>;

/** Creates a room without members. */
export function chatRoom(): ConnHandler {
  const members: Members = new Map();
  return async (conn) => {
    const name = await enter(members, conn);
    if (name === undefined) return;
    try {
      tell(members, `* ${name} joined`, conn);
      await conn.write(`* here: ${[...members.keys()].join(", ")}\n`);
      for await (const line of conn.lines) {
        // A control character could overwrite other members' messages on a terminal.
        const text = `${name}: ${line.replaceAll(/\p{Cc}/gu, " ")}`;
        tell(members, text, conn);
        // Slows down a member that floods the room: its next line is read once it has read its echo.
        await conn.write(`${text}\n`);
      }
    } finally {
      members.delete(name);
      tell(members, `* ${name} left${conn.signal.aborted ? ` (${conn.signal.reason})` : ""}`);
    }
  };
}

/** Writes without waiting: a member that does not read delays no other, and `maxQueuedBytes` bounds what it is owed. */
function tell(members: Members, text: string, except?: Conn): void {
  for (const member of members.values()) if (member !== except) member.write(`${text}\n`);
}

/** Asks for a name until one is free, and adds the member under it. */
async function enter(members: Members, conn: Conn): Promise<string | undefined> {
  await conn.write("Your name?\n");
  for await (const name of conn.lines) {
    if (!NAME.test(name)) await conn.write("Up to 20 letters, digits, - and _, please. Your name?\n");
    else if (members.has(name)) await conn.write(`The name ${name} is taken. Your name?\n`);
    else {
      members.set(name, conn);
      return name;
    }
  }
}

/** Serves a room on loopback; the options go to the server. */
export function serveChat(options: ServeOptions = {}): Server {
  const timeouts = { idleTimeout: 600_000, lineTimeout: 60_000, writeTimeout: 10_000 };
  const sizes = { maxConnections: 1000, maxLineBytes: 4096, maxQueuedBytes: 256 * 1024 };
  return serveConnections({ hostname: "127.0.0.1", ...timeouts, ...sizes, ...options }, chatRoom());
}

if (import.meta.main) {
  const server = serveChat({ port: Number(Deno.args[0] ?? 8080) });
  console.error(`listening on ${formatAddr(server.addr)}`);
}
