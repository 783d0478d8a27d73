import { assertEquals, assertGreater } from "@std/assert";

const ROOT = `${import.meta.dirname}/../../..`;

Deno.test("No file takes the path in its own URL for a path: it is none on Windows, nor if a folder's name has a space", async () => {
  const paths: string[] = [];
  for (const folder of ["bench", "cli", "create", "examples", "internal", "ops", "testing", "tests", "tools"]) {
    await add(paths, folder);
  }
  assertGreater(paths.length, 100, "The files are read wrongly");
  const wrong = /\bimport\.meta\.url\)\.pathname\b/;
  const texts = await Promise.all(paths.map((path) => Deno.readTextFile(`${ROOT}/${path}`)));
  assertEquals(paths.filter((_, i) => wrong.test(texts[i])), []);
});

/** Adds the paths of the modules in a folder. */
async function add(paths: string[], folder: string): Promise<void> {
  for await (const { name, isDirectory } of Deno.readDir(`${ROOT}/${folder}`)) {
    if (isDirectory) await add(paths, `${folder}/${name}`);
    else if (name.endsWith(".ts")) paths.push(`${folder}/${name}`);
  }
}
