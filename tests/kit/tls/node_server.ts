/**
 * A server of `node:tls` in memory, and a client that connects to it with `connectTlsOver()`.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import tls from "node:tls";
import { TestClient } from "@x/shouty/testing";
import type { TlsInfo, Transport } from "../../../internal/api/transport.ts";
import { type ClientTlsOptions, connectTlsOver } from "../../../ops/tls/client.ts";
import { AUTHORITY, pipe, streamOf } from "../tls.ts";

/** The options that a test gives the client. */
export type Options = Partial<ClientTlsOptions>;

/** What a server of `node:tls` has seen of a handshake. */
export interface Seen {
  /** The application's bytes. */
  data: string;
  /** Whether the handshake has ended, for the server. */
  secure: boolean;
}

/** The client's end of a connection, and what the server has seen. */
export interface Connected extends TestClient {
  readonly transport: Transport & { readonly tls: TlsInfo };
  readonly seen: Seen;
}

/** Connects to a server of `node:tls` in memory, which says "hi" as soon as it can. */
export async function connectTo(
  identity: tls.TLSSocketOptions & tls.SecureContextOptions,
  options: Options = {},
): Promise<Connected> {
  const [serverEnd, clientEnd] = pipe();
  const stream = streamOf(new TestClient(serverEnd));
  const server = new tls.TLSSocket(stream, { isServer: true, ...identity });
  const seen: Seen = { data: "", secure: false };
  server.on("error", () => {});
  server.on("secure", () => seen.secure = true);
  server.on("data", (bytes: Uint8Array) => seen.data += Buffer.from(bytes).toString());
  server.write("hi\n");
  const close = () => {
    server.destroy();
    stream.destroy();
    clientEnd.close();
  };
  try {
    const all = { serverName: "localhost", caCerts: AUTHORITY.cert, ...options };
    const transport = await connectTlsOver(clientEnd, all);
    return Object.assign(new TestClient(transport), { transport, seen, [Symbol.dispose]: close });
  } catch (error) {
    close();
    throw Object.assign(error as Error, { seen });
  }
}
