import { assertEquals } from "@std/assert";
import { test } from "../../kit/bounded.ts";
import { ask, makeFolder, PROJECT } from "../../kit/project/deploy.ts";

/** The types of Node of which many packages want the newest; in a program with one of these, Deno takes no others. */
const NODE_TYPES = "npm:@types/node@26.6.7";

const { code, text } = await ask(Deno.execPath(), ["cache", "--quiet", "--no-config", NODE_TYPES]);
const MISSING = code === 0 ? "" : ` (skipped: ${NODE_TYPES} cannot be loaded: ${text.split("\n", 1)[0]})`;

// Where the library comes from a clone, Deno checks it together with the program.
test(
  "the library passes the type checker in a program that has the types of Node from npm",
  async () => {
    await using folder = await makeFolder();
    const modules = ["@x/shouty", "@x/shouty/ops", "@x/shouty/testing"].map((name) => `import "${name}";`);
    const program = [...modules, `import type {} from "${NODE_TYPES}";`].join("\n");
    await Deno.writeTextFile(`${folder.path}/program.ts`, program);
    const config = `${PROJECT}/deno.json`;
    const checked = await ask(Deno.execPath(), ["check", "--quiet", "--config", config, `${folder.path}/program.ts`]);
    assertEquals(checked, { code: 0, text: "" });
  },
  120,
  MISSING,
);
