import { assertEquals, assertGreater } from "@std/assert";
import { ADMIN_COMMANDS } from "../../cli/flags/admin_flags.ts";
import { flagName, SERVE } from "../../cli/flags/flags.ts";
import { test } from "../kit/bounded.ts";
import { PROJECT, shipped } from "../kit/project/deploy.ts";

/** Flags of other programs: Docker and its instructions, openssl's and kubectl's have one dash or are here. */
const OF_OTHERS = [
  "from",
  "from-literal",
  "interval",
  "network",
  "now",
  "output",
  "rm",
  "start-period",
  "time",
  "timeout",
];

async function files(folder = ""): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(`${PROJECT}/deploy/${folder}`)) {
    found.push(...isDirectory ? await files(`${folder}${name}/`) : [`${folder}${name}`]);
  }
  return found;
}

test("deploy/README.md lists each folder, and points at no file that is missing", async () => {
  const targets = [...shipped("README.md").matchAll(/\]\(([^)]+)\)/g)].map(([, target]) => target);
  const all = await files();
  for (const target of targets) assertEquals(all.some((file) => file.startsWith(target)), true, target);
  const folders = new Set(all.filter((file) => file.includes("/")).map((file) => file.split("/")[0]));
  for (const folder of folders) {
    assertEquals(targets.some((target) => target.startsWith(`${folder}/`)), true, folder);
  }
});

test("each flag that deploy/ names is one of shouty's", async () => {
  const commands = [SERVE, ...Object.values(ADMIN_COMMANDS)];
  const known = new Set([...OF_OTHERS, ...commands.flatMap(({ flags }) => Object.keys(flags).map(flagName))]);
  let count = 0;
  for (const file of await files()) {
    for (const [, name] of shipped(file).matchAll(/(?<![\w-])--([a-z][a-z-]*)/g)) {
      count++;
      assertEquals(known.has(name), true, `${file}: --${name}`);
    }
  }
  assertGreater(count, 40);
});

test("nothing of deploy/ is published", async () => {
  const { publish } = JSON.parse(await Deno.readTextFile(`${PROJECT}/deno.json`));
  assertEquals(publish.include.some((path: string) => path.startsWith("deploy")), false);
});
