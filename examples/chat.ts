/**
 * A chat room: the first line is a name, every further one goes to everybody.
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

/** A room, empty at first. */
export function chatRoom(): ConnHandler {
  const members = new Map<string, Conn>();

  /** Nobody waits for these writes: one who does not read holds nobody up, and `maxQueuedBytes` is where that ends. */
  function tell(text: string, except?: Conn): void {
    for (const member of members.values()) if (member !== except) member.write(`${text}\n`);
  }

  /** Asks until there is a name that is free, and takes it. */
  async function enter(conn: Conn): Promise<string | undefined> {
    await conn.write("Your name?\n");
    for await (const name of conn.lines) {
      if (!NAME.test(name)) await conn.write("Up to 20 letters, digits, - and _, please. Your name?\n");
      else if (members.has(name)) await conn.write(`Somebody is called ${name} already. Your name?\n`);
      else {
        members.set(name, conn);
        return name;
      }
    }
  }

  return async (conn) => {
    const name = await enter(conn);
    if (name === undefined) return;
    try {
      tell(`* ${name} joined`, conn);
      await conn.write(`* here: ${[...members.keys()].join(", ")}\n`);
      for await (const line of conn.lines) {
        // Control characters could write over what others said.
        const text = `${name}: ${line.replaceAll(/\p{Cc}/gu, " ")}`;
        tell(text, conn);
        // A member who floods the room is held up here, until the echo has been read.
        await conn.write(`${text}\n`);
      }
    } finally {
      members.delete(name);
      tell(`* ${name} left${conn.signal.aborted ? ` (${conn.signal.reason})` : ""}`);
    }
  };
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
