/** A worker for tests: it shouts, and obeys a few words. */

import type { Listener } from "@x/shouty";
import { proxyProtocol, serveInWorker } from "@x/shouty/ops";

/** What the tests give to it. */
export interface Given {
  /** What it says before each line. */
  prefix?: string;
  /** It fails to begin. */
  broken?: boolean;
  /** It begins only when the first number is 0; the second counts how many workers have come here. */
  gate?: Int32Array;
  /** Once it listens, it serves only when the first number is not 0; the second counts how many workers have come here. */
  late?: Int32Array;
  /** The word `block` blocks until the first number is not 0; the second is not 0 from then on. */
  cell?: Int32Array;
  /** It reads a PROXY header before each connection. */
  proxied?: boolean;
  /** The hook `admit` fails. */
  admitFails?: boolean;
  /** A reload with it fails as soon as the first number is not 0. */
  fails?: Int32Array;
}

serveInWorker((given: Given | undefined) => {
  if (given?.broken) throw new RangeError("broken on purpose");
  if (given?.gate !== undefined) {
    Atomics.add(given.gate, 1, 1);
    Atomics.wait(given.gate, 0, 1, 30_000);
  }
  let prefix = given?.prefix ?? "";
  return {
    async wrap(listener: Listener) {
      if (given?.late !== undefined) {
        Atomics.add(given.late, 1, 1);
        await Atomics.waitAsync(given.late, 0, 0).value;
      }
      return given?.proxied ? proxyProtocol(listener, { from: "127.0.0.0/8" }) : listener;
    },
    async reload(data) {
      const { prefix: next, fails } = data as Given;
      if (fails !== undefined) await Atomics.waitAsync(fails, 0, 0).value;
      if (next === undefined) throw new TypeError("no prefix");
      prefix = next;
    },
    admit({ remoteAddr }) {
      if (given?.admitFails) throwNow();
      return given?.prefix !== "nobody" || remoteAddr.transport !== "tcp" ? undefined : false;
    },
    handler(line, conn) {
      if (line === "id") return `${conn.id}`;
      if (line === "block") Atomics.store(given!.cell!, 1, 1), Atomics.wait(given!.cell!, 0, 0, 600_000);
      if (line === "throw later") setTimeout(() => throwNow());
      if (line === "reject") Promise.reject(new TypeError("rejected on purpose"));
      if (line === "fill memory") setInterval(fill, 1);
      while (line === "fill memory at once") fill();
      if (line === "end") close();
      if (line in ODD) throw ODD[line as keyof typeof ODD];
      return prefix + line.toUpperCase();
    },
  };
});

/** What no handler should throw. */
const ODD = {
  "throw nothing": undefined,
  "throw no text": Object.create(null),
  "throw a text that throws": { toString: throwNow },
  "throw an error without a message": Object.defineProperty(new Error(), "message", { get: throwNow }),
  "throw an error with an odd name": Object.assign(new Error(), { name: () => 1 }),
  "throw an error of no class": Object.assign(new Error(), { constructor: undefined }),
};

function throwNow(): never {
  throw new RangeError("thrown on purpose");
}

const kept: unknown[] = [];

function fill(): void {
  for (let i = 0; i < 200_000; i++) kept.push({ i, text: `x${i}` });
}
