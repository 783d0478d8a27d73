import { assert, assertEquals, assertGreater, assertLess, assertStringIncludes } from "@std/assert";
import { CONNECT, SERVE } from "../../../cli/flags/flags.ts";
import { CLOSE_REASONS, hasLastWords, REJECT_REASONS } from "../../../internal/api/reasons.ts";
import { answer } from "../../../cli/help/help.ts";
import { blocksOf, document, documents, ROOT } from "../../kit/project/guides.ts";

/** All documents for users, by their paths. */
const DOCUMENTS = new Map<string, string>();
for (const path of [...await documents(), "examples/README.md", "CONTRIBUTING.md", "SECURITY.md"]) {
  DOCUMENTS.set(path, await document(path));
}
const README = DOCUMENTS.get("README.md")!;
const GUIDES = [...DOCUMENTS].filter(([path]) => /^README\.md|^docs\//.test(path)).map(([, text]) => text).join("\n");

Deno.test("docs/command.md shows the help as it is", () => {
  for (const command of [SERVE, CONNECT]) {
    assertStringIncludes(DOCUMENTS.get("docs/command.md")!, answer("help", command));
  }
});

Deno.test("The README begins with the two commands", () => {
  const commands = README.split("\n").filter((line) => line.startsWith("    npx -y deno task "));
  assertEquals(commands.map((line) => line.trim().split(/ {2,}/)[0]), [
    "npx -y deno task start",
    "npx -y deno task test",
  ]);
});

Deno.test("The guides name every option", async () => {
  const files = ["serve_options.ts", "conn_options.ts"].map((name) =>
    new URL(`../../../internal/api/${name}`, import.meta.url)
  );
  const source = (await Promise.all(files.map((file) => Deno.readTextFile(file)))).join("");
  const interfaces = source.matchAll(/export interface (?:Serve|Conn)Options\b.*?\n}\n/gs);
  const names = [...interfaces].flatMap(([text]) => [...text.matchAll(/^ {2}(\w+)\?:/gm)].map(([, name]) => name));
  assertGreater(names.length, 25, "The options are read wrongly");
  assertEquals(names.filter((name) => !GUIDES.includes(`\`${name}\``)), []);
});

Deno.test("docs/operations.md has every reason, and the comment of lastWords each for which it is not called", async () => {
  const operations = DOCUMENTS.get("docs/operations.md")!;
  const rows = operations.split("\n").filter((line) => line.startsWith("|")).join("\n");
  assertEquals([...CLOSE_REASONS, ...REJECT_REASONS].filter((reason) => !rows.includes(`\`${reason}\``)), []);
  const source = await Deno.readTextFile(new URL("../../../internal/api/serve_options.ts", import.meta.url));
  const [, silent] = /It is not called for the reasons\s([^.]+)\./.exec(source)!;
  const named = [...silent.matchAll(/`([\w-]+)`/g)].map(([, reason]) => reason);
  const rejects = ["accept-rate-per-ip", "penalty"];
  assertEquals(named.toSorted(), [...CLOSE_REASONS.filter((reason) => !hasLastWords(reason)), ...rejects].toSorted());
});

Deno.test("The files that the README and the guides point at exist", async () => {
  const paths = [...GUIDES.matchAll(/`((?:internal|testing|ops|examples|bench|cli|tools)\/[\w./]*)`/g)];
  assertGreater(paths.length, 15, "The guides are read wrongly");
  for (const [, path] of paths) await Deno.stat(`${ROOT}${path}`);
});

Deno.test("Every link from one document to another leads to a file, and to a heading that it has", async () => {
  let links = 0;
  for (const [path, text] of DOCUMENTS) {
    const prose = text.replaceAll(/^ *```.*?^ *```$/gms, "");
    for (const [, target] of prose.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      links++;
      const { pathname, hash } = new URL(target, `file:///${path}`);
      const linked = `${ROOT}${decodeURIComponent(pathname)}`;
      assert((await Deno.stat(linked)).size > 0, `${path} links to ${target}`);
      if (hash === "") continue;
      assert(anchorsOf(await Deno.readTextFile(linked)).includes(hash.slice(1)), `${path} links to ${target}`);
    }
  }
  assertGreater(links, 30, "The links are read wrongly");
});

Deno.test("What a guide shows of a file of this project is in that file", async () => {
  for (const [path, text] of DOCUMENTS) {
    for (const block of blocksOf(text)) {
      const file = /^same as: (.+)/.exec(block.comment)?.[1];
      if (file !== undefined) assertStringIncludes(await document(file), block.text.trimEnd(), path);
    }
  }
});

Deno.test("examples/README.md leads to every example", async () => {
  const index = DOCUMENTS.get("examples/README.md")!;
  for await (const { name } of Deno.readDir(`${ROOT}examples`)) {
    if (name.endsWith(".ts")) assertStringIncludes(index, `](${name})`);
  }
});

Deno.test("README.md has at most 200 lines, and docs/README.md leads to every guide", async () => {
  assertLess(README.split("\n").length, 201);
  const index = DOCUMENTS.get("docs/README.md")!;
  for (const path of await documents()) {
    const name = /^docs\/(.+)/.exec(path)?.[1];
    if (name !== undefined && name !== "README.md") assertStringIncludes(index, `](${name})`);
  }
});

/** The names by which the headings of a document can be linked to. */
function anchorsOf(markdown: string): string[] {
  const headings = markdown.replaceAll(/^ *```.*?^ *```$/gms, "").matchAll(/^#+ (.+)$/gm);
  return [...headings].map(([, heading]) => heading.toLowerCase().replace(/[^\w\- ]/g, "").replaceAll(" ", "-"));
}
