/**
 * A client of `node:tls` in memory, and certificates among which a server chooses by the name that a client asks for.
 *
 * @module
 */

import tls from "node:tls";
import type { Transport } from "@x/shouty";
import { TestClient } from "@x/shouty/testing";
import type { End } from "../../../testing/pipe.ts";
import { type Identity, makeIdentity } from "../certificates.ts";
import { AUTHORITY, pipe, streamOf } from "../tls.ts";

export const EXAMPLE: Identity = makeIdentity("example", {
  by: AUTHORITY,
  altNames: ["DNS:*.example.org", "DNS:example.org"],
});
export const MAIL: Identity = makeIdentity("mail", {
  by: AUTHORITY,
  altNames: ["DNS:mail.example.org", "DNS:mail.example.net"],
});

/** A client of `node:tls`, the server's end of its connection, and what closes the client. */
export interface Started {
  readonly serverEnd: End;
  readonly socket: tls.TLSSocket;
  close(): void;
}

/** Starts a client of `node:tls` in memory; returns the server's end. */
export function startClient(options: tls.ConnectionOptions): Started {
  const [serverEnd, clientEnd] = pipe();
  const stream = streamOf(new TestClient(clientEnd));
  const socket = tls.connect({ socket: stream, ca: AUTHORITY.cert, servername: "localhost", ...options });
  socket.on("error", () => {});
  return { serverEnd, socket, close: () => [socket, stream].forEach((end) => end.destroy()) };
}

/** Reads a number of bytes. */
export async function readFrom(transport: Pick<Transport, "read">, count: number): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(count);
  for (let at = 0; at < count;) at += (await transport.read(bytes.subarray(at)))!;
  return bytes;
}
