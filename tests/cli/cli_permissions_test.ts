import { assertEquals } from "@std/assert";
import { TestClient } from "@x/shouty/testing";
import { Subprocess } from "../kit/command.ts";
import { NO_EPOLL } from "../kit/sockets/epoll.ts";
import { IDENTITY } from "../kit/tls.ts";

const NO_UNIX = Deno.build.os === "windows" ? " (skipped: Windows has no Unix sockets in Deno)" : "";
const CLI = new URL("../../cli.ts", import.meta.url);

/** A script that prints its permissions when it starts, binds and serves. */
const SPY = `
  const NAMES = ["net", "read", "write", "ffi", "run", "env", "sys", "import"];
  const tell = (when) => {
    const granted = NAMES.filter((name) => Deno.permissions.querySync({ name }).state === "granted");
    console.log(when + ": " + granted.join(" ") + ".");
  };
  const before = (object, method, when) => {
    const original = object[method];
    let told = false;
    object[method] = function (...args) {
      const name = when(...args);
      if (name !== undefined && !told) tell(name);
      told ||= name !== undefined;
      return original.apply(object, args);
    };
  };
  before(Deno, "addSignalListener", () => "starting");
  before(Deno, "listen", () => "binding");
  before(Deno, "dlopen", () => "binding");
  before(Deno.stderr, "write", (bytes) => new TextDecoder().decode(bytes).includes("listening") ? "serving" : undefined);
`;

/** A folder, with a certificate in it. */
async function withFolder() {
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(`${folder}/cert.pem`, IDENTITY.cert);
  await Deno.writeTextFile(`${folder}/key.pem`, IDENTITY.key);
  return {
    socket: `${folder}/shouty.sock`,
    files: [`${folder}/cert.pem`, `${folder}/key.pem`],
    tls: ["--tls-cert", `${folder}/cert.pem`, "--tls-key", `${folder}/key.pem`],
    /** Runs the command; returns its permissions at the start, when it binds, and when it serves. */
    async granted(permissions: string[], ...args: string[]): Promise<string[]> {
      const run = `const { main } = await import(${JSON.stringify(CLI)}); await main(${JSON.stringify(args)});`;
      await Deno.writeTextFile(`${folder}/main.ts`, SPY + run);
      const config = `${import.meta.dirname}/../../deno.json`;
      const deno = ["run", "--no-prompt", "--config", config, ...permissions, `${folder}/main.ts`];
      await using process = new Subprocess(Deno.execPath(), deno);
      const moments = await process.stdoutMatch(/starting: (.*)\.\nbinding: (.*)\.\nserving: (.*)\.\n/);
      return moments.slice(1);
    },
    [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }),
  };
}

Deno.test("The command keeps no permission but that to read a certificate again", async () => {
  await using folder = await withFolder();
  const serving = async (...args: string[]) => (await folder.granted(["-A"], "--port", "0", ...args))[2];
  assertEquals(await serving(), "");
  assertEquals(await serving(...folder.tls), "read");
  if (!NO_EPOLL) assertEquals(await serving("--engine", "epoll"), "");
  if (!NO_UNIX) assertEquals(await serving("--unix", folder.socket), "");
  assertEquals(await serving("--admin", "127.0.0.1:0"), "");
  if (!NO_UNIX) assertEquals(await serving("--admin", `unix:${folder.socket}`), "");
  if (!NO_UNIX) assertEquals(await serving("--unix", folder.socket, "--tls-port", "0", ...folder.tls), "read");
});

Deno.test("Without --engine epoll the command gives foreign code up before anything else", async () => {
  await using folder = await withFolder();
  assertEquals((await folder.granted(["-A"], "--port", "0")).slice(0, 2), ["net", "net"]);
  assertEquals((await folder.granted(["-A"], "--port", "0", ...folder.tls)).slice(0, 2), ["net read", "net read"]);
  if (!NO_UNIX) {
    const unix = await folder.granted(["-A"], "--port", "0", "--unix", folder.socket);
    assertEquals(unix.slice(0, 2), ["net read write sys", "net read write sys"]);
    const both = await folder.granted(["-A"], "--unix", folder.socket, "--tls-port", "0", ...folder.tls);
    assertEquals(both.slice(0, 2), ["net read write sys", "net read write sys"]);
  }
  const admin = await folder.granted(["-A"], "--port", "0", "--admin", "127.0.0.1:0");
  assertEquals(admin.slice(0, 2), ["net", "net"]);
  const token = ["--admin", "127.0.0.1:0", "--admin-token-file", `${folder.files[0]}.token`];
  await Deno.writeTextFile(token[3], "a-token-for-tests-only");
  assertEquals((await folder.granted(["-A"], "--port", "0", ...token))[0], "net read");
  if (!NO_EPOLL) {
    const epoll = await folder.granted(["-A"], "--port", "0", "--engine", "epoll");
    assertEquals(epoll.slice(0, 2), ["net ffi", "net ffi"]);
  }
});

Deno.test("A permission to read the certificate's files alone stays as narrow as it is", async () => {
  await using folder = await withFolder();
  const permissions = ["--allow-net", `--allow-read=${folder.files}`];
  // The permissions without a list are given up. The one for these two files stays, as the tests of SIGHUP show.
  assertEquals((await folder.granted(permissions, "--port", "0", ...folder.tls))[2], "");
});

Deno.test({
  name: `deno task start may do what --unix and --tls-cert take${NO_UNIX}`,
  ignore: NO_UNIX !== "",
  async fn() {
    await using folder = await withFolder();
    const args = ["task", "start", "--unix", folder.socket, "--unix-mode", "0600"];
    await using plain = new Subprocess(Deno.execPath(), args);
    await plain.stderrMatch(/listening on unix:/);
    using client = new TestClient(await Deno.connect({ transport: "unix", path: folder.socket }));
    await client.write("hello\n");
    assertEquals(await client.readLine(), "HELLO");
    await client.closeWrite();
    plain.signal("SIGTERM");
    assertEquals((await plain.outcome()).code, 0);
    await using secure = new Subprocess(Deno.execPath(), [...args, ...folder.tls]);
    await secure.stderrMatch(/using certificate CN=server.*\n.*listening on unix:/);
    secure.signal("SIGTERM");
    assertEquals((await secure.outcome()).code, 0);
  },
});
