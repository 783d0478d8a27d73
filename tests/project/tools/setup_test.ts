import { assertArrayIncludes, assertEquals, assertMatch } from "@std/assert";
import * as log from "@std/log";
import * as standIn from "../../../tools/std/log/mod.ts";

const ROOT = `${import.meta.dirname}/../../..`;
const REPORT = /^setup: \S+ does not answer, so vendor\/ now holds (.+)\n$/;

Deno.test("setup fills vendor/ where JSR does not answer, and does nothing the second time", async () => {
  let asked = 0;
  await using portal = serve(() => {
    asked++;
    return new Response("<h1>Welcome to the hotel's network</h1>");
  });
  await using lab = await makeLab(urlOf(portal));
  const first = await lab.setup();
  assertEquals([first.code, first.stdout], [0, ""]);
  assertMatch(first.stderr, REPORT);
  assertMatch(first.stderr, /, a small stand-in for @std\/log\n$/);
  assertEquals(asked, 1);
  const filled = await readTree(`${lab.dir}/vendor`);
  assertEquals(await lab.setup(), { code: 0, stdout: "", stderr: "" });
  assertEquals(await readTree(`${lab.dir}/vendor`), filled);
  assertEquals(asked, 1);
});

Deno.test("setup gives a JSR that never answers two seconds", async () => {
  using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await using lab = await makeLab(`http://127.0.0.1:${silent.addr.port}`, "2_000");
  const { code, stderr } = await lab.setup();
  assertEquals(code, 0);
  assertMatch(stderr, REPORT);
});

Deno.test("setup completes what an interrupted or an older run left", async () => {
  await using lab = await makeLab();
  await lab.setup();
  const filled = await readTree(`${lab.dir}/vendor`);
  const std = `${lab.dir}/vendor/${hostFolder(lab.jsr)}/@std`;
  await Deno.remove(`${std}/assert/meta.json`);
  await Deno.remove(`${std}/assert/1.4.0/internal`, { recursive: true });
  await Deno.writeTextFile(`${std}/cli/meta.json`, `{"versions":{"1.4`);
  await Deno.writeTextFile(`${std}/streams/meta.json`, `{"setup":"older"}`);

  const { stderr } = await lab.setup();
  const [, packages] = REPORT.exec(stderr) ?? [];
  assertEquals(packages.match(/@std\/\w+/g), [
    "@std/assert",
    "@std/cli",
    "@std/streams",
  ]);
  assertEquals(await readTree(`${lab.dir}/vendor`), filled);
});

Deno.test("setup fills vendor/ once when it runs twice at the same time", async () => {
  await using lab = await makeLab();
  const runs = await Promise.all([lab.setup(), lab.setup()]);
  assertEquals(runs.map((run) => run.code), [0, 0]);
  assertMatch(runs.map((run) => run.stderr).join(""), REPORT);
});

Deno.test("setup leaves all to JSR where it answers", async () => {
  await using jsr = serve(() => Response.json({ versions: {} }));
  await using lab = await makeLab(urlOf(jsr));
  assertEquals(await lab.setup(), { code: 0, stdout: "", stderr: "" });
  assertEquals(await readTree(`${lab.dir}/vendor`), {});

  const std = `${lab.dir}/vendor/${hostFolder(lab.jsr)}/@std`;
  await Deno.mkdir(`${std}/cli`, { recursive: true });
  await Deno.mkdir(`${std}/log`, { recursive: true });
  await Deno.writeTextFile(`${std}/cli/meta.json`, `{"versions":{}}`);
  await Deno.writeTextFile(`${std}/log/meta.json`, `{"setup":"older"}`);
  assertEquals(await lab.setup(), { code: 0, stdout: "", stderr: "" });
  const left = Object.keys(await readTree(std));
  assertEquals(left, ["/cli/meta.json"], "Only its own older files may go");
});

Deno.test("setup fails in one line where neither JSR nor npm answers", async () => {
  await using lab = await makeLab();
  await Deno.writeTextFile(`${lab.dir}/.npmrc`, `registry=${lab.jsr}/\n`);
  const { code, stdout, stderr } = await lab.setup({
    DENO_DIR: `${lab.dir}/empty`,
    NPM_CONFIG_REGISTRY: lab.jsr,
  });
  assertEquals([code, stdout], [1, ""]);
  assertMatch(stderr, /^setup: Neither \S+ nor npm answers: .+\n$/);
});

Deno.test("modules in vendor/ export exactly what is declared for them", async () => {
  await using lab = await makeLab();
  await lab.setup();
  const vendor = await readTree(`${lab.dir}/vendor`);
  const modules = Object.entries(vendor).flatMap(([path, text]) => {
    const name = /\/(@std\/\w+)\/[\d.]+_meta\.json$/.exec(path)?.[1];
    const paths = name ? Object.keys(JSON.parse(text).exports) : [];
    return paths.map((path) => name + path.slice(1));
  });
  await Deno.writeTextFile(
    `${lab.dir}/names.ts`,
    `const modules = await Promise.all(Deno.args.map((name) => import(name)));
     console.log(JSON.stringify(modules.map(Object.keys)));`,
  );
  const { stdout } = await lab.deno([
    "run",
    "--allow-import",
    "names.ts",
    ...modules,
  ]);
  const names: string[][] = JSON.parse(stdout);
  // The compiler compares the names that exist with those that are declared.
  const checks = modules.map((module, i) =>
    `import * as m${i} from "${module}";
     export const n${i}: Record<keyof typeof m${i}, 0> = {
       ${names[i].map((name) => `${name}: 0`)}
     };`
  );
  await Deno.writeTextFile(`${lab.dir}/check.ts`, checks.join("\n"));
  const { code, stderr } = await lab.deno(["check", "check.ts"]);
  assertEquals(code, 0, stderr);
});

