/**
 * Ending a transport without hurting what was written to it.
 *
 * @module
 */

import { BLOCK_BYTES } from "../lines/limiter.ts";
import type { Transport } from "../api/transport.ts";
import { TURNS } from "../time/turns.ts";

/** After the last write, so long and so much is read on, for the peer's sake. */
export const LINGER_MS = 2000;

const LINGER_BYTES = 1024 * 1024;

/** Where bytes go that nobody wants; all connections share it. */
const DISCARD = new Uint8Array(BLOCK_BYTES);

/**
 * Ends this side and reads on until the peer ends too, or enough was done for it.
 *
 * A plain `close()` while input is unread makes the kernel send RST, which can destroy replies that the peer has not
 * read yet. The caller bounds the time, by closing the transport under the read, and closes it in the end.
 *
 * @param transport What to read from.
 * @param closeWrite Ends this side.
 * @param isClosed Whether the caller has closed it: a read may have settled just before that.
 * @param reading A read that is outstanding already: there can be only one.
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
      if (count === null) return;
      left -= count;
      reading = undefined;
      if (count === DISCARD.length) await TURNS.take(count);
    }
  } catch {
    // The peer is gone, or the time was up.
  }
}
