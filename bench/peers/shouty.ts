// shouty by its interface: handlers for which the command has no flag, on either engine.
//
// Usage: deno run -A shouty.ts KIND deno|epoll [PORT [IDLE_MS [CERT KEY]]], with one of these kinds:
//   handler   a line handler that is not `shout`, with lines that have memory of their own
//   lines     the conversation of examples/shout_stream.ts
//   starttls  the same after the line STARTTLS and a TLS handshake
import { type Conn, formatAddr, serve, serveConnections, type ServeOptions, shout } from "@x/shouty";
import { listenEpoll, tlsCredentials } from "@x/shouty/ops";
import { shoutLines } from "../../examples/shout_stream.ts";

const [kind, engine, port = "0", idleMs, cert, key] = Deno.args;
const where = { hostname: "127.0.0.1", port: Number(port) };
const options: ServeOptions = {
  ...(engine === "epoll" ? { listener: listenEpoll(where) } : where),
  ...(idleMs ? { idleTimeout: Number(idleMs), maxConnections: 20_000 } : {}),
};

/** Begins TLS at the client's first line, as a mail server does, and then answers its lines. */
async function startTls() {
  const credentials = await tlsCredentials({ cert: await Deno.readTextFile(cert), key: await Deno.readTextFile(key) });
  return serveConnections(options, async (conn: Conn) => {
    if (await conn.readLine() !== "STARTTLS") return;
    await conn.write("GO\n");
    await conn.startTls(credentials);
    for await (const line of conn.lines) await conn.write(`${shout(line)}\n`);
  });
}

const kinds: Record<string, () => ReturnType<typeof serve> | ReturnType<typeof startTls>> = {
  handler: () => serve({ ...options, independentLines: true }, (line) => line.toUpperCase()),
  lines: () => serveConnections(options, shoutLines),
  starttls: startTls,
};
const server = await kinds[kind]();
console.error(`listening on ${formatAddr(server.addr)}`);
