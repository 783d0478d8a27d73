/**
 * Handlers of every kind. All but those of scripts shout; some throw, close the connection, or do not wait for their writes.
 *
 * @module
 */

import { ANSWER_BYTES, type BytesHandler } from "../../../internal/api/handlers.ts";
import { type Conn, type ConnHandler, type LineHandler, serve, serveConnections, shout } from "@x/shouty";
import { shoutLines } from "../../../examples/shout_stream.ts";
import type { Start } from "../../../tests/kit/server.ts";
import { startOutgoing } from "./outgoing.ts";
import type { HandlerKind, Scenario } from "./scenario.ts";
import { following, type Log } from "./follow.ts";

/** The line at which the throwing handlers throw. */
export const BAIT = "!";

/** Starts a server with a case's handler; a slow one waits for `tick` before each line. A script's goes by the log. */
export function startHandler(
  { handler: kind, script, options, outgoing }: Scenario,
  tick: () => Promise<void>,
  log: (conn: Conn) => Log,
): Start {
  const handler = script === undefined ? CONVERSATIONS[kind] : following(script, options.framing ?? {}, log, tick);
  if (outgoing !== undefined) return startOutgoing(outgoing, handler!);
  if (handler !== undefined) return (options) => serveConnections(options, handler);
  if (kind === "shout") return (options) => serve(options);
  return (options) => serve(options, kind === "slow line" ? slowly(tick) : LINE_HANDLERS[kind]);
}

function slowly(tick: () => Promise<void>): LineHandler {
  return async (line) => {
    await tick();
    return shout(line);
  };
}

const LINE_HANDLERS: Partial<Record<HandlerKind, LineHandler>> = {
  "block": Object.assign((line: string) => shout(line), { block: shout.block }),
  "bytes": Object.assign((line: string) => Promise.resolve(shout(line)), { [ANSWER_BYTES]: shoutBytes }),
  "line": (line) => shout(line),
  "async line": (line) => Promise.resolve(shout(line)),
  "throwing line": (line) => refuseBait(line),
  // deno-lint-ignore require-await -- what it throws is a rejection
  "rejecting line": async (line) => refuseBait(line),
  "closing line": (line, conn) => {
    conn.close();
    return shout(line);
  },
};

const CONVERSATIONS: Partial<Record<HandlerKind, ConnHandler>> = {
  "conversation": shoutLines,
  "impatient conversation": async (conn) => {
    for await (const line of conn.lines) conn.write(`${shout(line)}\n`);
  },
  "quitting conversation": async (conn) => {
    for await (const line of conn.lines) return void await conn.write(`${shout(line)}\n`);
  },
  "throwing conversation": async (conn) => {
    for await (const line of conn.lines) await conn.write(`${refuseBait(line)}\n`);
  },
};

/** Declines, answers in place, or answers in a copy, depending on the length of the lines. */
function shoutBytes(lines: Uint8Array): Uint8Array | undefined {
  const replies = (shout as BytesHandler)[ANSWER_BYTES]!(lines);
  return lines.length % 3 === 0 ? undefined : lines.length % 3 === 1 ? replies : replies?.slice();
}

function refuseBait(line: string): string {
  if (line === BAIT) throw new Error("The bait was taken");
  return shout(line);
}
