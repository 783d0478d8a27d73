/**
 * Asks an admin port, over TCP or a Unix socket.
 *
 * @module
 */

import type { IncomingMessage } from "node:http";
import { CommandError, reasonOf } from "../system/errors.ts";
import type { Target, UnixTarget } from "../flags/kinds.ts";
import { failed, formatTarget } from "../system/net.ts";

/** Maximum size of an answer, in bytes: 1000 connections take far less. */
const MOST_BYTES = 8 * 1024 * 1024;

/** Maximum number of interim answers, such as `100 Continue`, of which each takes memory. An admin port sends none. */
const MOST_INTERIM = 10;

/** Reasons of Node's, which has codes for them, in the words of the command. */
const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connection refused",
  ECONNRESET: "connection reset",
  EPIPE: "connection reset",
  ENOENT: "no such file or directory",
  EACCES: "permission denied",
  ENOTFOUND: "no such host",
  EAI_AGAIN: "no such host",
};

/** An admin port, and how to ask it. */
export interface Asked {
  readonly target: Target | UnixTarget;
  readonly token: string | undefined;
  /** Maximum time for an answer, in milliseconds. */
  readonly timeout: number;
}

/**
 * Sends a request.
 *
 * @param port The admin port.
 * @param method The request's method.
 * @param path Its path and query.
 * @param body Its body, which is sent as JSON.
 * @returns The text of the answer, which is JSON.
 * @throws {CommandError} (As a rejection.) If there is no answer, or it is a refusal.
 */
export async function ask(port: Asked, method: string, path: string, body?: unknown): Promise<string> {
  const address = formatTarget(port.target);
  const { status, text } = await exchange(port, method, path, body).catch((error) => {
    const { code = "", name } = error as { code?: string; name: string };
    const late = name === "AbortError" || name === "TimeoutError";
    throw failed("ask", address, late ? `no answer within ${port.timeout / 1000} s` : REASONS[code] ?? error);
  });
  const answer = parsed(text);
  if (status < 300 && answer !== undefined) return text;
  if (status === 401 && port.token === undefined) {
    throw failed("ask", address, "it needs a token, from --admin-token-file or SHOUTY_ADMIN_TOKEN");
  }
  const { error } = (answer ?? {}) as { error?: unknown };
  if (typeof error !== "string") throw failed("ask", address, "the answer is not that of an admin port");
  throw new CommandError(reasonOf(new Error(error)), 1);
}

async function exchange({ target, token, timeout }: Asked, method: string, path: string, body: unknown) {
  const { request } = await import("node:http");
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; text: string }>();
  const place = "path" in target
    ? { socketPath: target.path, headers: { host: "localhost" } }
    : { host: target.hostname, port: target.port };
  const signal = AbortSignal.timeout(timeout);
  const asking = request({ ...place, method, path, signal, agent: false }, (answer) => {
    textOf(answer).then((text) => resolve({ status: answer.statusCode ?? 0, text }), reject);
  });
  asking.once("error", reject);
  // An answer to it would be no JSON; and nothing else tells that there will be none.
  asking.once("upgrade", (_, socket) => {
    socket.destroy();
    reject(new Error("the answer is not that of an admin port"));
  });
  let interim = 0;
  asking.on("information", () => {
    if (++interim > MOST_INTERIM) asking.destroy(new Error("the answer does not begin"));
  });
  if (token !== undefined) asking.setHeader("authorization", `Bearer ${token}`);
  if (body !== undefined) asking.setHeader("content-type", "application/json");
  asking.end(body === undefined ? "" : JSON.stringify(body));
  return await promise;
}

async function textOf(answer: IncomingMessage): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const part of answer) {
    text += decoder.decode(part, { stream: true });
    if (text.length > MOST_BYTES) throw new Error("the answer is too long");
  }
  return text;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
