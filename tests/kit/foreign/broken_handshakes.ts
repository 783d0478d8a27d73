/**
 * TLS clients that break off their handshake.
 *
 * @module
 */

import { Duplex } from "node:stream";
import tls from "node:tls";
import { serve } from "@x/shouty";
import { listenTls, tlsCredentials } from "@x/shouty/ops";
import { FakeClock, TestClient } from "@x/shouty/testing";
import { closeQuietly } from "../../../internal/api/transport.ts";
import { AUTHORITY, IDENTITY } from "../tls.ts";

/** More bytes than a client sends during its handshake. */
const ALL = 4096;

/** How one client breaks off. */
export interface Break {
  version: "TLSv1.2" | "TLSv1.3";
  /** The number of bytes of the client that reach the server. */
  bytes: number;
}

/**
 * Lists where to break off: before the first byte, in and behind each record, and behind the handshake.
 *
 * @param count How many there are to be.
 * @param lengths The number of bytes that a client sends during a whole handshake, by version.
 * @returns As many as wanted, spread evenly.
 */
export function breaks(count: number, lengths: Record<Break["version"], number>): Break[] {
  return Array.from({ length: count }, (_, i) => {
    const version = i % 2 === 0 ? "TLSv1.2" : "TLSv1.3";
    return { version, bytes: Math.floor(i / count * (lengths[version] + 2)) };
  });
}

/**
 * Connects a client, and closes its connection when the given number of its bytes has been sent.
 *
 * @param port The server's port.
 * @param where Where to break off; by default not before the handshake is done.
 * @returns The number of bytes sent.
 */
export async function breakOff(port: number, where: Partial<Break> = {}): Promise<number> {
  const { version = "TLSv1.3", bytes: limit = ALL } = where;
  const conn = await Deno.connect({ port });
  const over = Promise.withResolvers<void>();
  let sent = 0;
  const wire = new Duplex({
    read() {},
    async write(bytes: Uint8Array, _encoding, done) {
      const end = Math.min(bytes.length, limit - sent);
      try {
        for (let at = 0; at < end;) at += await conn.write(bytes.subarray(at, end));
      } catch {
        over.resolve();
      }
      sent += end;
      if (sent >= limit) over.resolve();
      done();
    },
  });
  if (limit > 0) {
    const socket = tls.connect({
      ...{ socket: wire, servername: "localhost", rejectUnauthorized: false },
      ...{ minVersion: version, maxVersion: version },
    });
    socket.on("error", () => over.resolve());
    socket.on("secureConnect", () => setTimeout(over.resolve));
    pour(conn, wire).finally(over.resolve);
    await over.promise;
    socket.destroy();
  }
  wire.destroy();
  closeQuietly(conn);
  return sent;
}

async function pour(conn: Deno.Conn, wire: Duplex): Promise<void> {
  const buffer = new Uint8Array(4096);
  try {
    for (let count = await conn.read(buffer); count !== null; count = await conn.read(buffer)) {
      wire.push(buffer.slice(0, count));
    }
  } catch {
    // The connection was closed.
  }
}

/**
 * Starts a server, and lets clients break off their handshakes, with a whole connection after every tenth.
 *
 * @param count The number of clients.
 * @param parallel How many of them are at work at a time.
 * @param check Called with the server's clock when no client is left, before the server is closed.
 */
export async function breakMany(
  count: number,
  parallel: number,
  check: (clock: FakeClock) => void | Promise<void> = () => {},
): Promise<void> {
  const clock = new FakeClock();
  const credentials = await tlsCredentials({ ...IDENTITY, sni: [IDENTITY], clientAuth: "request" });
  const listener = await listenTls({ hostname: "127.0.0.1", port: 0, credentials, clock });
  await using server = serve({ listener, clock });
  const { port } = listener.addr as Deno.NetAddr;
  const lengths = { "TLSv1.2": await breakOff(port, { version: "TLSv1.2" }), "TLSv1.3": await breakOff(port) };
  const left = breaks(count, lengths);
  let whole = 2;
  const work = async () => {
    for (let next = left.pop(); next !== undefined; next = left.pop()) {
      await breakOff(port, next);
      if (left.length % 10 === 0) await shoutOnce(port, whole++);
    }
  };
  await Promise.all(Array.from({ length: parallel }, work));
  const over = () => {
    const { active, accepted, rejected, gone } = server.stats();
    return active === 0 && accepted + rejected + gone === count + whole;
  };
  while (!over()) await new Promise((resolve) => setTimeout(resolve, 1));
  await check(clock);
}

async function shoutOnce(port: number, number: number): Promise<void> {
  using client = new TestClient(await Deno.connectTls({ port, caCerts: [AUTHORITY.cert] }));
  await client.write(`hello ${number}\n`);
  const reply = await client.readLine();
  if (reply !== `HELLO ${number}`) throw new Error(`Got ${reply}`);
}
