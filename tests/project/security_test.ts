import { assertGreater, assertStringIncludes } from "@std/assert";

const ROOT = new URL("../..", import.meta.url);

Deno.test("Each test that SECURITY.md names is there", async () => {
  const text = await Deno.readTextFile(new URL("SECURITY.md", ROOT));
  const rows = [...text.matchAll(/\| `(\w+_test\.ts)`\s*\| (.+?)\s*\|$/gm)];
  assertGreater(rows.length, 20);
  const files = new Map<string, string>();
  for await (const { name: folder, isDirectory } of Deno.readDir(new URL("tests/", ROOT))) {
    if (!isDirectory) continue;
    for await (const { name } of Deno.readDir(new URL(`tests/${folder}/`, ROOT))) files.set(name, folder);
  }
  for (const [, file, name] of rows) {
    assertStringIncludes(await Deno.readTextFile(new URL(`tests/${files.get(file)}/${file}`, ROOT)), name);
  }
});