Deno.test("the modules in tools/std import each other without a circle", async () => {
  const files = await readTree(`${ROOT}/tools/std`);
  const imports = new Map(
    Object.entries(files).map(([path, text]) => {
      const specifiers = [...text.matchAll(/ from "(\..+)"/g)].map(([, specifier]) => specifier);
      return [path, specifiers.map((specifier) => new URL(specifier, `file://${path}`).pathname)];
    }),
  );
  assertEquals(imports.get("/log/console_handler.ts")?.includes("/log/base_handler.ts"), true);
  // Removes the modules that import no remaining one, again and again; a circle would remain.
  for (let before = 0; before !== imports.size;) {
    before = imports.size;
    for (const [path, targets] of imports) if (!targets.some((target) => imports.has(target))) imports.delete(path);
  }
  assertEquals([...imports.keys()], []);
});

// Where JSR answers, these two compare the stand-in with the original.
Deno.test("the stand-in for @std/log has no names of its own", () => {
  assertArrayIncludes(Object.keys(log), Object.keys(standIn));
});

Deno.test("the stand-in for @std/log logs what @std/log logs", () => {
  const original = log as unknown as typeof standIn;
  assertEquals(logSomething(standIn), logSomething(original));
});

function logSomething(log: typeof standIn): unknown[] {
  const seen: unknown[] = [];
  class Handler extends log.BaseHandler {
    override log(msg: string) {
      seen.push(msg);
    }
  }
  const handler = new Handler("DEBUG", {
    formatter: ({ loggerName, level, levelName, msg, args }) =>
      JSON.stringify([loggerName, level, levelName, msg, args]),
  });
  log.setup({
    handlers: { handler, plain: new Handler("ERROR") },
    loggers: {
      default: { level: "INFO", handlers: ["handler", "plain"] },
      chatty: { level: "DEBUG", handlers: ["handler", "absent"] },
    },
  });
  seen.push(log.debug("unheard"), log.debug(() => "uncalled"));
  seen.push(log.info("text", 1, { a: [2] }), log.warn({ a: "b", c: { d: 1 } }));
  seen.push(log.error(() => 42), log.critical(null), log.info(undefined));
  log.getLogger("chatty").debug(true);
  log.getLogger("unknown").critical("unheard");

  const record = new log.LogRecord({
    msg: "text",
    args: [1],
    level: log.LogLevels.CRITICAL,
    loggerName: "any",
  });
  const json = log.formatters.jsonFormatter(record);
  seen.push(json.replace(/"datetime":\d+/, ""));
  seen.push(new log.ConsoleHandler("INFO").format(record));
  seen.push(log.getLevelByName("WARN"), log.getLevelName(40));
  log.setup({});
  return seen;
}

/**
 * A temporary copy of the files that setup needs, with JSR at an address where nothing answers.
 *
 * @param jsr The address of JSR.
 * @param patience Maximum milliseconds to wait for it. Where it answers, a busy machine needs more than the usual two
 * seconds.
 */
async function makeLab(jsr = closedUrl(), patience = "60_000") {
  const dir = await Deno.makeTempDir({ prefix: "shouty_setup_" });
  const config = await Deno.readTextFile(`${ROOT}/deno.json`);
  const [, ...args] = JSON.parse(config).tasks.setup.split(" ");
  await Deno.writeTextFile(`${dir}/deno.json`, config);
  await Deno.mkdir(`${dir}/tools`);
  const setup = await Deno.readTextFile(`${ROOT}/tools/setup.ts`);
  assertMatch(setup, /^const JSR_TIMEOUT = 2_000;$/m);
  await Deno.writeTextFile(`${dir}/tools/setup.ts`, setup.replace("JSR_TIMEOUT = 2_000", `JSR_TIMEOUT = ${patience}`));
  await Deno.mkdir(`${dir}/cli/system`, { recursive: true });
  await Deno.copyFile(`${ROOT}/cli/system/deno_version.ts`, `${dir}/cli/system/deno_version.ts`);
  for (
    const [path, text] of Object.entries(await readTree(`${ROOT}/tools/std`))
  ) {
    const file = `${dir}/tools/std${path}`;
    await Deno.mkdir(file.slice(0, file.lastIndexOf("/")), { recursive: true });
    await Deno.writeTextFile(file, text);
  }
  async function deno(args: string[], env: Record<string, string> = {}) {
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args,
      cwd: dir,
      env: { JSR_URL: jsr, NO_COLOR: "1", ...env },
    }).output();
    const decoder = new TextDecoder();
    return {
      code,
      stdout: decoder.decode(stdout),
      stderr: decoder.decode(stderr),
    };
  }
  return {
    dir,
    jsr,
    deno,
    setup: (env?: Record<string, string>) => deno(args, env),
    [Symbol.asyncDispose]: () => Deno.remove(dir, { recursive: true }),
  };
}

function serve(handler: () => Response) {
  return Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    handler,
  );
}

function urlOf(server: Deno.HttpServer<Deno.NetAddr>): string {
  return `http://127.0.0.1:${server.addr.port}`;
}

function closedUrl(): string {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return `http://127.0.0.1:${listener.addr.port}`;
}

function hostFolder(url: string): string {
  return url.replace("://", "_").replace(/:(\d+)$/, "_$1");
}

/** The text of each file in a folder, by path; empty if the folder does not exist. */
async function readTree(dir: string): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  try {
    for await (const { name, isDirectory } of Deno.readDir(dir)) {
      const path = `${dir}/${name}`;
      if (!isDirectory) files[`/${name}`] = await Deno.readTextFile(path);
      else {
        for (const [rest, text] of Object.entries(await readTree(path))) {
          files[`/${name}${rest}`] = text;
        }
      }
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return files;
}
