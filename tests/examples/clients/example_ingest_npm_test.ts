/** The ingester of metrics with a client of another make: hot-shots, over TCP. */

import { assertEquals } from "@std/assert";
import { type Metric, serveIngest } from "../../../examples/ingest.ts";
import { test } from "../../kit/bounded.ts";
import { load } from "../../kit/foreign/npm.ts";
import { TestServer } from "../../kit/server.ts";

/** The part of hot-shots that the test uses. */
interface StatsD {
  increment(name: string, value?: number, rate?: number): void;
  gauge(name: string, value: number): void;
  gaugeDelta(name: string, value: number): void;
  timing(name: string, ms: number): void;
  close(done: (error?: Error) => void): void;
}

type HotShots = { default: new (options: Record<string, unknown>) => StatsD };

const { module, missing } = await load<HotShots>("npm:hot-shots@17.1.1");

for (const maxBufferSize of [0, 1000]) {
  test(
    `ingest stores what hot-shots sends, with a buffer of ${maxBufferSize} bytes`,
    async () => {
      const metrics: Metric[] = [];
      await using t = new TestServer((options) => serveIngest(options, (batch) => void metrics.push(...batch)), {});
      const errors: Error[] = [];
      const errorHandler = (error: Error) => errors.push(error);
      const address = { protocol: "tcp", host: "127.0.0.1", port: t.port };
      const client = new module.default({ ...address, maxBufferSize, errorHandler });
      client.increment("logins");
      client.increment("hits", 3, 1);
      client.gauge("users", 42.5);
      client.gaugeDelta("users", -3);
      client.timing("answer", 320);
      for (let i = 0; i < 500; i++) client.increment("many", i);
      await new Promise<void>((resolve, reject) => client.close((error) => error ? reject(error) : resolve()));
      await t.closed();
      assertEquals(errors, []);
      const lines = metrics.map(({ name, type, value, relative }) =>
        `${name} ${type} ${relative ? "by " : ""}${value}`
      );
      const many = Array.from({ length: 500 }, (_, i) => `many c ${i}`);
      assertEquals(lines, ["logins c 1", "hits c 3", "users g 42.5", "users g by -3", "answer ms 320", ...many]);
    },
    60,
    missing,
  );
}
