/**
 * A connection's bytes as a Web stream.
 *
 * @module
 */

import type { ConnectionClocks } from "../time/conn_clocks.ts";
import type { Outbox } from "./outbox.ts";
import type { Reader } from "./reader.ts";

/**
 * Makes a stream of a reader's bytes. It reads only when it is pulled, and its end closes nothing.
 *
 * @param reader Where the bytes come from.
 * @param outbox Told when bytes have come, so that their reply is written at once.
 * @param clocks Told when the handler gets bytes, or learns that there will be none.
 * @param before Called before each read.
 * @returns The stream.
 */
export function readableOf(
  reader: Reader,
  outbox: Outbox,
  clocks: ConnectionClocks,
  before: () => void,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  let cancelled = false;
  return new ReadableStream({
    type: "bytes",
    async pull(controller) {
      before();
      await reader.bytesCome();
      // The bytes that have come stay for the next read.
      if (cancelled) return;
      const bytes = reader.takeBytes();
      clocks.work();
      outbox.writeNextAtOnce();
      if (bytes !== undefined) return controller.enqueue(bytes);
      controller.close();
      controller.byobRequest?.respond(0);
    },
    cancel() {
      cancelled = true;
    },
  });
}
