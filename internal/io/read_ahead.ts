/**
 * Reading ahead while a handler works.
 *
 * @module
 */

import { ignoreErrors } from "../api/errors.ts";
import type { Budget } from "../memory/budget.ts";
import type { ConnectionClocks } from "../time/conn_clocks.ts";
import type { Reader } from "./reader.ts";

/** The reads that are awaited here. */
const AWAITED = new WeakSet<Promise<number | null>>();

/** Stands for the outstanding read once the peer has ended its side after the end of the input: there is no other. */
const ENDED = Promise.resolve(null);

/** Whether the peer has ended its side, also if that was after the end of the input. */
export function hasLeft({ peerEnded, outstanding }: Pick<Reader, "peerEnded" | "outstanding">): boolean {
  return peerEnded || outstanding === ENDED;
}

/**
 * Reads ahead while the handler works, to learn whether the peer is still there. It stops when some 64 KiB wait for
 * the handler, or anything while memory is short: no peer may fill the memory with what no handler asks for. Once the
 * input is over, what comes is dropped, one read at a time.
 *
 * @param reader Reads the input.
 * @param clocks Sets the time at which this is called again, and is told that the peer has sent something.
 * @param budget Tells whether memory is short.
 * @param failed Called if the transport finds, without a read, that the peer has reset the connection.
 */
export async function readAhead(
  reader: Reader,
  clocks: Pick<ConnectionClocks, "readAheadLater" | "heard" | "halfClose">,
  budget: Budget,
  failed: (error: unknown) => void,
): Promise<void> {
  reader.unasked = !reader.outgoing;
  if (reader.pace?.holdsUp) return clocks.readAheadLater();
  while (!reader.waiting && !hasLeft(reader) && !reader.pinned && (reader.over || reader.input.hasRoom)) {
    if (budget.tight && reader.input.size > 0) {
      clocks.readAheadLater();
      break;
    }
    let read: Promise<number | null> | undefined;
    try {
      read = reader.outstanding ?? reader.startRead(reader.over);
      // An earlier call may still await it.
      if (read === undefined || AWAITED.has(read)) return;
      AWAITED.add(read);
      const count = await read;
      AWAITED.delete(read);
      // Meanwhile the handler may have asked for more, and got the bytes of this read, or TLS begins, which gets them.
      if (reader.outstanding !== read || reader.pinned || !took(count, reader, clocks)) return;
    } catch (error) {
      if (read !== undefined && (reader.outstanding !== read || reader.pinned)) return;
      return reader.failedUnread(error);
    }
    reader.answersFirst = true;
    // The rate limit may not allow another read yet.
    if (reader.pace !== undefined && reader.input.hasRoom && !reader.peerEnded) return clocks.readAheadLater();
  }
  // There is no room to read more, but some transports can report a reset without a read.
  if (!hasLeft(reader)) ignoreErrors(() => reader.transport.onReset?.(failed));
}

/** Handles what has come; returns whether the input goes on. At its end, the peer's side may still be open. */
function took(
  count: number | null,
  reader: Reader,
  clocks: Pick<ConnectionClocks, "readAheadLater" | "heard" | "halfClose">,
): boolean {
  if (!reader.over) {
    reader.received(count);
    if (count !== null) clocks.heard();
    return true;
  }
  if (count === null) {
    reader.outstanding = ENDED;
    clocks.halfClose();
    return false;
  }
  reader.outstanding = undefined;
  reader.input.dropped(count);
  clocks.readAheadLater();
  return false;
}
