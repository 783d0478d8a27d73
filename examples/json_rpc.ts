/**
 * A JSON-RPC 2.0 server: each line is a request, a notification or a batch. The requests of a batch run at the same
 * time, those of several lines one after the other, in the order of the lines.
 *
 * Run it with a port, 4000 by default: `deno run -A examples/json_rpc.ts 4000`
 *
 * ```text
 * $ nc 127.0.0.1 4000
 * {"jsonrpc":"2.0","method":"subtract","params":{"minuend":42,"subtrahend":23},"id":1}
 * {"jsonrpc":"2.0","result":19,"id":1}
 * [{"jsonrpc":"2.0","method":"wait","params":[100]},{"jsonrpc":"2.0","method":"sum","params":[1,2,3],"id":2}]
 * [{"jsonrpc":"2.0","result":6,"id":2}]
 * ```
 *
 * @module
 */

import { formatAddr, type LineHandler, serve, type ServeOptions, type Server } from "@x/shouty";

const MAX_BATCH = 100;

/** A method of the server. It gets the parameters, an array or an object, and returns what JSON can express. */
// deno-lint-ignore no-explicit-any -- what a client sends is checked by the method
export type Method = (params: any) => unknown;

/** An error that a method reports to its caller. Any other error is reported as an internal one, without details. */
export class RpcError extends Error {
  /** The number for programs. */
  readonly code: number;

  /**
   * @param code The number for programs; from -32768 to -32000 it has a meaning in JSON-RPC.
   * @param message The text for people.
   */
  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

/** Answers lines of JSON-RPC with the given methods. */
export function jsonRpc(methods: Record<string, Method>): LineHandler {
  return async (line) => {
    let requests;
    try {
      requests = JSON.parse(line);
    } catch {
      return failure(-32700, "Parse error");
    }
    if (!Array.isArray(requests)) return await call(methods, requests);
    if (requests.length === 0) return failure(-32600, "Invalid Request");
    if (requests.length > MAX_BATCH) return failure(-32600, `Invalid Request: more than ${MAX_BATCH} in a batch`);
    const replies = await Promise.all(requests.map((request) => call(methods, request)));
    const texts = replies.filter((reply) => reply !== undefined);
    return texts.length > 0 ? `[${texts.join(",")}]` : undefined;
  };
}

/** Carries out one request; returns the text of the response, or undefined for a notification. */
async function call(methods: Record<string, Method>, request: unknown): Promise<string | undefined> {
  if (!isRequest(request)) return failure(-32600, "Invalid Request");
  const { method, params, id } = request;
  let reply;
  try {
    if (!Object.hasOwn(methods, method)) throw new RpcError(-32601, "Method not found");
    const result = await methods[method](params) ?? null;
    // In here, as JSON cannot express every value. Of some, such as infinity, it makes null.
    if (typeof result === "number" && !Number.isFinite(result)) throw new RangeError(`${result} is not JSON`);
    reply = JSON.stringify({ jsonrpc: "2.0", result, id });
  } catch (error) {
    const known = error instanceof RpcError;
    reply = failure(known ? error.code : -32603, known ? error.message : "Internal error", id);
  }
  return id === undefined ? undefined : reply;
}

type Request = { method: string; params?: unknown; id?: string | number | null };

function isRequest(value: unknown): value is Request {
  if (typeof value !== "object" || value === null) return false;
  const { jsonrpc, method, params, id } = value as Record<string, unknown>;
  return jsonrpc === "2.0" && typeof method === "string" &&
    (params === undefined || typeof params === "object" && params !== null) &&
    (id === undefined || id === null || typeof id === "string" || typeof id === "number" && isExact(id));
}

/** Whether a number is what the client has written: beyond this, its reply would have another id, or null. */
function isExact(id: number): boolean {
  return Math.abs(id) <= Number.MAX_SAFE_INTEGER;
}

function failure(code: number, message: string, id: Request["id"] = null): string {
  return JSON.stringify({ jsonrpc: "2.0", error: { code, message }, id });
}

/** The methods to try. */
const METHODS: Record<string, Method> = {
  sum: (numbers) => {
    if (Array.isArray(numbers) && numbers.every(Number.isFinite)) return numbers.reduce((sum, next) => sum + next, 0);
    throw new RpcError(-32602, "Invalid params: expected numbers");
  },
  subtract: (params) => {
    const [minuend, subtrahend] = Array.isArray(params) ? params : [params?.minuend, params?.subtrahend];
    if (Number.isFinite(minuend) && Number.isFinite(subtrahend)) return minuend - subtrahend;
    throw new RpcError(-32602, "Invalid params: expected minuend and subtrahend");
  },
  wait: (params) => new Promise((resolve) => setTimeout(resolve, Math.min(Number(params?.[0]) || 0, 1000))),
};

/** Tells a client of a limit that it has met. A connection that just ends needs no words. */
function lastWords(reason: string, limit: number): string | null {
  if (reason === "line-too-long") return failure(-32600, `Invalid Request: longer than ${limit} bytes`);
  if (reason === "invalid-text") return failure(-32700, "Parse error: not UTF-8");
  return reason === "max-connections" || reason === "handler-timeout"
    ? failure(-32000, `Server error: ${reason}`)
    : null;
}

/** Serves the methods on loopback; the options go to the server. */
export function serveJsonRpc(options: ServeOptions = {}, methods: Record<string, Method> = METHODS): Server {
  const framing = { onLongLine: "discard", invalidText: "error" } as const;
  const timeouts = { idleTimeout: 60_000, lineTimeout: 10_000, handlerTimeout: 30_000 };
  return serve({ hostname: "127.0.0.1", framing, ...timeouts, lastWords, ...options }, jsonRpc(methods));
}

if (import.meta.main) {
  const server = serveJsonRpc({ port: Number(Deno.args[0] ?? 4000) });
  console.error(`listening on ${formatAddr(server.addr)}`);
}
