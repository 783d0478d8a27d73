import { assertEquals, assertMatch } from "@std/assert";
import { converse, runCommand, signalTest, startServer } from "../kit/command.ts";

const WITH_ENV = ["--allow-net", "--allow-env=SHOUTY_*"];

Deno.test("The address of a Service in a variable is a warning, and the server starts", async () => {
  const env = { SHOUTY_MAX_AGE: "tcp://10.96.0.12:8080" };
  await using server = await startServer([], { env, permissions: WITH_ENV });
  assertMatch(server.stderr, /^\S+ warn ignored SHOUTY_MAX_AGE: Kubernetes sets it to the address of a Service/);
});

Deno.test("A warning about a variable is not lost where the server cannot start", async () => {
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const env = { SHOUTY_MAX_AGE: "tcp://10.96.0.12:8080" };
  const args = ["--hostname", "127.0.0.1", "--port", `${taken.addr.port}`];
  const { code, stderr } = await runCommand(args, { env, permissions: WITH_ENV });
  assertEquals(code, 1);
  assertMatch(stderr, /warn ignored SHOUTY_MAX_AGE: .*\nshouty: cannot listen on .*: address already in use\n$/);
});

signalTest("A closed stderr does not end the server", async () => {
  await using server = await startServer(["--drain-timeout", "1s"]);
  await server.closeStderr();
  for (let i = 0; i < 3; i++) {
    assertEquals(await converse(server, "still there?\n"), "STILL THERE?\n");
    await new Promise((resolve) => setTimeout(resolve, 120)); // More than a line waits for others before it is written.
  }
  server.signal("SIGTERM");
  assertEquals((await server.outcome()).code, 0);
});

signalTest("A stderr that is not read delays neither the clients nor the end", async () => {
  await using server = await startServer();
  server.stopReadingStderr();
  // Each connection leaves some 170 bytes in the log; pipes and their readers hold some 128 KiB.
  for (let i = 0; i < 1200; i++) assertEquals(await converse(server, "a\n"), "A\n");
  server.signal("SIGTERM");
  assertEquals(await server.exitCode(), 0);
});
