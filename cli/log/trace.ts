/**
 * The trace of all bytes in the log, which `--trace` switches on.
 *
 * @module
 */

import { formatAddr } from "../../internal/api/transport.ts";
import { formatTrace, type TraceOptions } from "../../ops/wrappers/trace.ts";
import type { Log } from "./log.ts";

/** Says loudly what the log holds from now on. */
export function warnOfTrace(log: Log): void {
  const text = "TRACING: this log holds all that clients send and get, passwords too. Never use --trace in production";
  log.write("warn", "tracing", () => text);
}

/** Options of a trace that is written to the log. */
export function traceTo(log: Log): TraceOptions {
  return {
    write(entry) {
      const { id, remoteAddr, type, bytes, text, leftOut } = entry;
      log.write("info", "wire", () => `wire ${formatTrace(entry)}`, () => ({
        number: id,
        ...(remoteAddr !== undefined && { remote: formatAddr(remoteAddr) }),
        ...{ type, bytes },
        ...(text !== "" && { text }),
        ...(leftOut > 0 && { leftOut }),
      }));
    },
  };
}
