/**
 * What the admin port answers, by path and method.
 *
 * @module
 */

import { quote } from "../../internal/api/errors.ts";
import { checkString } from "../../internal/api/check.ts";
import type { ShutdownOptions } from "../../internal/api/serve_options.ts";
import type { PrometheusMetrics } from "../metrics/prometheus.ts";
import type { Access, Level } from "./http/access.ts";
import { closeConnection, listConnections } from "./connections.ts";
import { checked, json, plain, readObject, Refusal, type Reply, type Request } from "./http/exchange.ts";
import type { Readiness } from "./readiness.ts";
import type { Status, StatusReport } from "./status.ts";
import type { Steered } from "./steered.ts";

/** What the answers are about, once there is a server. */
export interface Subject {
  readonly server: Steered;
  readonly status: StatusReport;
  /** Begins the end of the server. */
  readonly drain: (options: ShutdownOptions) => unknown;
}

/** What the routes need before that. */
export interface Basis {
  readonly access: Access;
  readonly readiness: Readiness;
  readonly page: Reply;
  readonly prometheus: PrometheusMetrics | undefined;
}

type Answer = Reply | "stream" | Promise<Reply>;

/** One path: what its methods answer. `id` is the number in the path. */
interface Route {
  readonly path: RegExp;
  readonly level: Level;
  readonly methods: Readonly<Record<string, (request: Request, id: number) => Answer>>;
}

const DRAIN_OPTIONS = ["drain", "drainTimeout", "delay", "spread"] as const;

/** Answers requests. */
export class Routes {
  readonly #basis: Basis;
  #subject: Subject | undefined;
  readonly #routes: readonly Route[];

  /** @param basis What the routes need. */
  constructor(basis: Basis) {
    this.#basis = basis;
    this.#routes = [...this.#openRoutes(), ...this.#ownRoutes()];
  }

  /** Gives the routes the server: until then it is not ready. */
  attach(subject: Subject): void {
    this.#subject = subject;
  }

  /** Returns the status of the server; undefined without one. */
  status(): Status | undefined {
    return this.#subject?.status.now();
  }

  /**
   * Answers a request.
   *
   * @throws {Refusal} (As a rejection.) If it is wrong, or not allowed.
   */
  async answer(request: Request): Promise<Reply | "stream"> {
    const route = this.#routes.find(({ path }) => path.test(request.path));
    // Before anything is told about paths: what is not known needs the token, too.
    await this.#basis.access.check(request, route?.level ?? "token");
    if (route === undefined) throw new Refusal(404, `Cannot find ${quote(request.path)}`);
    const { path, methods } = route;
    const method = request.method === "HEAD" ? "GET" : request.method;
    if (!Object.hasOwn(methods, method)) {
      const allowed = Object.keys(methods).flatMap((name) => name === "GET" ? ["GET", "HEAD"] : [name]).join(", ");
      throw new Refusal(405, `Cannot use method ${quote(request.method)}: expected ${allowed}`, { Allow: allowed });
    }
    return await methods[method](request, Number(path.exec(request.path)?.[1]));
  }

