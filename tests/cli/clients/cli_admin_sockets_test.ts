import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { ask, TOKEN } from "../../kit/admin/admin.ts";
import { PERMISSIONS, test } from "../../kit/admin/admin_command.ts";
import { within } from "../../kit/bounded.ts";
import { HAS_SCRIPT, listening, runCommand, startInTerminal, startServer, Subprocess } from "../../kit/command.ts";
import { missingProgram } from "../../kit/foreign/foreign.ts";
import { NO_IPV6 } from "../../kit/sockets/ipv6.ts";

const NO_UNIX = Deno.build.os === "windows" ? " (skipped: Windows has no Unix sockets in Deno)" : "";

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
