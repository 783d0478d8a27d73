/**
 * Ports for programs that have to be told one, because they cannot take a free one themselves.
 *
 * @module
 */

/**
 * Returns a port on which no program listens, at any address.
 *
 * It is below those that the system gives to clients and to listeners on port 0. One of those could be taken by any
 * connection before the program listens, or while it is being started again; as long as that connection lives, and a
 * minute longer, no program can listen there.
 */
export function freePort(): number {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    try {
      Deno.listen({ port }).close();
      return port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
}
