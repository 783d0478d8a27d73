/**
 * The admin port: a small HTTP server beside the server, for health checks, metrics, a page, and those who operate it.
 *
 * This folder holds the port and its life (here and in `port.ts`), the paths (`routes.ts`), and what they answer
 * (`readiness.ts`, `status.ts`, `connections.ts`, `page.ts`). `http/` carries requests and answers within bounds
 * (`bind.ts`, `carrier.ts`, `bounds.ts`, `exchange.ts`, `streams.ts`), and knows who may ask (`access.ts`, `token.ts`,
 * `attempts.ts`).
 *
 * @module
 */

import {
  checkClock,
  checkFunction,
  checkHostname,
  checkMethods,
  checkOptions,
  checkString,
  checkWhole,
  show,
} from "../../internal/api/check.ts";
import type { Clock, ShutdownOptions } from "../../internal/api/serve_options.ts";
import type { Server } from "../../internal/server/running.ts";
import { SYSTEM_CLOCK } from "../../internal/time/clock.ts";
import type { ServerMetrics } from "../metrics/metrics.ts";
import { type Admin, AdminPort } from "./port.ts";
import type { WorkersServer } from "../workers/workers_server.ts";
import type { Steered } from "./steered.ts";
import { isToken, TOKEN_ALLOWED } from "./http/token.ts";

/** Options of {@linkcode serveAdmin} about the port itself. */
export interface AdminPortOptions {
  /** What the server's events are counted by. Without it, `/metrics` is missing, and `/readyz` knows no errors of `accept`. */
  metrics?: ServerMetrics | undefined;
  /**
   * The address or host name to listen on. Other than on a loopback address, a token is needed.
   *
   * @default {"127.0.0.1"}
   */
  hostname?: string | undefined;
  /**
   * The port to listen on. With 0 the system picks a free port; {@linkcode Admin.addr} has it.
   *
   * @default {9090}
   */
  port?: number | undefined;
  /**
   * The path of a Unix socket to listen on, in place of `hostname` and `port`. The file must not exist, unless a crashed
   * server left it behind.
   */
  path?: string | undefined;
  /**
   * The mode bits of the socket's file: a user that may write to the file may ask.
   *
   * @default {0o600}
   */
  mode?: number | undefined;
  /**
   * What clients have to send, as `Authorization: Bearer TOKEN`, for all but the page and the health checks: 16 to 1024
   * visible characters of ASCII. It comes back in no answer and no error. Whoever reads the traffic can read it: across a
   * network, put TLS in front of the port.
   */
  token?: string | undefined;
  /**
   * The names by which browsers address the port, besides IP addresses and `localhost`. A request with another name in
   * its `Host` is refused, unless it carries the token: a page of a foreign site could have sent it.
   */
  hosts?: readonly string[] | undefined;
  /**
   * The name of the server; the page shows it.
   *
   * @default {"shouty"}
   */
  name?: string | undefined;
  /** The version of the program; the page shows it. */
  version?: string | undefined;
  /** The source of time for all but the times that requests may take; a test can pass a clock that it moves by hand. */
  clock?: Clock | undefined;
}

/** Options of {@linkcode serveAdmin}. */
export interface AdminOptions<Data = undefined> extends AdminPortOptions {
  /** The server to show and steer. */
  server: Server<Data> | WorkersServer;
  /**
   * Called by `POST /drain`, with the options that it carries. It is not awaited. The default is
   * {@linkcode Server.shutdown}.
   */
  drain?: ((options: ShutdownOptions) => unknown) | undefined;
}

