import { assertEquals } from "@std/assert";
import { shout } from "@x/shouty";
import { test } from "../kit/bounded.ts";
import { check, fc } from "../kit/property.ts";
import { filesBelow, readFile } from "../kit/project/files.ts";

test("shout.block answers lines as shout answers each of them", async () => {
  const line = fc.string({ unit: "binary" }).map((text) => text.replaceAll("\n", ""));
  await check([fc.array(line, { minLength: 1 })], (lines) => {
    const block = lines.map((line) => `${line}\n`).join("");
    assertEquals(shout.block(block), lines.map((line) => `${shout(line)}\n`).join(""));
  });
});

test("shout.block is the only block that the project ships", async () => {
  const files = [];
  for (const folder of ["examples", "internal/lines", "internal/conn", "ops", "cli"]) {
    for (const path of await filesBelow(folder)) if (/^ *block: \(/m.test(await readFile(path))) files.push(path);
  }
  assertEquals(files, ["internal/lines/shout.ts"]);
});
