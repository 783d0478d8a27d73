import { assertEquals, assertGreater } from "@std/assert";
import { filesBelow, readFile } from "../../kit/project/files.ts";

Deno.test("Each file of tests that uses testOnce() is run once more, on other sockets or on TLS over streams", async () => {
  const once: string[] = [];
  const again = new Set<string>();
  for (const path of (await filesBelow("tests")).filter((path) => path.endsWith("_test.ts"))) {
    const text = await readFile(path);
    if (/^import \{[^}]*\btestOnce\b/m.test(text)) once.push(path);
    if (!/^import "(\.\.\/)+kit\/again\/on_/m.test(text)) continue;
    for (const [, other] of text.matchAll(/^import "(.+_test\.ts)";/gm)) again.add(join(path, other));
  }
  assertGreater(once.length, 20, "The tests are read wrongly");
  assertEquals(once.filter((path) => !again.has(path)), []);
});

/** The path of a module that another one imports. */
function join(path: string, specifier: string): string {
  return new URL(specifier, `file:///${path}`).pathname.slice(1);
}
