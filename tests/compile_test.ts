import { assertEquals, assertMatch } from "@std/assert";
import config from "../deno.json" with { type: "json" };
import { converse, listening, type Outcome, Subprocess } from "./command.ts";

const IS_WINDOWS = Deno.build.os === "windows";
const IS_LINUX = Deno.build.os === "linux";

async function compile(args: string[], env: Record<string, string> = {}): Promise<Outcome> {
  await using task = new Subprocess(Deno.execPath(), ["task", "--quiet", "compile", ...args], { env });
  return await task.outcome();
}

const FOLDER = await Deno.makeTempDir({ prefix: "shouty_compile_" });
Deno.test.afterAll(() => Deno.remove(FOLDER, { recursive: true }));

// Only the attempt tells whether Deno can get the executable that it begins with.
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
    await using server = await listening(new Subprocess(BINARY, ["--port", "0"], { cwd: FOLDER, env }));
    assertMatch(server.stderr, /listening on 127\.0\.0\.1:/);
    assertEquals(await converse(server, "Hello.\r\nIs it you?"), "HELLO.\nIS IT YOU?\n");
    server.signal("SIGTERM");
    const { code, stderr } = await server.outcome();
    if (IS_WINDOWS) return; // There, a signal ends a process without asking.
    assertEquals(code, 0);
    assertMatch(stderr, /shutting down\n(.*\n)*.*all connections closed\n$/);
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
    assertEquals(Object.fromEntries(granted), { allow_net: [], allow_env: ["SHOUTY_*"], prompt: false });
  },
});

Deno.test("deno task compile says in one line which executable it cannot get", async () => {
  const target = "aarch64-apple-darwin";
  const { code, stdout, stderr } = await compile(["--target", target], { DENORT_BIN: `${FOLDER}/absent` });
  assertEquals([code, stdout], [1, ""]);
  const [line, ...more] = stderr.split("\n").filter((line) => !/^(Check|Compile) /.test(line));
  assertMatch(line, /^compile: no base executable for aarch64-apple-darwin \(DENORT_BIN can name one\): .*absent/);
  assertEquals(more, [""]);
});
