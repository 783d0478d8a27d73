import { assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import { filesBelow, readFile } from "../../kit/project/files.ts";

Deno.test("Each test that SECURITY.md names is there", async () => {
  const text = await readFile("SECURITY.md");
  const rows = [...text.matchAll(/\| `(\w+_test\.ts)`\s*\| (.+?)\s*\|$/gm)];
  assertGreater(rows.length, 20);
  const paths = await filesBelow("tests");
  for (const [, file, name] of rows) {
    const found = paths.filter((path) => path.endsWith(`/${file}`));
    assertEquals(found.length, 1, file);
    assertStringIncludes(await readFile(found[0]), name);
  }
});
