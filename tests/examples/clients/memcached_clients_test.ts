import { assertEquals } from "@std/assert";
import { serveMemcached } from "../../../examples/memcached.ts";
import { test } from "../../kit/bounded.ts";
import { Subprocess } from "../../kit/command.ts";
import { missingPackage, missingProgram, runClient } from "../../kit/foreign/foreign.ts";
import { TestServer } from "../../kit/server.ts";

const NO_MEMCCAPABLE = await missingProgram("memccapable", "-T", "none");
const NO_PACKAGE = await missingPackage("memcached@2.2.2");

async function passAll(): Promise<void> {
  await using t = new TestServer(serveMemcached, {});
  // It waits for 2 s by default, in which a busy machine may not answer.
  const args = ["-h", "127.0.0.1", "-p", `${t.port}`, "-a", "-t", "60"];
  await using process = new Subprocess("memccapable", args, { input: "" });
  const { code, stdout, stderr } = await process.outcome();
  assertEquals([code, (stdout + stderr).match(/\[pass\]/g)?.length], [0, 27], stdout + stderr);
}

async function serveClient(): Promise<void> {
  await using t = new TestServer(serveMemcached, {});
  // A dependency of the package assigns to `__proto__`.
  await using process = runClient("memcached_client.ts", t.port, "--unsafe-proto");
  const { code, stdout, stderr } = await process.outcome();
  assertEquals([code, stdout], [0, "done\n"], stderr);
}

test("memcached passes all 27 tests of libmemcached for the text protocol", passAll, 60, NO_MEMCCAPABLE);
test("memcached serves the client of npm's memcached", serveClient, 60, NO_PACKAGE);
