import { assertEquals, assertMatch } from "@std/assert";
import config from "../../deno.json" with { type: "json" };
import { type Outcome, shoutAndDrain, Subprocess } from "../kit/command.ts";

const ROOT = `${import.meta.dirname}/../..`;
const IS_WINDOWS = Deno.build.os === "windows";
const IS_LINUX = Deno.build.os === "linux";

/** Runs the task, which may take long: Deno downloads some 40 MB. */
async function compile(args: string[], env: Record<string, string> = {}): Promise<Outcome> {
  const options = { args: ["task", "--quiet", "compile", ...args], cwd: ROOT, env: { NO_COLOR: "1", ...env } };
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), options).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

const FOLDER = await Deno.makeTempDir({ prefix: "shouty_compile_" });
Deno.test.afterAll(() => Deno.remove(FOLDER, { recursive: true }));

// Only an attempt can tell whether Deno can get the base executable.
const BINARY = `${FOLDER}/shouty${IS_WINDOWS ? ".exe" : ""}`;
const COMPILED = await compile(["--output", BINARY]);
const [, MISSING] = /^compile: (no base executable for \S+) .*\n$/m.exec(COMPILED.stderr) ?? [];

Deno.test({
  name: `deno task compile makes one binary, which needs no PATH${MISSING ? ` (skipped: ${MISSING})` : ""}`,
  ignore: MISSING !== undefined,
  async fn() {
    assertEquals(COMPILED.code, 0, COMPILED.stderr);
    await using version = new Subprocess(BINARY, ["--version"], { cwd: FOLDER, env: { PATH: "" } });
    assertEquals((await version.outcome()).stdout, `shouty ${config.version}\n`);
    const env = { PATH: "", SHOUTY_HOSTNAME: "127.0.0.1" };
    await using server = new Subprocess(BINARY, ["--port", "0"], { cwd: FOLDER, env });
    await server.stderrMatch(/listening on 127\.0\.0\.1:/);
    await shoutAndDrain(server);
  },
});

Deno.test({
  name: `deno task compile bakes in what deno task start may do${IS_LINUX ? "" : " (skipped: it takes an ELF file)"}`,
  ignore: !IS_LINUX,
  async fn() {
    const output = `${FOLDER}/baked`;
    const { code, stderr } = await compile(["--output", output], { DENORT_BIN: "/bin/true" });
    assertEquals(code, 0, stderr);
    const bytes = new TextDecoder("latin1").decode(await Deno.readFile(output));
    const { allow_import: _, ...permissions } = JSON.parse(/"permissions":(\{.*?\})/.exec(bytes)![1]);
    const granted = Object.entries(permissions).filter(([, value]) => value !== null);
    const allow_env = ["SHOUTY_*", "LISTEN_*", "NOTIFY_SOCKET", "WATCHDOG_*"];
    const allowed = { allow_net: [], allow_env, allow_read: [], allow_write: [], allow_ffi: [] };
    assertEquals(Object.fromEntries(granted), { ...allowed, prompt: false });
  },
});

Deno.test("deno task compile names in one line the executable that it cannot get", async () => {
  const target = "aarch64-apple-darwin";
  const { code, stdout, stderr } = await compile(["--target", target], { DENORT_BIN: `${FOLDER}/absent` });
  assertEquals([code, stdout], [1, ""]);
  const [line, ...more] = stderr.split("\n").filter((line) => !/^(Check|Compile) /.test(line));
  assertMatch(line, /^compile: no base executable for aarch64-apple-darwin \(DENORT_BIN can name one\): .*absent/);
  assertEquals(more, [""]);
});
