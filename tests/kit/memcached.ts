/**
 * The memcached of the examples under test.
 *
 * @module
 */

import type { ServeOptions, Server } from "@x/shouty";
import { serveMemcached } from "../../examples/memcached.ts";
import { TestServer } from "./server.ts";

/** Starts a memcached; without options on a free port of the loopback. */
export function start(options: ServeOptions = {}): TestServer {
  return new TestServer((options): Server => serveMemcached(options), options);
}
