import { assertEquals, assertMatch } from "@std/assert";
import { serve } from "@x/shouty";
import { serveByteProxy } from "../../../examples/byte_proxy.ts";
import { serveRedis } from "../../../examples/redis.ts";
import { test } from "../../kit/bounded.ts";
import { Subprocess } from "../../kit/command.ts";
import { missingPackage, missingProgram, runClient } from "../../kit/foreign/foreign.ts";
import { startConversations, TestServer } from "../../kit/server.ts";

const NO_BENCHMARK = await missingProgram("redis-benchmark", "--version");
const NO_PACKAGE = await missingPackage("ioredis@5.8.2");
const NO_SOCAT = await missingProgram("socat", "-V");
/** Other programs of the name do not know `-N`, with which OpenBSD's ends its side at the end of its input. */
const NO_NC = await missingProgram("nc", "-h") || await lacksN();

async function lacksN(): Promise<string> {
  const { stdout, stderr } = await new Deno.Command("nc", { args: ["-h"], stdin: "null" }).output();
  const help = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  return /^\s+-N\s/m.test(help) ? "" : " (skipped: nc does not know -N)";
}

function proxyTo({ port }: TestServer): TestServer {
  return new TestServer((options) => serveByteProxy({ port }, options), {});
}

async function serveBenchmark(...load: string[]): Promise<void> {
  await using redis = new TestServer(serveRedis, {});
  await using proxy = proxyTo(redis);
  const args = ["-h", "127.0.0.1", "-p", `${proxy.port}`, "-t", "ping,set,get", "-q", ...load];
  await using process = new Subprocess("redis-benchmark", args, { input: "" });
  const { code, stdout, stderr } = await process.outcome();
  assertEquals(code, 0, stdout + stderr);
  for (const name of ["PING_INLINE", "PING_MBULK", "SET", "GET"]) {
    assertMatch(stdout, new RegExp(`(^|\\r)${name}: [\\d.]+ requests per second`, "m"));
  }
}

async function serveClient(): Promise<void> {
  await using redis = new TestServer(serveRedis, {});
  await using proxy = proxyTo(redis);
  await using process = runClient("ioredis_client.ts", proxy.port);
  const { code, stdout, stderr } = await process.outcome();
  assertEquals([code, stdout], [0, "done\n"], stderr);
}

/** A program sends a question and ends its side; the target answers then, and not before. */
async function answerTheEnd(program: string, args: (port: number) => string[]): Promise<void> {
  await using target = startConversations({}, async (conn) => {
    const question = await new Response(conn.readable).text();
    await conn.write(`${question.length} characters\n`);
  });
  await using proxy = proxyTo(target);
  await using process = new Subprocess(program, args(proxy.port), { input: "x".repeat(1_000_000) });
  const { code, stdout } = await process.outcome();
  assertEquals([code, stdout], [0, "1000000 characters\n"]);
  assertEquals((await proxy.closed()).reason, "end");
}

async function shoutThrough(program: string, args: (port: number) => string[]): Promise<void> {
  await using target = new TestServer(serve, {});
  await using proxy = proxyTo(target);
  await using process = new Subprocess(program, args(proxy.port));
  await process.type("hello\n");
  await process.stdoutMatch(/^HELLO\n/);
  await process.type("bye");
  await process.endInput();
  assertEquals(await process.outcome(), { code: 0, stdout: "HELLO\nBYE\n", stderr: "" });
}

const socat = (port: number) => ["-t", "60", "-", `TCP:127.0.0.1:${port}`];
const nc = (port: number) => ["-N", "127.0.0.1", `${port}`];

test("byte_proxy serves redis-benchmark", () => serveBenchmark("-n", "1000", "-c", "20"), 60, NO_BENCHMARK);
test(
  "byte_proxy serves redis-benchmark, 16 commands at a time",
  () => {
    return serveBenchmark("-n", "1000", "-c", "20", "-P", "16");
  },
  60,
  NO_BENCHMARK,
);
test(
  "byte_proxy serves redis-benchmark with values of 1 MiB",
  () => {
    return serveBenchmark("-n", "50", "-c", "5", "-d", `${1024 * 1024}`);
  },
  60,
  NO_BENCHMARK,
);
test("byte_proxy serves the client of npm's ioredis, with channels", serveClient, 60, NO_PACKAGE);
test(
  "byte_proxy brings the answer to a socat that has ended its side",
  () => answerTheEnd("socat", socat),
  60,
  NO_SOCAT,
);
test("byte_proxy brings the answer to an nc that has ended its side", () => answerTheEnd("nc", nc), 60, NO_NC);
test("byte_proxy passes on what is typed into socat", () => shoutThrough("socat", socat), 60, NO_SOCAT);
test("byte_proxy passes on what is typed into nc", () => shoutThrough("nc", nc), 60, NO_NC);
