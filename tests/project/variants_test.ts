import { assertEquals, assertGreater } from "@std/assert";

const TESTS = new URL("../", import.meta.url);

Deno.test("Each file of tests that uses testOnce() is run once more, on other sockets or on TLS over streams", async () => {
  const once: string[] = [];
  const again = new Set<string>();
  for await (const { name: folder, isDirectory } of Deno.readDir(TESTS)) {
    if (!isDirectory) continue;
    for await (const { name } of Deno.readDir(new URL(`${folder}/`, TESTS))) {
      if (!name.endsWith("_test.ts")) continue;
      const url = new URL(`${folder}/${name}`, TESTS);
      const text = await Deno.readTextFile(url);
      if (/^import \{[^}]*\btestOnce\b/m.test(text)) once.push(url.href);
      if (!text.includes('\nimport "../kit/on_')) continue;
      for (const [, path] of text.matchAll(/^import "(.+_test\.ts)";/gm)) again.add(new URL(path, url).href);
    }
  }
  assertGreater(once.length, 20, "The tests are read wrongly");
  assertEquals(once.filter((file) => !again.has(file)), []);
});
