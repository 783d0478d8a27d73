/**
 * Decides who may ask the admin port: by the names `Host` and `Origin`, by the token, or by the cookie of a sign-in.
 *
 * @module
 */

import { isIP } from "node:net";
import { quote } from "../../../internal/api/errors.ts";
import { Refusal, type Reply, type Request } from "./exchange.ts";
import type { Token } from "./token.ts";

/** What a request has to prove: nothing, or that it knows the token. */
export type Level = "open" | "token";

const COOKIE = "shouty_admin";

/** Decides who may ask. */
export class Access {
  readonly #token: Token | undefined;
  readonly #hosts: ReadonlySet<string>;

  /**
   * @param token The token; without one, everybody who reaches the port may ask.
   * @param hosts The names by which the port may be addressed, besides `localhost` and IP addresses.
   */
  constructor(token: Token | undefined, hosts: readonly string[]) {
    this.#token = token;
    this.#hosts = new Set(["localhost", ...hosts.map((host) => host.toLowerCase())]);
  }

  /**
   * Checks a request.
   *
   * @param request The request.
   * @param level What it has to prove.
   * @throws {Refusal} (As a rejection.) If it may not ask.
   */
  async check(request: Request, level: Level): Promise<void> {
    const { host } = request.headers;
    checkOrigin(request);
    // Health checks such as HAProxy's send no name. Browsers always do, so that no page can be behind such a request.
    if (level === "open" && host === undefined) return;
    const known = host !== undefined && this.#isKnown(host);
    if (level === "open" && known) return;
    // A page that has rebound its name to this address knows no token, and its browser sends it no cookie of this port.
    const proven = await this.#bearer(request);
    if (!known && !proven) {
      throw new Refusal(
        403,
        `Cannot use Host ${quote(host ?? "")}: expected an IP address, localhost or a name that the port knows`,
      );
    }
    if (level === "open" || proven || this.#token === undefined) return;
    if (await this.#token.isSession(cookies(request)[cookieName(request)] ?? "")) return;
    throw unauthorized("Cannot answer without the token");
  }

  /** Signs a client in that sends the token, as JSON or as a form: it gets a cookie. */
  async login(request: Request): Promise<Reply> {
    const given = tokenOf(await request.body());
    if (this.#token === undefined) return { status: 204 };
    if (!await this.#token.matches(given, request.client)) throw unauthorized("Cannot sign in: wrong token");
    const { value, seconds } = await this.#token.newSession();
    return { status: 204, headers: { "Set-Cookie": setCookie(request, value, seconds) } };
  }

  /** Signs a client out: its browser drops the cookie. */
  logout(request: Request): Reply {
    return { status: 204, headers: { "Set-Cookie": setCookie(request, "", 0) } };
  }

  #isKnown(host: string): boolean {
    const name = host.toLowerCase().replace(/:\d*$/, "").replace(/^\[(.*)\]$/, "$1");
    return isIP(name) !== 0 || this.#hosts.has(name);
  }

  /** Whether the request has the token in its header; throws if it has another one. */
  async #bearer({ headers, client }: Request): Promise<boolean> {
    const { authorization } = headers;
    if (this.#token === undefined || authorization === undefined) return false;
    const [, given] = /^bearer +(\S+) *$/i.exec(authorization) ?? [];
    if (given !== undefined && await this.#token.matches(given, client)) return true;
    throw unauthorized("Cannot answer: wrong token");
  }
}

/** Refuses what a page of another site has sent. Only a link may lead here from there. */
function checkOrigin({ method, headers }: Request): void {
  const { origin, host = "" } = headers;
  if (origin !== undefined && origin.replace(/^https?:\/\//, "").toLowerCase() !== host.toLowerCase()) {
    throw new Refusal(403, `Cannot use Origin ${quote(origin)}: expected this port's own`);
  }
  const site = headers["sec-fetch-site"];
  const foreign = site === "cross-site" || site === "same-site";
  if (foreign && (method !== "GET" || headers["sec-fetch-mode"] !== "navigate")) {
    throw new Refusal(403, "Cannot answer a page of another site");
  }
}

function unauthorized(message: string): Refusal {
  return new Refusal(401, message, { "WWW-Authenticate": "Bearer" });
}

/** Cookies know no ports, so that two servers on one machine need two names. The port is the one that the browser sees. */
function cookieName({ headers }: Request): string {
  return `${COOKIE}_${/:(\d+)$/.exec(headers.host ?? "")?.[1] ?? "0"}`;
}

function setCookie(request: Request, value: string, seconds: number): string {
  const secure = request.headers.origin?.startsWith("https:") ? "; Secure" : "";
  return `${cookieName(request)}=${value}; HttpOnly; SameSite=Strict; Path=/; Max-Age=${seconds}${secure}`;
}

function cookies({ headers }: Request): Record<string, string> {
  const pairs = (headers.cookie ?? "").split(";").map((pair) => pair.trim().split("=", 2));
  return Object.fromEntries(pairs.filter((pair) => pair.length === 2));
}

function tokenOf(body: string): string {
  if (!body.trimStart().startsWith("{")) return new URLSearchParams(body).get("token") ?? "";
  try {
    const { token } = JSON.parse(body);
    return typeof token === "string" ? token : "";
  } catch {
    throw new Refusal(400, "Cannot use the body: expected JSON or a form, with a token");
  }
}
