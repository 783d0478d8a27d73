import { assertEquals, assertRejects } from "@std/assert";
import { create } from "../../create/mod.ts";

const PROGRAM = new URL("../../create/mod.ts", import.meta.url).href;
const LINKS = Deno.build.os === "windows" ? " (skipped: links take a privilege on Windows)" : "";

/** Runs `deno create` in a folder, as far as it is this project's. */
async function run(cwd: string, ...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const all = ["run", "--no-prompt", "--allow-read", "--allow-write", PROGRAM, ...args];
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: all, cwd }).output();
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
}

function namesIn(folder: string): string[] {
  return Array.from(Deno.readDirSync(folder), ({ name }) => name).toSorted();
}

Deno.test({
  name: `deno create writes nothing into a folder that has some of its files, be it links that lead nowhere${LINKS}`,
  ignore: LINKS !== "",
  async fn() {
    const folder = await Deno.makeTempDir();
    for (const file of ["main.ts", "Dockerfile"]) await Deno.symlink("nowhere", `${folder}/${file}`);
    await assertRejects(() => create(folder), Error, `${folder} has a main.ts, a Dockerfile already: expected a new`);
    assertEquals(namesIn(folder), ["Dockerfile", "main.ts"]);
    await Deno.remove(folder, { recursive: true });
  },
});

Deno.test("deno create makes the folder that its one argument names, or shouty-server, and takes no other argument", async () => {
  const folder = await Deno.makeTempDir();
  for (const args of [["a", "b"], ["--help"]]) {
    const stderr = `create: cannot use arguments "${args.join(" ")}": expected the name of a folder\n`;
    assertEquals(await run(folder, ...args), { code: 1, stdout: "", stderr });
  }
  assertEquals(namesIn(folder), []);
  const { code, stdout, stderr } = await run(folder);
  const next = "Next:\n\n  cd shouty-server\n  deno task test\n  deno task start\n";
  assertEquals([code, stdout, stderr], [0, `Made shouty-server. ${next}`, ""]);
  assertEquals((await run(folder, "deep/er")).code, 0);
  assertEquals(namesIn(folder), ["deep", "shouty-server"]);
  assertEquals(namesIn(`${folder}/deep/er`), namesIn(`${folder}/shouty-server`));
  const { tasks } = JSON.parse(await Deno.readTextFile(`${folder}/shouty-server/deno.json`));
  assertEquals(tasks.dev, tasks.start.replace("deno run", "deno run --watch"));
  await Deno.remove(folder, { recursive: true });
});
