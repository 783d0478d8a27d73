/**
 * A port that refuses connections.
 *
 * @module
 */

/** A port on the loopback on which no server listens; it stays taken until this is disposed of. */
export interface RefusingPort extends Disposable {
  readonly port: number;
}

/**
 * Takes a port: that of a client's own end. The port of a closed listener could be given to another test meanwhile.
 *
 * @returns The port.
 */
export async function refusingPort(): Promise<RefusingPort> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const client = await Deno.connect({ hostname: "127.0.0.1", port: listener.addr.port });
  const ends = [client, await listener.accept(), listener];
  return {
    port: client.localAddr.port,
    [Symbol.dispose]() {
      for (const end of ends) end.close();
    },
  };
}