  #openRoutes(): Route[] {
    const { access, page } = this.#basis;
    return [
      open("/healthz", { GET: () => plain(200, "ok") }),
      open("/readyz", { GET: () => this.#readiness() }),
      open("/", { GET: () => page }),
      open("/login", { POST: (request) => access.login(request) }),
      open("/logout", { POST: (request) => access.logout(request) }),
    ];
  }

  #ownRoutes(): Route[] {
    return [
      own("/metrics", { GET: () => this.#fresh(() => this.#metrics()) }),
      own("/status", { GET: () => this.#fresh(() => this.#report(200)) }),
      own("/events", { GET: ({ method }) => this.#need() && method === "HEAD" ? { status: 200 } : "stream" }),
      own("/connections", {
        GET: ({ query }) => this.#fresh(({ server }) => json(200, listConnections(server, query))),
      }),
      own(/^\/connections\/(\d{1,15})\/close$/, { POST: (request, id) => this.#close(request, id) }),
      own("/limits", {
        GET: () => json(200, this.#need().server.limits),
        PATCH: (request) => this.#patchLimits(request),
      }),
      own("/drain", { POST: (request) => this.#drain(request) }),
      own("/pause", { POST: () => this.#set("pause") }),
      own("/resume", { POST: () => this.#set("resume") }),
    ];
  }

  #readiness(): Reply {
    const reasons = this.#subject === undefined ? ["starting"] : this.#basis.readiness.reasons(this.#subject.server);
    return reasons.length === 0 ? plain(200, "ready") : plain(503, `not ready: ${reasons.join(", ")}`);
  }

  /** Answers with the figures of now: workers have to be asked for them. */
  async #fresh(answer: (subject: Subject) => Reply): Promise<Reply> {
    const subject = this.#need();
    await subject.server.refresh?.();
    return answer(subject);
  }

  #metrics(): Reply {
    const { prometheus } = this.#basis;
    if (prometheus === undefined) throw new Refusal(404, "Cannot find metrics: this server counts none");
    return { status: 200, type: prometheus.contentType, body: prometheus.text() };
  }

  #report(code: number): Reply {
    return json(code, this.#need().status.now());
  }

  #set(command: "pause" | "resume"): Reply {
    const { server } = this.#need();
    // The server would ignore it, and nobody should believe that it accepts connections again.
    if (server.state === "draining" || server.state === "closed") {
      throw new Refusal(409, `Cannot ${command}: the server is ${server.state}`);
    }
    server[command]();
    return this.#report(200);
  }

  /** JSON has no `Infinity`: in limits it is `null`. Nothing changes if one of them is wrong. */
  async #patchLimits(request: Request): Promise<Reply> {
    const { server } = this.#need();
    const { limits } = server;
    const given = await readObject(request, Object.keys(limits));
    const changes = Object.entries(given).map(([name, value]) => {
      // Where the limit is no number, `null` is what it is, such as no list.
      const off = value === null && typeof limits[name as keyof typeof limits] === "number";
      return [name, off ? Infinity : value] as const;
    });
    checked(() => server.setLimits(Object.fromEntries(changes)), (message) => message.replaceAll("Infinity", "null"));
    return json(200, server.limits);
  }

  async #close(request: Request, id: number): Promise<Reply> {
    const { server } = this.#need();
    const { detail = "admin" } = await readObject(request, ["detail"]);
    checked(() => checkString("detail", detail));
    closeConnection(server, id, String(detail));
    return json(202, { id });
  }

  async #drain(request: Request): Promise<Reply> {
    const { drain } = this.#need();
    const options = await readObject(request, DRAIN_OPTIONS);
    // Only this one can be without a limit.
    if (options.drainTimeout === null) options.drainTimeout = Infinity;
    const { spread, drainTimeout } = options;
    // The drain would cut the spread short, and the caller would not notice.
    if (typeof spread === "number" && typeof drainTimeout === "number" && spread > drainTimeout) {
      const pair = `spread ${spread} with drainTimeout ${drainTimeout}`;
      throw new Refusal(400, `Cannot use ${pair}: expected a spread of at most the timeout`);
    }
    const ended = checked(() => drain(options as ShutdownOptions));
    Promise.resolve(ended).catch(() => {});
    return this.#report(202);
  }

  #need(): Subject {
    if (this.#subject !== undefined) return this.#subject;
    throw new Refusal(503, "Cannot answer yet: the server starts", { "Retry-After": "1" });
  }
}

function open(path: string, methods: Route["methods"]): Route {
  return { path: exactly(path), level: "open", methods };
}

function own(path: string | RegExp, methods: Route["methods"]): Route {
  return { path: typeof path === "string" ? exactly(path) : path, level: "token", methods };
}

function exactly(path: string): RegExp {
  return new RegExp(`^${path}$`);
}
