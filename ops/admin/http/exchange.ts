/**
 * One request of the admin port, and the answer to it, apart from how HTTP carries them.
 *
 * @module
 */

import type { IncomingHttpHeaders } from "node:http";
import { escapeUnsafe, quote } from "../../../internal/api/errors.ts";

/** A request. */
export interface Request {
  readonly method: string;
  /** The path, without the query. */
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
  /** The part of the peer's address that stands for one client; empty on a Unix socket. */
  readonly client: string;
  /**
   * Reads the body as text.
   *
   * @throws {Refusal} (As a rejection.) If it is larger than the port allows.
   */
  body(): Promise<string>;
}

/** An answer. */
export interface Reply {
  readonly status: number;
  /** The content type. */
  readonly type?: string;
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** A request that is refused: its status, and the reason that the client gets. */
export class Refusal extends Error {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;

  /**
   * @param status The status of the answer.
   * @param message The reason, which the client gets.
   * @param headers Headers of the answer.
   */
  constructor(status: number, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

/** Headers of every answer: nothing is cached, guessed, framed, or told to another site. */
export const HEADERS: Readonly<Record<string, string>> = {
  "Cache-Control": "no-store",
  "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
  "X-Frame-Options": "DENY",
};

/** Makes an answer of plain text. */
export function plain(status: number, text: string): Reply {
  return { status, type: "text/plain; charset=utf-8", body: `${text}\n` };
}

/**
 * Makes an answer of JSON, in which `Infinity` is `null`. It may be shown on a terminal, as `curl` does: characters that
 * would act there, and are in a peer's path or a handler's word, are escaped.
 */
export function json(status: number, value: unknown, headers: Reply["headers"] = {}): Reply {
  return { status, type: "application/json", body: `${escapeUnsafe(JSON.stringify(value))}\n`, headers };
}

/** Makes the answer to a refused request. */
export function refused({ status, message, headers }: Refusal): Reply {
  return json(status, { error: message }, headers);
}

/**
 * Reads a body that is a JSON object; an empty body is an empty object.
 *
 * @param request The request.
 * @param allowed The names that the object may have.
 * @throws {Refusal} (As a rejection.) If the body is anything else.
 */
export async function readObject(request: Request, allowed: readonly string[]): Promise<Record<string, unknown>> {
  const text = await request.body();
  if (text.trim() === "") return {};
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Refusal(400, "Cannot use the body: expected JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Refusal(400, "Cannot use the body: expected a JSON object");
  }
  const unknown = Object.keys(value).find((name) => !allowed.includes(name));
  if (unknown === undefined) return value as Record<string, unknown>;
  throw new Refusal(400, `Cannot use ${quote(unknown)}: expected one of ${allowed.join(", ")}`);
}

/**
 * Calls a function of the library, whose errors about wrong values the client gets.
 *
 * @param call The function.
 * @param reword Changes the words of an error.
 * @throws {Refusal} If a value is wrong.
 */
export function checked<T>(call: () => T, reword: (message: string) => string = (message) => message): T {
  try {
    return call();
  } catch (error) {
    if (error instanceof RangeError || error instanceof TypeError) throw new Refusal(400, reword(error.message));
    throw error;
  }
}
