import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { TestClient } from "@x/shouty/testing";
import { runCommand, startCommand, type Subprocess } from "../../kit/command.ts";

const MISSING = Deno.build.os === "windows" ? " (skipped: Windows has no Unix sockets in Deno)" : "";

/** Registers a test that gets a path in a new folder. */
function test(name: string, fn: (path: string) => Promise<void>): void {
  const body = async () => {
    const folder = await Deno.makeTempDir();
    try {
      await fn(`${folder}/shouty.sock`);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  };
  Deno.test({ name: name + MISSING, ignore: MISSING !== "", fn: body });
}

/** The permissions that listening on a socket file needs. */
function permissionsFor(path: string): string[] {
  return [`--allow-net=unix:${path}`, `--allow-read=${path}`, `--allow-write=${path}`];
}

function start(path: string, ...args: string[]): Subprocess {
  return startCommand(["--unix", path, ...args], { permissions: permissionsFor(path) });
}

async function talk(path: string, line: string): Promise<string | null> {
  using client = new TestClient(await Deno.connect({ transport: "unix", path }));
  await client.write(`${line}\n`);
  return await client.readLine();
}

test("The command listens on a Unix socket with mode bits, and removes it at the end", async (path) => {
  await using server = start(path, "--unix-mode", "0620");
  await server.stderrMatch(new RegExp(`info listening on unix:${path}\n`));
  assertEquals((await Deno.lstat(path)).mode! & 0o777, 0o620);
  assertEquals(await talk(path, "hello"), "HELLO");
  await server.stderrMatch(/info accepted connection from unix\n/);
  server.signal("SIGTERM");
  assertEquals((await server.outcome()).code, 0);
  await assertRejects(() => Deno.lstat(path), Deno.errors.NotFound);
});

test("With --proxy-protocol unix, the command trusts the PROXY headers of peers on its Unix socket", async (path) => {
  await using server = start(path, "--proxy-protocol", "unix");
  await server.stderrMatch(/info listening on unix:/);
  const header = "PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n";
  assertEquals(await talk(path, `${header}hello`), "HELLO");
  await server.stderrMatch(/info accepted connection from 192\.0\.2\.7:56324\n/);
});

test("A command that is killed leaves its socket, and the next one replaces it", async (path) => {
  await using first = start(path);
  await first.stderrMatch(/listening/);
  first.signal("SIGKILL");
  await first.exitCode();
  assertEquals((await Deno.lstat(path)).isSocket, true);
  await using second = start(path);
  await second.stderrMatch(/listening/);
  assertEquals(await talk(path, "hello"), "HELLO");
});

test("The command words in one line why it cannot listen on a Unix socket", async (path) => {
  const permissions = permissionsFor(path);
  const says = async (args: string[], message: string, allowed = permissions) => {
    const { code, stderr } = await runCommand(args, { permissions: allowed });
    assertEquals(stderr, `shouty: ${message}\n`);
    return code;
  };
  const cannot = `cannot listen on unix:${path}`;
  const files = `no permission to read and write it, which --allow-read=${path} --allow-write=${path} grants`;
  assertEquals(await says(["--unix", path], `${cannot}: ${files}`, ["--allow-net"]), 1);
  const net = "no permission to use the network, which --allow-net grants";
  assertEquals(await says(["--unix", path], `${cannot}: ${net}`, permissions.slice(1)), 1);
  assertEquals(await says(["--unix-mode", "600"], "cannot use --unix-mode without --unix: expected both"), 2);
  const proxied = ["--unix", path, "--proxy-protocol", "127.0.0.1"];
  assertEquals(
    await says(proxied, "cannot use --proxy-protocol 127.0.0.1 with --unix: expected unix in the list"),
    2,
  );
  assertEquals(
    await says(["--proxy-protocol", "unix"], "cannot use --proxy-protocol unix without --unix: expected both"),
    2,
  );
  const tls = ["--unix", path, "--tls-cert", path, "--tls-key", path];
  assertEquals(await says(tls, `cannot read --tls-cert "${path}": no such device or address`), 1);
  await assertRejects(() => Deno.lstat(path), Deno.errors.NotFound);
  await Deno.writeTextFile(path, "precious");
  assertEquals(await says(["--unix", path], `${cannot}: there is a file that is not a socket`), 1);
  const within = `${path}/inner`;
  assertEquals(await says(["--unix", within], `cannot listen on unix:${within}: not a directory`, ["-A"]), 1);
  await Deno.remove(path);
  await using server = start(path);
  await server.stderrMatch(/listening/);
  assertEquals(await says(["--unix", path], `${cannot}: address already in use`), 1);
  assertMatch(server.stderr, /listening/);
});
