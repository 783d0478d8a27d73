/**
 * The graceful close of a transport, after which the peer can still read everything that was written to it.
 *
 * @module
 */

import type { Transport } from "../api/transport.ts";
import { BLOCK_BYTES } from "../memory/buffer_pool.ts";
import { TURNS } from "../time/turns.ts";

/** Maximum milliseconds for which a graceful close goes on reading after the last write. */
export const LINGER_MS = 2000;

/** Maximum bytes that it reads meanwhile. */
const LINGER_BYTES = 1024 * 1024;

/** The buffer into which discarded input is read; all connections share it. */
const DISCARD = new Uint8Array(BLOCK_BYTES);

/**
 * Ends this side, and discards input until the peer ends its side or a maximum is reached.
 *
 * A plain `close()` while input is unread makes the kernel send RST, which can destroy replies that the peer has not
 * read yet. The caller limits the time by closing the transport during a read, and closes it afterwards in any case.
 *
 * @param transport The transport to read from.
 * @param closeWrite Ends this side.
 * @param isClosed Whether the caller has closed the transport: a read may have settled just before that.
 * @param reading The outstanding read, if there is one: a transport has at most one.
 */
export async function linger(
  transport: Pick<Transport, "read">,
  closeWrite: () => Promise<void>,
  isClosed: () => boolean,
  reading?: Promise<number | null>,
): Promise<void> {
  try {
    await closeWrite();
    for (let left = LINGER_BYTES; left > 0 && !isClosed();) {
      const count = await (reading ?? transport.read(DISCARD));
      // A custom transport may return anything, such as 0 at the end of input, and that at once and for ever.
      if (count === null || !Number.isInteger(count) || count < 1) return;
      left -= count;
      reading = undefined;
      if (count === DISCARD.length) await TURNS.take(count);
    }
  } catch {
    // The peer is gone, or the caller has closed the transport.
  }
}
