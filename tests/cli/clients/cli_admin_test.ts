import { assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { ask, TOKEN } from "../../kit/admin/admin.ts";
import { PERMISSIONS, start, test } from "../../kit/admin/admin_command.ts";
import { NO_SIGNALS, runCommand, startServer, type Subprocess } from "../../kit/command.ts";

async function ended(server: Subprocess): Promise<number> {
  if (NO_SIGNALS === "") server.signal("SIGTERM");
  else server[Symbol.asyncDispose]();
  return (await server.outcome()).code;
}

test("The command opens an admin port, which outlives its permissions, and logs where", async () => {
  const { server, addr } = await start();
  await using _ = server;
  assertEquals((await ask(addr, "GET /readyz")).body, "ready\n");
  assertMatch(server.stderr, /^\S+ info admin on 127\.0\.0\.1:\d+\n\S+ info listening on 127\.0\.0\.1:\d+\n$/);
  const { status, body } = await ask(addr, "GET /metrics");
  assertEquals(status, 200);
  assertStringIncludes(body, "\nshouty_lines_total 0\n");
  assertMatch((await ask(addr, "GET /")).body, /^<!doctype html>/i);
  if (NO_SIGNALS === "") assertEquals(await ended(server), 0);
});

test("A drain over HTTP ends the command as SIGTERM does, and the admin port answers until then", async () => {
  const { server, addr } = await start(["--drain-timeout", "60s", "--log-level", "debug"]);
  await using _ = server;
  using client = await Deno.connect({ port: server.port });
  await server.stderrMatch(/accepted/);
  const { status, body } = await ask(addr, "POST /drain");
  assertEquals([status, JSON.parse(body).state], [202, "draining"]);
  await server.stderrMatch(/debug received POST \/drain\n.*info shutting down\n/);
  for (let i = 0; i < 3; i++) {
    const { status, body } = await ask(addr, "GET /readyz");
    assertEquals([status, body], [503, "not ready: draining\n"]);
  }
  assertEquals((await ask(addr, "GET /healthz")).body, "ok\n");
  await client.write(new TextEncoder().encode("bye\n"));
  await client.closeWrite();
  assertEquals(await new Response(client.readable).text(), "BYE\n");
  const { code, stderr } = await server.outcome();
  assertEquals(code, 0);
  assertMatch(stderr, /info all connections closed\n$/);
  await assertRejects(() => ask(addr, "GET /healthz"), Deno.errors.ConnectionRefused);
});

test("A drain without connections is answered before the command ends", async () => {
  const { server, addr } = await start();
  await using _ = server;
  assertEquals((await ask(addr, "POST /drain")).status, 202);
  assertEquals((await server.outcome()).code, 0);
});

test("In lame duck, the command is not ready and still serves", async () => {
  const { server, addr } = await start(["--drain-delay", "60s"]);
  await using _ = server;
  assertEquals((await ask(addr, "POST /drain")).status, 202);
  assertEquals((await ask(addr, "GET /readyz")).body, "not ready: lame duck\n");
  using client = await Deno.connect({ port: server.port });
  await client.write(new TextEncoder().encode("still?\n"));
  await client.closeWrite();
  assertEquals(await new Response(client.readable).text(), "STILL?\n");
  assertEquals((await ask(addr, "POST /drain", { body: '{"delay":0}' })).status, 202);
  assertEquals((await server.outcome()).code, 0);
});

test("The token is in no log line, error or answer", async () => {
  const file = await Deno.makeTempFile();
  await Deno.writeTextFile(file, `${TOKEN}\n`);
  for (
    const [args, env] of [
      [["--admin-token-file", file], {}],
      [[], { SHOUTY_ADMIN_TOKEN: TOKEN }],
      [[], { SHOUTY_ADMIN_TOKEN_FILE: file, SHOUTY_ADMIN_TOKEN: "another-one-entirely" }],
    ] as [string[], Record<string, string>][]
  ) {
    const { server, addr, at } = await start(["--log-level", "debug", ...args], env);
    await using _ = server;
    await server.stderrMatch(/debug options are .*"admin"/);
    const answers = [
      await ask(addr, "GET /status"),
      await ask(addr, "GET /status", { token: TOKEN }),
      await ask(addr, "GET /status", { token: `${TOKEN}x` }),
      await ask(addr, "GET /limits", { token: TOKEN }),
      await ask(addr, "GET /connections?sort=x", { token: TOKEN }),
      await ask(addr, "GET /metrics", { token: TOKEN }),
      await ask(addr, "GET /"),
      await ask(addr, "POST /login", { body: `token=${TOKEN}` }),
      await ask(addr, "POST /login", { body: `token=${TOKEN}x` }),
    ];
    assertEquals(answers.map(({ status }) => status), [401, 200, 401, 200, 400, 200, 200, 204, 401]);
    const told = answers.map(({ headers, body }) => JSON.stringify([...headers]) + body).join("");
    const options = { permissions: PERMISSIONS, env: { ...env, SHOUTY_ADMIN: at } };
    const clients = [
      await runCommand(["admin", "status", ...args], options),
      await runCommand(["admin", "status", "--json", ...args], options),
      await runCommand(["admin", "close", "7", ...args], options),
    ];
    assertEquals(clients.map(({ code }) => code), [0, 0, 1]);
    if (NO_SIGNALS === "") await ended(server);
    const all = told + server.stdout + server.stderr + clients.map(({ stdout, stderr }) => stdout + stderr).join("");
    assertEquals(all.includes(TOKEN), false);
  }
  await Deno.remove(file);
});

test("The command words in one line why it opens no admin port", async () => {
  const file = await Deno.makeTempFile();
  const says = async (code: number, args: string[], expected: string, env: Record<string, string> = {}) => {
    const command = ["--hostname", "127.0.0.1", "--port", "0", ...args];
    const outcome = await runCommand(command, { permissions: PERMISSIONS, env });
    assertEquals([outcome.stderr, outcome.code], [`shouty: ${expected}\n`, code]);
  };
  const needs = "without a token: expected --admin-token-file, or SHOUTY_ADMIN_TOKEN, or a loopback address";
  await says(2, ["--admin", "0.0.0.0:0"], `cannot use --admin 0.0.0.0:0 ${needs}`);
  await says(2, ["--admin", "[::]:0"], `cannot use --admin [::]:0 ${needs}`);
  const expected =
    "expected a host and a port, such as 127.0.0.1:9090 or [::1]:9090, or unix: and the path of a socket, or off";
  await says(2, ["--admin", "9090"], `cannot use --admin "9090": ${expected}`);
  await says(2, [], `cannot use SHOUTY_ADMIN "on": ${expected}`, { SHOUTY_ADMIN: "on" });
  await says(2, ["--admin-token-file", file], "cannot use --admin-token-file without --admin: expected both");
  await says(2, ["--admin-host", "a.example"], "cannot use --admin-host without --admin: expected both");
  const token = "expected 16 to 1024 visible characters of ASCII";
  const variable = { SHOUTY_ADMIN_TOKEN: "se cret" };
  await says(2, ["--admin", "127.0.0.1:0"], `cannot use SHOUTY_ADMIN_TOKEN: ${token}`, variable);
  const withFile = ["--admin", "127.0.0.1:0", "--admin-token-file", file];
  await says(2, withFile, `cannot use --admin-token-file "${file}": ${token}`);
  await Deno.writeTextFile(file, "se\ncret-secret-secret-secret");
  await says(2, withFile, `cannot use --admin-token-file "${file}": ${token}`);
  await Deno.writeTextFile(file, "x".repeat(4 * 1024 * 1024 + 1));
  await says(1, withFile, `cannot read --admin-token-file "${file}": it is larger than 4 MiB`);
  await Deno.remove(file);
  await says(1, withFile, `cannot read --admin-token-file "${file}": no such file or directory`);
  const named = { SHOUTY_ADMIN_TOKEN_FILE: file };
  await says(
    1,
    ["--admin", "127.0.0.1:0"],
    `cannot read SHOUTY_ADMIN_TOKEN_FILE "${file}": no such file or directory`,
    named,
  );
  await says(2, [], `cannot use SHOUTY_ADMIN 0.0.0.0:0 ${needs}`, { SHOUTY_ADMIN: "0.0.0.0:0" });
  const { server, at } = await start();
  await using _ = server;
  await says(1, ["--admin", at], `cannot open the admin port on ${at}: address already in use`);
  // A server that cannot listen leaves no admin port behind.
  const taken = ["--hostname", "127.0.0.1", "--admin", "127.0.0.1:0", "--port", `${server.port}`];
  const { code, stderr } = await runCommand(taken, { permissions: PERMISSIONS });
  assertEquals(code, 1);
  assertMatch(stderr, /info admin on .*\nshouty: cannot listen on 127\.0\.0\.1:\d+: address already in use\n$/);
});

test("A token opens the port to the network", async () => {
  const env = { SHOUTY_ADMIN_TOKEN: TOKEN };
  const args = ["--admin", "0.0.0.0:0", "--admin-host", "admin.example"];
  await using server = await startServer(args, { permissions: PERMISSIONS, env });
  const [, port] = await server.stderrMatch(/ info admin on 0\.0\.0\.0:(\d+)\n/);
  const addr = { transport: "tcp", hostname: "127.0.0.1", port: Number(port) } as const;
  assertEquals((await ask(addr, "GET /readyz", { host: "admin.example" })).status, 200);
  assertEquals((await ask(addr, "GET /readyz", { host: "evil.example" })).status, 403);
  assertEquals((await ask(addr, "GET /status", { token: TOKEN })).status, 200);
});
