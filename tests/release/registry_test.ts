import { assertEquals, assertMatch, assertNotMatch, assertStringIncludes } from "@std/assert";
import config from "../../deno.json" with { type: "json" };
import { converse, shoutAndDrain } from "../kit/command.ts";
import { copyProject, emptyPlace } from "../kit/project/place.ts";
import { type Package, Registry } from "../kit/project/registry.ts";

const ROOT = `${import.meta.dirname}/../..`;
const NAME = config.name;
const ENTRIES = Object.entries(config.exports);
const DOCUMENTS = ["/CHANGELOG.md", "/LICENSE", "/README.md", "/deno.json"];
const ON_WINDOWS = Deno.build.os === "windows";

let upload: Promise<Package> | undefined;

/** The package that `deno publish` uploads. The first call publishes it. */
function published(): Promise<Package> {
  return upload ??= publish();
}

async function publish(): Promise<Package> {
  await using registry = new Registry();
  await using place = await emptyPlace(registry);
  // A copy, so that vendor/ gets the modules of this registry. Without provenance, which only a workflow can sign.
  await copyProject(place.dir);
  const { code, stderr } = await place.deno(["publish", "--no-provenance", "--token", registry.token]);
  assertEquals(code, 0, stderr);
  assertNotMatch(stderr, /warn/i);
  return registry.packages.get(NAME)!;
}

/** A registry with the package. */
async function registryWithPackage(unknown: string[] = []): Promise<Registry> {
  return new Registry({ packages: [[NAME, await published()]], unknown });
}

/** The paths of the modules that the entry points import, as they are published. */
async function modulesOf(entries: string[]): Promise<Set<string>> {
  const root = new URL("../..", import.meta.url).href;
  const graphs = await Promise.all(entries.map(async (entry) => {
    const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["info", "--json", entry], cwd: ROOT }).output();
    const { modules } = JSON.parse(new TextDecoder().decode(stdout)) as { modules: { specifier: string }[] };
    return modules.map(({ specifier }) => specifier).filter((url) => url.startsWith(root));
  }));
  return new Set(graphs.flat().map((url) => url.slice(root.length - 1)));
}

Deno.test("deno publish uploads what the entry points import, the documents, and nothing else", async () => {
  const { version, exports, files } = await published();
  assertEquals([version, exports], [config.version, config.exports]);
  const modules = await modulesOf(Object.values(config.exports));
  assertEquals([...files.keys()].toSorted(), [...modules.union(new Set(DOCUMENTS))].toSorted());
});

Deno.test("The published command runs from the registry, shouts and drains", async () => {
  await using registry = await registryWithPackage();
  await using place = await emptyPlace(registry);
  await using command = place.start(Deno.execPath(), ["run", "-A", `jsr:${NAME}`, "--port", "0"]);
  await shoutAndDrain(command);
  const { stdout } = await place.deno(["run", `jsr:${NAME}`, "--version"]);
  assertEquals(stdout, `shouty ${config.version}\n`);
});

Deno.test("deno install makes a command of the published package", async () => {
  await using registry = await registryWithPackage();
  await using place = await emptyPlace(registry);
  const installed = await place.deno(["install", "--global", "--allow-net", "--root", place.dir, `jsr:${NAME}`]);
  assertEquals(installed.code, 0, installed.stderr);
  const program = `${place.dir}/bin/shouty${ON_WINDOWS ? ".cmd" : ""}`;
  // The installed program starts `deno` by its name.
  const PATH = `${Deno.execPath().replace(/[/\\][^/\\]*$/, "")}${ON_WINDOWS ? ";" : ":"}${Deno.env.get("PATH")}`;
  await using version = place.start(program, ["--version"], { PATH });
  assertEquals((await version.outcome()).stdout, `shouty ${config.version}\n`);
  if (ON_WINDOWS) return; // There, a signal ends the .cmd, and not the server.
  await using command = place.start(program, ["--port", "0"], { PATH });
  await shoutAndDrain(command);
});

Deno.test("A user's program type-checks against the published package and serves with both kinds of handlers", async () => {
  await using registry = await registryWithPackage();
  await using place = await emptyPlace(registry);
  await Deno.writeTextFile(`${place.dir}/user.ts`, USER_PROGRAM);
  const check = await place.deno(["check", "user.ts"]);
  assertEquals(check.code, 0, check.stderr);
  const { code, stdout, stderr } = await place.deno(["run", "--allow-net", "user.ts"]);
  assertEquals([code, stdout], [0, "1: 3 letters\n1: 5 letters\nYour name?\nHello, Ada!\nlistening, closed\n"], stderr);
});

