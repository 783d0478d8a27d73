import { assertEquals, assertGreater } from "@std/assert";
import { filesBelow, readFile } from "../../kit/project/files.ts";

Deno.test("No file takes the path in its own URL for a path: it is none on Windows, nor if a folder's name has a space", async () => {
  const folders = ["bench", "cli", "create", "examples", "internal", "ops", "testing", "tests", "tools"];
  const paths = (await Promise.all(folders.map(filesBelow))).flat().filter((path) => path.endsWith(".ts"));
  assertGreater(paths.length, 100, "The files are read wrongly");
  const wrong = /\bimport\.meta\.url\)\.pathname\b/;
  const texts = await Promise.all(paths.map(readFile));
  assertEquals(paths.filter((_, i) => wrong.test(texts[i])), []);
});
