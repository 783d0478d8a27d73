import { assertEquals, assertMatch } from "@std/assert";
import { HAS_SCRIPT, startInTerminal } from "../kit/command.ts";

const NO_TERMINAL = HAS_SCRIPT ? "" : " (skipped: util-linux's script is missing)";

Deno.test({
  name: `Nothing prompts on a terminal: a missing permission is named in one line${NO_TERMINAL}`,
  ignore: !HAS_SCRIPT,
  async fn() {
    await using serving = startInTerminal(["run", "mod.ts"]);
    await using connecting = startInTerminal(["run", "mod.ts", "connect", "[::1]:80"]);
    const why = "no permission to use the network, which --allow-net grants\r\n";
    const outcomes = await Promise.all([serving.outcome(), connecting.outcome()]);
    assertEquals(outcomes.map(({ code, stdout }) => [code, stdout]), [
      [1, `shouty: cannot listen on 0.0.0.0:8080: ${why}`],
      [1, `shouty: cannot connect to [::1]:80: ${why}`],
    ]);
  },
});

/** Flags that listen where a permission for a name, or for port 0, does not reach, and the line that says so. */
const NAMES_ONLY: readonly [args: string[], permissions: string[], line: RegExp][] = [
  [
    ["--hostname", "localhost", "--port", "0", "--workers", "2"],
    ["--allow-net=localhost", "--allow-read"],
    /^shouty: cannot listen on localhost:0: no permission for the workers to use \S+:\d+, which --allow-net=\S+ grants\r\n$/,
  ],
  [
    ["--hostname", "127.0.0.1", "--port", "0", "--workers", "2"],
    ["--allow-net=127.0.0.1:0", "--allow-read"],
    /^shouty: cannot listen on 127\.0\.0\.1:0: no permission for the workers to use 127\.0\.0\.1:\d+, which --allow-net=127\.0\.0\.1 grants\r\n$/,
  ],
  [
    ["--hostname", "localhost", "--port", "0", "--admin", "localhost:0"],
    ["--allow-net=localhost"],
    /^shouty: cannot open the admin port on localhost:0: requires net access to "\S+:0", run again with the --allow-net flag\r\n$/,
  ],
];

for (const [args, permissions, line] of NAMES_ONLY) {
  Deno.test({
    name: `Nothing prompts on a terminal: ${args.join(" ")} with ${permissions[0]} is refused${NO_TERMINAL}`,
    ignore: !HAS_SCRIPT,
    async fn() {
      await using command = startInTerminal(["run", ...permissions, "mod.ts", ...args]);
      await command.stdoutMatch(/Deno requests|shouty: .*\r\n/);
      assertMatch(command.stdout, line);
      assertEquals((await command.outcome()).code, 1);
    },
  });
}

Deno.test({
  name: `Nothing prompts on a terminal: without its permission, the environment is not read${NO_TERMINAL}`,
  ignore: !HAS_SCRIPT,
  async fn() {
    const args = ["run", "--allow-net", "mod.ts", "--hostname", "127.0.0.1", "--port", "0"];
    await using server = startInTerminal(args, { SHOUTY_LOG_LEVEL: "error" });
    await server.stdoutMatch(/listening on/);
    // It would outlive its terminal: it ignores SIGHUP.
    await server.type("\x03");
    assertEquals((await server.outcome()).code, 0);
  },
});
