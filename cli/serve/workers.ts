/**
 * Serves with several workers, for the command.
 *
 * @module
 */

import { isIP } from "node:net";
import type { ServerEvent } from "../../internal/api/events.ts";
import { count } from "../../internal/api/errors.ts";
import { formatAddr } from "../../internal/api/transport.ts";
import type { ServerMetrics } from "../../ops/metrics/metrics.ts";
import type { WorkerEvent } from "../../ops/workers/options.ts";
import type { TlsCredentials } from "../../ops/tls/credentials.ts";
import { serveWorkers } from "../../ops/workers/workers.ts";
import type { WorkersServer } from "../../ops/workers/workers_server.ts";
import { CommandError, reasonOf } from "../system/errors.ts";
import type { SERVE } from "../flags/flags.ts";
import { bindFirst, type ListenFlags, type Opened } from "./listen.ts";
import type { Target } from "../flags/kinds.ts";
import type { Level, Log } from "../log/log.ts";
import { failed, formatTarget } from "../system/net.ts";
import type { Values } from "../line/parse.ts";
import { canProxy, type Place, placesOf } from "../line/places.ts";
import { loadSecurity } from "./tls.ts";
import type { Work } from "./worker.ts";

/** The module that each worker runs. */
const MODULE = new URL("./worker.ts", import.meta.url);

/** Where that module and all that it imports are. */
const SOURCES = ["cli/serve/worker.ts", "cli/serve/wrap.ts", "conn.ts", "internal", "ops", "server.ts"];

/** The values of the flags with which the command serves. */
export type ServeValues =
  & ListenFlags
  & Omit<Values<typeof SERVE.flags>, "logLevel" | "logFormat" | "logSample" | "listenFd">;

/** What the command has opened before. */
export interface Surroundings {
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly onEvent: (event: ServerEvent) => void;
  /** Counts the events. */
  readonly metrics: ServerMetrics | undefined;
  /** Gets the addresses that speak TLS. */
  readonly secure: Set<string>;
}

/** A server with several workers. */
export interface WorkersRunning extends Pick<Opened, "reload"> {
  readonly server: WorkersServer;
}

/**
 * Serves with workers wherever the flags say.
 *
 * @param flags The flags' values.
 * @param given The options that the user has set.
 * @param around The log and the hooks.
 * @returns The server, in which all workers serve.
 * @throws {CommandError} (As a rejection.) If listening fails anywhere, or a worker cannot be started.
 */
export async function serveByWorkers(
  flags: ServeValues,
  given: ReadonlySet<string>,
  around: Surroundings,
): Promise<WorkersRunning> {
  requireModules();
  const { log, signal, onEvent, secure } = around;
  const places = placesOf(flags, given);
  const targets: Target[] = [];
  for (const { port } of places) {
    const target = { hostname: flags.hostname, port: port! };
    targets.push(await bindFirst(target, flags, (address) => probe(address, flags.engine)));
  }
  const work = (files: TlsCredentials | null): Work => ({ flags: pick(flags), places: worksOf(places, flags), files });
  const passOn = (files: TlsCredentials) => server.reload(work(files));
  const security = flags.tlsCert === null ? undefined : await loadSecurity(flags, log, passOn);
  const addrs = places.values();
  const server: WorkersServer = await started(targets.map(formatTarget).join(" and "), () =>
    serveWorkers({
      ...{ ...flags, workers: flags.workers!, module: MODULE, places: targets, signal, onEvent },
      data: work(security?.files ?? null),
      onListen: (addr) => addrs.next().value?.tls && secure.add(formatAddr(addr)),
      onWorker: (event) => reportWorker(log, event),
    }));
  return { server, reload: security?.reload };
}

async function started<T>(address: string, start: () => Promise<T>): Promise<T> {
  try {
    return await start();
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) throw failed("listen on", address, error);
    throw new CommandError(`cannot start a worker: ${reasonOf(error)}`, 1);
  }
}

/**
 * Tries an address, before all workers do. On Deno's sockets they need the permission for what was bound, in place of that
 * for a name or for port 0: without it, Deno would prompt on a terminal.
 */
function probe(target: Target, engine: ServeValues["engine"]): Target {
  using listener = Deno.listen(target);
  if (engine === "epoll") return target;
  const { hostname, port } = listener.addr as Deno.NetAddr;
  const bound = isIP(target.hostname) ? target : { ...target, hostname };
  const host = formatTarget({ ...bound, port });
  if (Deno.permissions.querySync({ name: "net", host }).state === "granted") return bound;
  const flag = target.port === 0 ? bound.hostname : host;
  throw new Error(`no permission for the workers to use ${host}, which --allow-net=${flag} grants`);
}

/** A worker would be refused its modules; Deno would prompt for the permission on a terminal. */
function requireModules(): void {
  if (MODULE.protocol !== "file:") return;
  const paths = SOURCES.map((path) => new URL(`../../${path}`, import.meta.url));
  if (paths.every((path) => Deno.permissions.querySync({ name: "read", path }).state === "granted")) return;
  throw new CommandError("cannot start a worker: no permission to read its modules, which --allow-read grants", 1);
}

/** The flags about listening. The others may hold what cannot be sent. */
function pick({ proxyHeaderTimeout, proxyProtocol, telnet, tlsHandshakeTimeout }: ServeValues): Work["flags"] {
  return { proxyHeaderTimeout, proxyProtocol, telnet, tlsHandshakeTimeout };
}

function worksOf(places: readonly Place[], { proxyProtocol }: ServeValues): Work["places"] {
  return places.map((place) => ({
    tls: place.tls,
    proxied: proxyProtocol !== null && canProxy(proxyProtocol, place),
  }));
}

type EventOf<Type> = Extract<WorkerEvent, { type: Type }>;

/** How each type of event is logged: its level, its text, and its fields in JSON. */
const REPORTS: { readonly [Type in WorkerEvent["type"]]: (event: EventOf<Type>) => [Level, string, object] } = {
  "worker-started": ({ worker, crashes }) => {
    const [level, again] = crashes > 0 ? ["info" as const, " again"] : ["debug" as const, ""];
    return [level, `worker ${worker} serves${again}`, { worker, crashes }];
  },
  "worker-crashed": ({ worker, error, lost, retryMs }) => {
    const next = retryMs === undefined ? "" : `, next one in ${retryMs} ms`;
    const text = `worker ${worker} crashed (${count(lost, "connection")} lost${next}): ${reasonOf(error)}`;
    return ["error", text, { worker, error: reasonOf(error), lost, retryMs }];
  },
  "worker-stopped": ({ worker, accepted, lines }) => {
    const text = `worker ${worker} stopped (${count(accepted, "connection")}, ${count(lines, "line")})`;
    return ["debug", text, { worker, accepted, lines }];
  },
  "workers-alone": ({ problem }) => {
    return ["warn", `one worker serves alone, as several cannot share a port: ${problem}`, { error: problem }];
  },
};

/** Logs an event of a worker. */
export function reportWorker(log: Log, event: WorkerEvent): void {
  const [level, text, fields] = (REPORTS[event.type] as (event: WorkerEvent) => [Level, string, object])(event);
  log.write(level, event.type, () => text, () => ({ ...fields }));
}
