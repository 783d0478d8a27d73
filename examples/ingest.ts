/**
 * Writes the metrics that statsd's clients send over TCP into a SQLite database. A line is `name:value|type`, with
 * type `c` (counter), `g` (gauge) or `ms` (timer), perhaps with `|@rate`; more values of the same name follow after
 * further colons.
 *
 * Run it with a port and a file, and query that with `sqlite3 metrics.db 'SELECT * FROM metrics'`:
 * `deno run -A examples/ingest.ts 8125 metrics.db`
 *
 * ```text
 * $ nc -N 127.0.0.1 8125
 * logins:1|c|@0.1
 * users:42|g
 * answer:3.5|ms:4|ms:320|ms
 * ```
 *
 * The lines that have come together are written in one transaction. While it runs, no more is read, so that a slow
 * database slows its clients down instead of filling the memory. A shutdown writes everything that has come on open connections.
 *
 * @module
 */

import { DatabaseSync } from "node:sqlite";
import { type ConnHandler, formatAddr, serveConnections, type ServeOptions, type Server } from "@x/shouty";

const NAME = /^[^\s\p{Cc}:|@]{1,200}$/u;
const SAMPLE = /^([+-]?)(\d+(?:\.\d+)?)\|(c|g|ms)(?:\|@(\d+(?:\.\d+)?))?$/;
const BAD_LINE: Metric = { name: "ingest.bad_lines", type: "c", value: 1, rate: 1, relative: false };

/** One value of a metric. */
export interface Metric {
  name: string;
  type: string;
  value: number;
  /** The share of the events that the client reports, above 0 and up to 1. */
  rate: number;
  /** Whether the value of a gauge is added to what it was before. */
  relative: boolean;
}

/** Keeps metrics, all or none of them. What it throws ends the connection that they came from. */
export type Store = (metrics: Metric[]) => void | Promise<void>;

/** Passes the metrics of all clients on to a store. */
export function ingest(store: Store): ConnHandler {
  return async (conn) => {
    for await (const lines of conn.batches) await store(lines.flatMap(parse));
  };
}

/** Cuts a line into its metrics; one that is wrong in any part becomes a metric of its own, so that it is noticed. */
function parse(line: string): Metric[] {
  if (line === "") return [];
  const [name, ...samples] = line.split(":");
  const metrics = samples.map((sample) => {
    const [, sign, digits, type, rate = "1"] = SAMPLE.exec(sample) ?? [];
    return { name, type, value: Number(sign + digits), rate: Number(rate), relative: type === "g" && sign !== "" };
  });
  const right = NAME.test(name) && metrics.length > 0 &&
    metrics.every(({ type, value, rate }) => type && Number.isFinite(value) && rate > 0 && rate <= 1);
  return right ? metrics : [BAD_LINE];
}

/** Creates a store in a database; each call is one transaction. */
export function sqliteStore(db: DatabaseSync): Store {
  db.exec(`
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS metrics (
      at INTEGER NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL, value REAL NOT NULL, rate REAL NOT NULL,
      relative INTEGER NOT NULL
    ) STRICT;
  `);
  const insert = db.prepare("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)");
  return (metrics) => {
    const now = Date.now();
    db.exec("BEGIN IMMEDIATE");
    try {
      for (const { name, type, value, rate, relative } of metrics) {
        insert.run(now, name, type, value, rate, Number(relative));
      }
      db.exec("COMMIT");
    } catch (error) {
      db.exec("ROLLBACK");
      throw error;
    }
  };
}

/** Serves a store on loopback; the options go to the server. */
export function serveIngest(
  options: ServeOptions = {},
  store: Store = sqliteStore(new DatabaseSync(":memory:")),
): Server {
  // Clients keep their connections for as long as they run, and do not read.
  const timeouts = { idleTimeout: 3_600_000, lineTimeout: 10_000 };
  const limits = { ...timeouts, maxLineBytes: 8192, lastWords: () => null };
  return serveConnections({ hostname: "127.0.0.1", drain: "finish", ...limits, ...options }, ingest(store));
}

if (import.meta.main) {
  // Waits up to 5 s for another program that writes to the database.
  const db = new DatabaseSync(Deno.args[1] ?? "metrics.db", { timeout: 5000 });
  const server = serveIngest({ port: Number(Deno.args[0] ?? 8125) }, sqliteStore(db));
  console.error(`listening on ${formatAddr(server.addr)}`);
  const signals = Deno.build.os === "windows" ? ["SIGINT"] as const : ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) Deno.addSignalListener(signal, () => server.shutdown());
  await server.finished;
  db.close();
  Deno.exit();
}
