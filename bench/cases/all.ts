// Every case and every server, and which of them stand for the others where time is short.

import { type Case, CASES } from "./cases.ts";
import { GARBAGE_CASES } from "./garbage.ts";
import { SECURE_CASES } from "./secure_cases.ts";
import { SECURE_SERVERS } from "../servers/secure_servers.ts";
import { SERVERS, type ServerSpec } from "../servers/servers.ts";

/** Every case, in the order of the table. */
export const ALL_CASES: Case[] = [...CASES, ...SECURE_CASES, ...GARBAGE_CASES];

/** Every server, in the order of the table. */
export const ALL_SERVERS: ServerSpec[] = [...SERVERS, ...SECURE_SERVERS];

/** What `--quick` measures. */
export const QUICK: { cases: string[]; servers: string[] } = {
  cases: [
    ...["single", "pipeline", "bulk", "churn", "memory", "unix-single", "tls-single", "tls-record", "tls-churn"],
    ...["tls-resumed", "garbage-line", "garbage-conn"],
  ],
  servers: [
    ...["shouty", "deno", "lines", "handler", "go", "c", "node", "unix-deno", "unix-go"],
    ...["tls", "tls-deno", "tls-go", "tls-node"],
  ],
};

/** What `--against` compares unless cases or servers are named: each part of the server is in one of them. */
export const AGAINST: { cases: string[]; servers: string[] } = {
  cases: [
    ...["single", "pipeline", "bulk", "redis-pipeline", "churn", "memory", "unix-single", "tls-single", "tls-record"],
    ...["tls-churn", "garbage-line", "garbage-conn"],
  ],
  servers: ["shouty", "deno", "lines-epoll", "handler", "redis", "unix-deno", "tls"],
};

/** The servers that are shouty: the only ones that another revision may change. */
export function isOwn({ name, source }: ServerSpec): boolean {
  return !/^(redis-raw|naive)$/.test(name) && !/peers\/(?!shouty|redis\/redis_epoll)/.test(source);
}

/** Tells whether a server takes part in a case. */
export function takesPart(test: Case, spec: ServerSpec): boolean {
  return test.protocol === spec.protocol && test.allCores === spec.allCores &&
    (test.servers?.includes(spec.name) ?? true);
}
