import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { ask, TOKEN } from "../../kit/admin/admin.ts";
import { PERMISSIONS, start, test } from "../../kit/admin/admin_command.ts";
import { within } from "../../kit/bounded.ts";
import {
  HAS_SCRIPT,
  listening,
  NO_SIGNALS,
  runCommand,
  startInTerminal,
  startServer,
  Subprocess,
} from "../../kit/command.ts";
import { missingProgram } from "../../kit/foreign/foreign.ts";
import { NO_IPV6 } from "../../kit/sockets/ipv6.ts";

const NO_UNIX = Deno.build.os === "windows" ? " (skipped: Windows has no Unix sockets in Deno)" : "";

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

test("The admin port of the command, and its client, use a Unix socket", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/admin.sock`;
  const only = ["--allow-net", `--allow-read=${path}`, `--allow-write=${path}`];
  {
    await using server = await startServer(["--admin", `unix:${path}`], { permissions: only });
    assertMatch(server.stderr, new RegExp(` info admin on unix:${path}\n`));
    assertEquals((await Deno.lstat(path)).mode! & 0o777, 0o600);
    const { code, stdout } = await runCommand(["admin", "status", "--admin", `unix:${path}`], { permissions: only });
    assertEquals(code, 0);
    assertMatch(stdout, /\nstate {8}ready\n/);
    server.signal("SIGTERM");
    assertEquals((await server.outcome()).code, 0);
    await assertRejects(() => Deno.lstat(path), Deno.errors.NotFound);
  }
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const args = ["--hostname", "127.0.0.1", "--port", `${taken.addr.port}`, "--admin", `unix:${path}`];
  assertEquals((await runCommand(args, { permissions: only })).code, 1);
  await assertRejects(() => Deno.lstat(path), Deno.errors.NotFound);
  const missing = await runCommand(["--port", "0", "--admin", `unix:${path}`], { permissions: ["--allow-net"] });
  const grants = `which --allow-read=${path} --allow-write=${path} grants`;
  const expected = `cannot open the admin port on unix:${path}: no permission to read and write it, ${grants}`;
  assertEquals([missing.code, missing.stderr], [1, `shouty: ${expected}\n`]);
  await Deno.remove(folder, { recursive: true });
}, NO_UNIX);

const NO_TERMINAL = HAS_SCRIPT ? "" : " (skipped: util-linux's script is not installed)";

for (const what of ["a Unix socket", "a TCP port"]) {
  test(
    `On a terminal, the admin port at ${what} goes on without a question after the permissions were given up`,
    async () => {
      const folder = await Deno.makeTempDir();
      const path = `${folder}/admin.sock`;
      const unix = what === "a Unix socket";
      const args = ["--hostname", "127.0.0.1", "--port", "0", "--admin", unix ? `unix:${path}` : "127.0.0.1:0"];
      await using server = startInTerminal(["run", "-A", "mod.ts", ...args]);
      const [, port] = await server.stdoutMatch(/admin on \S+?(?::(\d+))?\r\n/);
      await server.stdoutMatch(/listening on/);
      const addr: Deno.Addr = unix
        ? { transport: "unix", path }
        : { transport: "tcp", hostname: "127.0.0.1", port: Number(port) };
      // The port has told Deno twice to go on accepting by then. A question would end the answers.
      const status = () => within(20, ask(addr, "GET /status", unix ? { host: "localhost" } : {}));
      while (JSON.parse((await status()).body).uptimeMs < 2500);
      await server.type("\x03");
      const { code, stdout } = await server.outcome();
      assertEquals([code, stdout.includes("Deno requests")], [0, false]);
      await Deno.remove(folder, { recursive: true });
    },
    NO_TERMINAL,
  );
}

const NO_ULIMIT = Deno.build.os === "windows" ? " (skipped: Windows has no limit of descriptors)" : "";

test("The admin port answers again after the process was out of descriptors", async () => {
  const args = "run -A mod.ts --hostname 127.0.0.1 --port 0 --admin 127.0.0.1:0";
  await using server = await listening(
    new Subprocess("sh", ["-c", `ulimit -n 60; exec "${Deno.execPath()}" ${args}`]),
  );
  const port = Number(/admin on 127\.0\.0\.1:(\d+)/.exec(server.stderr)?.[1]);
  const addr = { transport: "tcp", hostname: "127.0.0.1", port } as const;
  const clients = await Promise.all(Array.from({ length: 80 }, () => Deno.connect({ port: server.port })));
  await server.stderrMatch(/cannot accept/);
  // The port fails to accept it: there is no descriptor for it either.
  const early = ask(addr, "GET /healthz").catch(() => {});
  await server.stderrMatch(/cannot accept.*in 320 ms/);
  for (const client of clients) client.close();
  assertEquals((await within(60, ask(addr, "GET /healthz"))).body, "ok\n");
  await early;
}, NO_ULIMIT);

const NO_CURL = await missingProgram("curl", "--version");

test("curl asks the admin port over IPv4, a Unix socket, and IPv6 where there is any", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/admin.sock`;
  const curl = async (...args: string[]) => {
    const options = { args: ["--silent", "--max-time", "30", "--write-out", " %{http_code}", ...args] };
    return new TextDecoder().decode((await new Deno.Command("curl", options).output()).stdout);
  };
  for (const place of ["127.0.0.1:0", `unix:${path}`, ...NO_IPV6 === "" ? ["[::1]:0"] : []]) {
    const env = { SHOUTY_ADMIN_TOKEN: TOKEN };
    await using server = await startServer(["--admin", place], { permissions: PERMISSIONS, env });
    const [, at] = await server.stderrMatch(/ info admin on (\S+)\n/);
    const base = at.startsWith("unix:") ? ["--unix-socket", path] : [];
    const url = at.startsWith("unix:") ? "http://localhost" : `http://${at}`;
    const header = ["--header", `Authorization: Bearer ${TOKEN}`];
    assertEquals(await curl(...base, `${url}/readyz`), "ready\n 200");
    assertMatch(await curl(...base, `${url}/limits`), /without the token"\}\n 401$/);
    assertMatch(await curl(...base, ...header, `${url}/limits`), / 200$/);
    const patch = ["--request", "PATCH", "--data", '{"maxConnections":12}', "--header", "Expect: 100-continue"];
    assertMatch(await curl(...base, ...header, ...patch, `${url}/limits`), /"maxConnections":12,.* 200$/s);
    assertMatch(await curl(...base, ...header, "--request", "POST", `${url}/drain`), /"draining".* 202$/s);
    const { code } = await server.outcome();
    assert(code === 0);
  }
  await Deno.remove(folder, { recursive: true });
}, NO_UNIX || NO_CURL);
