import { assertEquals, assertLess, assertMatch } from "@std/assert";
import config from "../../deno.json" with { type: "json" };
import { test } from "../kit/bounded.ts";
import { runCommand, shoutAndDrain, Subprocess } from "../kit/command.ts";
import { adapted, ask, flagsOf, makeFolder, PROJECT, shipped } from "../kit/project/deploy.ts";
import { load } from "../kit/foreign/npm.ts";

const DOCKERFILE = shipped("docker/Dockerfile");
const PROGRAM = "/usr/local/bin/shouty";
/** How long `docker stop` waits before it kills. */
const STOP_MS = 10_000;

interface Utils {
  validate(text: string): { message: string; range: { start: { line: number } } }[];
}

const LINTER = await load<Utils>("npm:dockerfile-utils@0.16.3");
const NO_NAMESPACES = await (async () => {
  try {
    const { code } = await ask("unshare", ["--pid", "--fork", "--mount-proc", "true"]);
    return code === 0 ? "" : " (skipped: this user may not make process namespaces)";
  } catch {
    return " (skipped: unshare is missing)";
  }
})();
const NO_ELF = Deno.build.os === "linux" ? "" : " (skipped: it takes an ELF file)";

/** The values of an instruction, of all stages. */
function instructions(name: string): string[] {
  const joined = DOCKERFILE.replaceAll("\\\n", " ");
  return [...joined.matchAll(new RegExp(`^${name} (.*)$`, "gm"))].map(([, value]) => value);
}

const VARIABLES = Object.fromEntries(instructions("ENV").map((pair) => pair.split("=", 2)));

/** The list of words in an instruction: a text instead of a list would start a shell. */
function words(text: string): string[] {
  return JSON.parse(text.slice(text.indexOf("[")));
}

test(
  "a linter finds nothing wrong in the Dockerfile",
  () => {
    const found = LINTER.module.validate(DOCKERFILE).map(({ message, range }) =>
      `line ${range.start.line + 1}: ${message}`
    );
    assertEquals(found, []);
  },
  20,
  LINTER.missing,
);

test("the image starts shouty as process 1, not as root, without a shell or npx", () => {
  assertEquals(instructions("ENTRYPOINT").map(words), [[PROGRAM]]);
  assertEquals(instructions("CMD"), []);
  assertEquals(instructions("STOPSIGNAL"), ["SIGTERM"]);
  assertMatch(instructions("USER")[0], /^[1-9]\d*:[1-9]\d*$/);
  assertEquals(/\bnpx\b/.test(DOCKERFILE.replaceAll(/^#.*$/gm, "")), false);
});

test("the image's shouty has drained before docker stop kills it", () => {
  const flags = flagsOf([], VARIABLES);
  assertLess(flags.drainDelay + flags.drainTimeout, STOP_MS - 1000);
  assertEquals(flags.admin, { hostname: "127.0.0.1", port: 9090 });
  assertEquals(instructions("EXPOSE"), [String(flags.port)]);
});

test(
  `what the Dockerfile copies compiles to one executable${NO_ELF}`,
  async () => {
    await using folder = await makeFolder();
    const copied = instructions("COPY").filter((line) => !line.startsWith("--from")).flatMap((line) => {
      const paths = line.split(" ");
      const target = paths.pop()!;
      return paths.map((path) => [path, target === "./" ? path : target]);
    });
    const ignore = shipped("docker/Dockerfile.dockerignore").split("\n").filter((line) => /^[^#]/.test(line));
    assertEquals(ignore, ["*", ...copied.map(([path]) => `!${path}`)]);
    for (const [path, target] of [...copied, ["vendor", "vendor"]]) {
      const { code, text } = await ask("cp", [
        "-r",
        `${PROJECT}/${path}`,
        `${folder.path}/${target.replace(/\/$/, "")}`,
      ]);
      assertEquals(code, 0, text);
    }
    const [task] = instructions("RUN").map((line) => line.split(" "));
    assertEquals(task, ["deno", "task", "compile", "--output", "/out/shouty"]);
    // Where there is no base executable, any ELF file shows how far compiling gets. Other tests check the types.
    const args = ["task", "--quiet", "compile", "--no-check", "--output", `${folder.path}/out/shouty`];
    const { code, text } = await ask(Deno.execPath(), args, { cwd: folder.path, env: { DENORT_BIN: "/bin/true" } });
    assertEquals(code, 0, text);
  },
  60,
  NO_ELF,
);

test("the versions of Deno and of the project are those that are tested", () => {
  const [, tag] = /^ARG DENO=(.*)$/m.exec(DOCKERFILE)!;
  assertMatch(tag, /^2\.9\.\d+$/);
  assertMatch(
    shipped("kubernetes/deployment.yaml"),
    new RegExp(`image: \\S+/shouty:${config.version.replaceAll(".", "\\.")}\n`),
  );
});

test(
  "as process 1 of a container, the image's command line drains at SIGTERM",
  async () => {
    const permissions = config.tasks.start.command.split(" ").filter((word) => word.startsWith("--allow-"));
    const shouty = [
      Deno.execPath(),
      "run",
      "--no-prompt",
      ...permissions,
      "mod.ts",
      ...instructions("CMD").flatMap(words),
    ];
    const inside = ["--pid", "--fork", "--mount-proc", "--kill-child", "--", ...shouty];
    const env = { SHOUTY_ADMIN: adapted(VARIABLES.SHOUTY_ADMIN, { ":9090": ":0" }) };
    const given = ["--hostname", "127.0.0.1", "--port", "0"];
    await using container = new Subprocess("unshare", [...inside, ...given], { env });
    await container.stderrMatch(/listening on /);
    const children = await Deno.readTextFile(`/proc/${container.pid}/task/${container.pid}/children`);
    const [pid, ...others] = children.trim().split(" ").map(Number);
    assertEquals(others, []);
    assertMatch(await Deno.readTextFile(`/proc/${pid}/status`), /^NSpid:\t\d+\t1$/m);
    await shoutAndDrain(Object.assign(container, { signal: (signal: Deno.Signal) => Deno.kill(pid, signal) }));
  },
  60,
  NO_NAMESPACES,
);

test("the image's health check is 0 while shouty serves, and not without it", async () => {
  const [check] = instructions("HEALTHCHECK").map(words);
  assertEquals(check.shift(), PROGRAM);
  const permissions = ["--allow-net", "--allow-env=SHOUTY_*"];
  const options = (admin: string) => ({ permissions, env: { SHOUTY_ADMIN: admin } });
  await using server = new Subprocess(Deno.execPath(), ["run", ...permissions, "mod.ts", "--port", "0"], {
    env: { SHOUTY_ADMIN: "127.0.0.1:0" },
  });
  const [, admin] = await server.stderrMatch(/admin on (\S+)/);
  const healthy = await runCommand(check, options(admin));
  assertEquals(healthy.code, 0, healthy.stderr);
  server.signal("SIGTERM");
  await server.exitCode();
  assertEquals((await runCommand(check, options(admin))).code, 1);
});
