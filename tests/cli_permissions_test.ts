import { assertEquals } from "@std/assert";
import { TestClient } from "@x/shouty/testing";
import { Subprocess } from "./command.ts";
import { IDENTITY } from "./tls.ts";

const NO_UNIX = Deno.build.os === "windows" ? " (skipped: Windows has no Unix sockets in Deno)" : "";
const ALL_FILES = ["--allow-net", "--allow-read", "--allow-write", "--allow-ffi"];
const CLI = new URL("../cli.ts", import.meta.url);

/** A folder, with a certificate in it. */
async function withFolder() {
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(`${folder}/cert.pem`, IDENTITY.cert);
  await Deno.writeTextFile(`${folder}/key.pem`, IDENTITY.key);
  return {
    socket: `${folder}/shouty.sock`,
    tls: ["--tls-cert", `${folder}/cert.pem`, "--tls-key", `${folder}/key.pem`],
    /** Runs the command with all files to itself, and has it tell what it may do with them, and with foreign code, when it serves. */
    async states(...args: string[]): Promise<string> {
      const script = `
        const state = (name) => name + " " + Deno.permissions.querySync({ name }).state;
        import { main } from ${JSON.stringify(CLI)};
        const write = Deno.stderr.write.bind(Deno.stderr);
        Deno.stderr.write = (bytes) => {
          if (new TextDecoder().decode(bytes).includes("listening")) console.log(state("read"), state("write"), state("ffi"));
          return write(bytes);
        };
        await main(${JSON.stringify(args)});
      `;
      await Deno.writeTextFile(`${folder}/main.ts`, script);
      const config = new URL("../deno.json", import.meta.url).pathname;
      const deno = ["run", "--no-prompt", "--config", config, ...ALL_FILES, `${folder}/main.ts`];
      await using process = new Subprocess(Deno.execPath(), deno);
      return (await process.stdoutMatch(/read \w+ write \w+ ffi \w+/))[0];
    },
    [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }),
  };
}

Deno.test("The command gives up foreign code, and files but for reading them where it has to read them again", async () => {
  await using folder = await withFolder();
  for (const engine of ["auto", "deno"]) {
    assertEquals(await folder.states("--port", "0", "--engine", engine), "read prompt write prompt ffi prompt");
  }
  assertEquals(await folder.states("--port", "0", ...folder.tls), "read granted write prompt ffi prompt");
  if (NO_UNIX) return;
  assertEquals(await folder.states("--unix", folder.socket), "read prompt write prompt ffi prompt");
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
