/**
 * One admin port: its parts, and its life from binding to the end of its server.
 *
 * @module
 */

import { harmless } from "../../internal/api/errors.ts";
import type { Clock, ShutdownOptions } from "../../internal/api/serve_options.ts";
import type { ServerMetrics } from "../metrics/metrics.ts";
import { prometheus } from "../metrics/prometheus.ts";
import { Access } from "./http/access.ts";
import { bind, type Place } from "./http/bind.ts";
import { BOUNDS, type Bounds } from "./http/bounds.ts";
import { Carrier } from "./http/carrier.ts";
import { Readiness } from "./readiness.ts";
import { Routes } from "./routes.ts";
import { StatusReport } from "./status.ts";
import { Streams } from "./http/streams.ts";
import { Token } from "./http/token.ts";
import type { Steered } from "./steered.ts";

/** An open admin port. */
export interface Admin extends AsyncDisposable {
  /** The address on which it listens, with the port that was bound. */
  readonly addr: Deno.Addr;
  /**
   * Closes the port; it ends streams of events, and waits up to half a second for clients to take their last answers.
   *
   * @returns When it is closed.
   */
  close(): Promise<void>;
}

/** What a port is made of, checked. */
export interface PortParts {
  readonly place: Place;
  readonly token: string | undefined;
  readonly hosts: readonly string[];
  readonly name: string;
  readonly version: string | undefined;
  readonly clock: Clock;
  readonly metrics: ServerMetrics | undefined;
  /** Other bounds, for tests that cannot wait. */
  readonly bounds?: Partial<Bounds>;
}

/** A bound port. It says that the server starts until it gets one. */
export class AdminPort implements Admin {
  readonly addr: Deno.Addr;
  readonly #parts: PortParts;
  readonly #carrier: Carrier;
  readonly #routes: Routes;
  readonly #readiness: Readiness;
  #closed: Promise<void> | undefined;
  /** Lets go of the server and its metrics: they may go on without the port. */
  #detach = () => {};

  private constructor(addr: Deno.Addr, parts: PortParts, carrier: Carrier, routes: Routes, readiness: Readiness) {
    this.addr = addr;
    this.#parts = parts;
    this.#carrier = carrier;
    this.#routes = routes;
    this.#readiness = readiness;
  }

  /**
   * Loads everything that the port can use, and binds it: what cannot be loaded fails now, and nothing needs a
   * permission later.
   *
   * @param parts What it is made of.
   */
  static async open(parts: PortParts): Promise<AdminPort> {
    const { place, token, hosts, clock, metrics, bounds } = parts;
    const { loadPage } = await import("./page.ts");
    const readiness = new Readiness(clock);
    const routes = new Routes({
      access: new Access(token === undefined ? undefined : await Token.from(token, clock), hosts),
      readiness,
      page: await loadPage(),
      prometheus: metrics && prometheus(metrics),
    });
    const limits = { ...BOUNDS, ...bounds };
    const streams = new Streams(() => routes.status(), clock, limits);
    const carrier = await Carrier.make((request) => routes.answer(request), streams, clock, limits);
    const addr = await bind(carrier.server, place, token !== undefined);
    return new AdminPort(addr, parts, carrier, routes, readiness);
  }

  /**
   * Gives the port its server, at whose end it closes.
   *
   * @param server The server.
   * @param drain Begins the end of the server.
   */
  attach(server: Steered, drain?: (options: ShutdownOptions) => unknown): void {
    const { metrics, name, version, clock } = this.#parts;
    const status = new StatusReport({
      server,
      metrics,
      readiness: this.#readiness,
      name,
      version,
      clock,
    });
    const removeSink = metrics?.addSink({ event: this.#readiness.onEvent, add() {}, record() {} });
    this.#routes.attach({ server, status, drain: drain ?? ((options) => server.shutdown(options)) });
    const detached = Promise.withResolvers<void>();
    harmless(Promise.race([stopped(server), detached.promise]).then(() => this.close()));
    this.#detach = () => {
      removeSink?.();
      detached.resolve();
    };
  }

  close(): Promise<void> {
    this.#detach();
    return this.#closed ??= this.#carrier.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Settles when a server has stopped. Its callback refers to no port: it stays with the server as long as that runs. */
function stopped(server: Steered): Promise<unknown> {
  // A listener that failed has begun a shutdown, too, which this call joins.
  return server.finished.catch(() => server.shutdown());
}
