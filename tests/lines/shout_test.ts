import { assertEquals } from "@std/assert";
import { shout } from "@x/shouty";
import { test } from "../kit/bounded.ts";
import { check, fc } from "../kit/property.ts";

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
    for await (const { name, isFile } of Deno.readDir(new URL(`../../${folder}/`, import.meta.url))) {
      if (!isFile) continue;
      const code = await Deno.readTextFile(new URL(`../../${folder}/${name}`, import.meta.url));
      if (/^ *block: \(/m.test(code)) files.push(`${folder}/${name}`);
    }
  }
  assertEquals(files, ["internal/lines/shout.ts"]);
});
