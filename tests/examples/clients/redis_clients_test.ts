import { assertEquals, assertMatch } from "@std/assert";
import { serveRedis } from "../../../examples/redis.ts";
import { test } from "../../kit/bounded.ts";
import { Subprocess } from "../../kit/command.ts";
import { missingPackage, missingProgram, runClient } from "../../kit/foreign/foreign.ts";
import { TestServer } from "../../kit/server.ts";

const NO_CLI = await missingProgram("redis-cli", "--version");
const NO_BENCHMARK = await missingProgram("redis-benchmark", "--version");
const NO_PACKAGE = await missingPackage("ioredis@5.8.2");

/** Commands as a user types them, and what is shown. */
const SESSION = {
  [`SET greeting "hello\\r\\nworld \\xff" EX 60`]: ["OK"],
  "GET greeting": [`"hello\\r\\nworld \\xff"`],
  "INCR n": ["(integer) 1"],
  "MGET n none": [`1) "1"`, "2) (nil)"],
  "SET n 1 NX": ["(nil)"],
  "HELLO 3": ["(error) NOPROTO unsupported protocol version"],
  "PUBLISH news x": ["(integer) 0"],
  "KEYS *": [`1) "greeting"`, `2) "n"`],
};

async function serveCli(): Promise<void> {
  await using t = new TestServer(serveRedis, {});
  const input = Object.keys(SESSION).map((line) => `${line}\n`).join("");
  const args = ["-h", "127.0.0.1", "-p", `${t.port}`, "--no-raw"];
  await using process = new Subprocess("redis-cli", args, { input });
  const { code, stdout } = await process.outcome();
  assertEquals(code, 0);
  assertEquals(stdout.split("\n").map((line) => line.trim()).filter(Boolean), Object.values(SESSION).flat());
}

async function pushToCli(): Promise<void> {
  await using t = new TestServer(serveRedis, {});
  const args = ["-h", "127.0.0.1", "-p", `${t.port}`, "SUBSCRIBE", "news"];
  await using process = new Subprocess("redis-cli", args);
  await process.stdoutMatch(/subscribe\nnews\n1\n/);
  assertEquals(await t.talk("PUBLISH news hello\r\n"), ":1\r\n");
  await process.stdoutMatch(/message\nnews\nhello\n/);
}

async function serveBenchmark(pipeline: number): Promise<void> {
  await using t = new TestServer(serveRedis, {});
  const load = ["-t", "ping,set,get,incr,mset", "-n", "1000", "-c", "20", "-P", `${pipeline}`, "-q"];
  await using process = new Subprocess("redis-benchmark", ["-h", "127.0.0.1", "-p", `${t.port}`, ...load], {
    input: "",
  });
  const { code, stdout, stderr } = await process.outcome();
  assertEquals(code, 0, stdout + stderr);
  for (const name of ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET \\(10 keys\\)"]) {
    assertMatch(stdout, new RegExp(`(^|\\r)${name}: [\\d.]+ requests per second`, "m"));
  }
  // The last pipelines are finished, so it may have counted further than asked.
  assertMatch(await t.talk("GET counter:__rand_int__\r\n"), /^\$4\r\n1\d{3}\r\n$/);
}

async function serveClient(): Promise<void> {
  await using t = new TestServer(serveRedis, {});
  await using process = runClient("ioredis_client.ts", t.port);
  const { code, stdout, stderr } = await process.outcome();
  assertEquals([code, stdout], [0, "done\n"], stderr);
}

test("redis serves redis-cli", serveCli, 60, NO_CLI);
test("redis pushes to a redis-cli that listens", pushToCli, 60, NO_CLI);
test("redis serves redis-benchmark, one command at a time", () => serveBenchmark(1), 60, NO_BENCHMARK);
test("redis serves redis-benchmark, 16 commands at a time", () => serveBenchmark(16), 60, NO_BENCHMARK);
test("redis serves the client of npm's ioredis", serveClient, 60, NO_PACKAGE);
