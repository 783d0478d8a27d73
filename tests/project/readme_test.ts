import { assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import { CONNECT, SERVE } from "../../cli/flags.ts";
import { answer } from "../../cli/help.ts";

const README = await Deno.readTextFile(new URL("../../README.md", import.meta.url));

Deno.test("The README shows the help as it is", () => {
  for (const command of [SERVE, CONNECT]) assertStringIncludes(README, answer("help", command));
});

Deno.test("The README begins with the two commands", () => {
  const commands = README.split("\n").filter((line) => line.startsWith("    npx -y deno task "));
  assertEquals(commands.map((line) => line.trim().split(/ {2,}/)[0]), [
    "npx -y deno task start",
    "npx -y deno task test",
  ]);
});

Deno.test("The README names every option", async () => {
  const files = ["serve_options.ts", "conn_options.ts"].map((name) =>
    new URL(`../../internal/api/${name}`, import.meta.url)
  );
  const source = (await Promise.all(files.map((file) => Deno.readTextFile(file)))).join("");
  const interfaces = source.matchAll(/export interface (?:Serve|Conn)Options\b.*?\n}\n/gs);
  const names = [...interfaces].flatMap(([text]) => [...text.matchAll(/^ {2}(\w+)\?:/gm)].map(([, name]) => name));
  assertGreater(names.length, 25, "The options are read wrongly");
  assertEquals(names.filter((name) => !README.includes(`\`${name}\``)), []);
});

Deno.test("The files that the README points at exist", async () => {
  const paths = [...README.matchAll(/`((?:internal|testing|ops|examples|bench|cli|tools)\/[\w./]*)`/g)];
  assertGreater(paths.length, 15, "The README is read wrongly");
  for (const [, path] of paths) await Deno.stat(new URL(`../../${path}`, import.meta.url));
});