Deno.test("Importing the published package starts nothing, and does without what only the command needs", async () => {
  await using registry = await registryWithPackage(["@std/cli", "@std/log"]);
  await using place = await emptyPlace(registry);
  const imports = ENTRIES.map(([entry], i) => `import * as m${i} from "jsr:${NAME}${entry.slice(1)}";`);
  const names = ENTRIES.map((_, i) => `Object.keys(m${i}).length > 0`);
  await Deno.writeTextFile(`${place.dir}/user.ts`, `${imports.join("\n")}\nconsole.log(${names});\n`);
  const { code, stdout, stderr } = await place.deno(["run", "--quiet", "--no-prompt", "user.ts"]);
  assertEquals([code, stdout, stderr], [0, `${ENTRIES.map(() => true).join(" ")}\n`, ""]);
});

Deno.test("deno create makes a project whose tests pass, and whose server starts, answers and drains", async () => {
  await using registry = await registryWithPackage();
  await using place = await emptyPlace(registry);
  const made = await place.deno(["create", "--yes", `jsr:${NAME}`, "--", "my-server"]);
  assertEquals(made.code, 0, made.stderr);
  const files = Array.from(Deno.readDirSync(`${place.dir}/my-server`), ({ name }) => name);
  assertEquals(files.toSorted(), ["Dockerfile", "README.md", "deno.json", "main.ts", "main_test.ts"]);
  const tested = await place.deno(["task", "--cwd", "my-server", "test"]);
  assertEquals([tested.code, /2 passed/.test(tested.stdout)], [0, true], tested.stdout + tested.stderr);
  for (const args of [["fmt", "--check", "my-server"], ["lint", "my-server"]]) {
    const { code, stderr } = await place.deno(args);
    assertEquals(code, 0, `${args}: ${stderr}`);
  }
  const unnamed = await place.deno(["create", "--yes", `jsr:${NAME}`, "--", ""]);
  assertEquals(unnamed.code, 1);
  assertStringIncludes(unnamed.stderr, 'create: Cannot make a project in "": expected the name of a folder');
  const again = await place.deno(["create", "--yes", `jsr:${NAME}`, "--", "my-server"]);
  assertEquals(again.code, 1);
  assertMatch(again.stderr, /^create: my-server has a main\.ts, .* already: expected a new folder$/m);
  await using server = place.start(Deno.execPath(), ["task", "--cwd", "my-server", "start"], { PORT: "0" });
  const [, port] = await server.stdoutMatch(/listening on 0\.0\.0\.0:(\d+)/);
  const said = await converse({ hostname: "127.0.0.1", port: Number(port) }, "Ada\nquit\n");
  assertEquals(said, "hello, what is your name?\ngood to see you, Ada\n");
  if (ON_WINDOWS) return; // It has no SIGTERM.
  server.signal("SIGTERM");
  assertEquals(await server.exitCode(), 0);
});

Deno.test("The page of the admin port comes with the published package", async () => {
  await using registry = await registryWithPackage();
  await using place = await emptyPlace(registry);
  await Deno.writeTextFile(`${place.dir}/user.ts`, ADMIN_PROGRAM);
  const { code, stdout, stderr } = await place.deno(["run", "--allow-net", "user.ts"]);
  assertEquals([code, stdout], [0, "text/html; charset=utf-8\n"], stderr);
});

const ADMIN_PROGRAM = `
import { serve } from "jsr:${NAME}";
import { serveAdmin } from "jsr:${NAME}/ops";

await using server = serve({ hostname: "127.0.0.1", port: 0 });
await using admin = await serveAdmin({ server, port: 0 });
const { port } = admin.addr as Deno.NetAddr;
const response = await fetch(\`http://127.0.0.1:\${port}/\`);
await response.text();
console.log(response.headers.get("content-type"));
`;

const USER_PROGRAM = `
import { type Conn, serve, serveConnections, type Server } from "jsr:${NAME}";

const options = { hostname: "127.0.0.1", port: 0 };
const lines = serve(options, (line: string, conn: Conn) => \`\${conn.id}: \${line.length} letters\`);
const talk = serveConnections(options, async (conn) => {
  await conn.write("Your name?\\n");
  for await (const name of conn.lines) await conn.write(\`Hello, \${name}!\\n\`);
});

async function ask({ addr }: Server, text: string): Promise<string> {
  const { hostname, port } = addr as Deno.NetAddr;
  const conn = await Deno.connect({ hostname, port });
  await conn.write(new TextEncoder().encode(text));
  await conn.closeWrite();
  return await new Response(conn.readable).text();
}

const replies = await ask(lines, "one\\nthree\\n") + await ask(talk, "Ada\\n");
await lines.shutdown();
console.log(\`\${replies}\${talk.state}, \${lines.state}\`);
await talk.shutdown();

// @ts-expect-error A port is a number: this shows that the types have been found.
export const wrong = () => serve({ port: "eight" });
`;