/**
 * Opens an admin port for a server: an HTTP server on `node:http`, which is loaded only here. It closes by itself when
 * the server is closed, and answers until then.
 *
 * | path                           | what it answers                                                                     |
 * | ------------------------------ | ----------------------------------------------------------------------------------- |
 * | `GET /`                        | a page to look at; it needs no token, its data do                                   |
 * | `GET /healthz`                 | `ok`; needs no token                                                                |
 * | `GET /readyz`                  | `ready`, or 503 and why not; needs no token                                         |
 * | `GET /metrics`                 | all figures in Prometheus's text format                                             |
 * | `GET /status`                  | state, limits and counters                                                          |
 * | `GET /connections`             | open connections: `sort`, `filter`, `phase`, `waitsFor`, `limit`, `offset`          |
 * | `POST /connections/ID/close`   | 202, and closes a connection; `{"detail": "…"}` is the word for it                  |
 * | `GET /limits`, `PATCH /limits` | the limits that hold; `null` is `Infinity`                                          |
 * | `POST /pause`, `POST /resume`  | the status, after the server has stopped or begun to accept; 409 while it drains    |
 * | `POST /drain`                  | 202, and shuts the server down; the body can have the options of `shutdown`         |
 * | `GET /events`                  | server-sent events: the status, every second                                        |
 * | `POST /login`, `POST /logout`  | 204, and a cookie in place of the header, for the page; `{"token": "…"}` is the body |
 *
 * Requests are bounded: 8 KiB of head within 5 s, 64 KiB of body within 10 s, 64 connections, 10 streams of events. A
 * client that sends a wrong token more than 10 times a minute gets 429.
 *
 * @param options The server, where to listen, and the token.
 * @returns The open port.
 * @throws {RangeError | TypeError} (As a rejection.) If an option is wrong, or a token is missing where one is needed;
 * nothing is bound then.
 * @throws {Deno.errors.AddrInUse} (As a rejection.) If the address is taken.
 * @throws {Deno.errors.NotCapable} (As a rejection.) Without the permissions for the address, for which it never prompts.
 *
 * @example A server with an admin port
 * ```ts
 * import { serve } from "@x/shouty";
 * import { serveAdmin } from "@x/shouty/ops";
 * import { assertEquals } from "@std/assert";
 *
 * await using server = serve({ hostname: "127.0.0.1", port: 0 });
 * await using admin = await serveAdmin({ server, port: 0 });
 *
 * const { hostname, port } = admin.addr as Deno.NetAddr;
 * const ask = async (path: string, method = "GET") => {
 *   const response = await fetch(`http://${hostname}:${port}${path}`, { method });
 *   return [response.status, await response.text()] as const;
 * };
 * assertEquals(await ask("/readyz"), [200, "ready\n"]);
 * assertEquals((await ask("/pause", "POST"))[0], 200);
 * assertEquals(await ask("/readyz"), [503, "not ready: paused\n"]);
 * ```
 */
export async function serveAdmin<Data = undefined>(options: AdminOptions<Data>): Promise<Admin> {
  checkOptions("admin options", options);
  checkMethods("server", options.server, "a server", ["shutdown", "stats"]);
  checkMethods("server.finished", options.server.finished, "a promise", ["catch"]);
  checkFunction("drain", options.drain, true);
  const port = await openAdmin(options);
  port.attach(options.server as unknown as Steered, options.drain);
  return port;
}

/**
 * Opens a port before there is a server, for the command: it is bound while the permission is there, and says `starting`.
 *
 * @param options The options.
 * @returns The port, which needs a server.
 * @throws {unknown} (As a rejection.) As {@linkcode serveAdmin}.
 */
export async function openAdmin(options: AdminPortOptions): Promise<AdminPort> {
  const { hostname = "127.0.0.1", port = 9090, path, mode = 0o600, token, hosts = [] } = options;
  const { name = "shouty", version, clock = SYSTEM_CLOCK, metrics } = options;
  checkMethods("metrics", metrics, "a ServerMetrics", ["snapshot", "addSink"], true);
  checkHostname(hostname);
  checkWhole("port", port, 0, 65_535);
  checkString("path", path);
  if (path === "") throw new TypeError('Cannot use path "": expected a file\'s name');
  checkWhole("mode", mode, 0, 0o777);
  // Not with the value: it could be the token, with a line end.
  if (token !== undefined && !(typeof token === "string" && isToken(token))) {
    throw new TypeError(`Cannot use token: expected ${TOKEN_ALLOWED}`);
  }
  if (!Array.isArray(hosts)) throw new TypeError(`Cannot use hosts: expected a list of names, got ${show(hosts)}`);
  hosts.forEach((host, i) => checkString(`hosts[${i}]`, host));
  checkString("name", name);
  checkString("version", version);
  checkClock(clock);
  const place = path === undefined ? { hostname, port } : { path, mode };
  return await AdminPort.open({ place, token, hosts, name, version, clock, metrics });
}
