import { assertGreater, assertStringIncludes } from "@std/assert";

const ROOT = new URL("..", import.meta.url);

Deno.test("Each test that SECURITY.md names is there", async () => {
  const text = await Deno.readTextFile(new URL("SECURITY.md", ROOT));
  const rows = [...text.matchAll(/\| `(\w+_test\.ts)`\s*\| (.+?)\s*\|$/gm)];
  assertGreater(rows.length, 20);
  for (const [, file, name] of rows) {
    assertStringIncludes(await Deno.readTextFile(new URL(`tests/${file}`, ROOT)), name);
  }
});
