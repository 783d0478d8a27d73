import { assertEquals, assertGreater } from "@std/assert";
import { test } from "../../kit/bounded.ts";
import { filesBelow, readFile } from "../../kit/project/files.ts";

/** The code: files, and folders. */
const FILES = ["cli.ts", "client.ts", "conn.ts", "mod.ts", "server.ts"];
const FOLDERS = ["bench", "cli", "create", "examples", "internal", "ops", "testing", "tests", "tools"];

/** Maximum lines of code of a file, without its comments, but for these files. */
const MAX_FILE = 250;
const MAX_OF_FILE: Readonly<Record<string, number>> = { "conn.ts": 220 };

/** Maximum lines of code of a function, without its comments and without the functions within it. */
const MAX_FUNCTION = 30;

/** The first and the last line of a function, from 0. */
type Span = readonly [first: number, last: number];

test("no file has more than 250 lines of code, and conn.ts not more than 220", async () => {
  const long: string[] = [];
  for (const path of await sources()) {
    const count = codeLines(await readFile(path)).filter((isCode) => isCode).length;
    if (count > (MAX_OF_FILE[path] ?? MAX_FILE)) long.push(`${path} has ${count}`);
  }
  assertEquals(long, []);
});

test("no function has more than 30 lines of code", async () => {
  const long: string[] = [];
  let functions = 0;
  for (const path of await sources()) {
    if (path.startsWith("tests/")) continue;
    const text = await readFile(path);
    const isCode = codeLines(text);
    const spans = functionsOf(path, text);
    functions += spans.length;
    for (const [first, last] of spans) {
      const inner = spans.filter(([from, to]) => from >= first && to <= last && to - from < last - first && from < to);
      let count = 0;
      for (let line = first; line <= last; line++) {
        if (isCode[line] && !inner.some(([from, to]) => from < line && line <= to)) count++;
      }
      if (count > MAX_FUNCTION) long.push(`${path}:${first + 1} has ${count}`);
    }
  }
  assertGreater(functions, 1000, "The functions are not found");
  assertEquals(long, []);
});

async function sources(): Promise<string[]> {
  const below = (await Promise.all(FOLDERS.map(filesBelow))).flat();
  return [...FILES, ...below.filter((path) => path.endsWith(".ts"))];
}

/** Whether each line of a text is code: neither empty nor a comment. */
function codeLines(text: string): boolean[] {
  return text.split("\n").map((line) => !/^\s*($|\/\/|\/?\*)/.test(line));
}

/** Returns where the functions of a file are. */
function functionsOf(path: string, text: string): Span[] {
  const ends = [...text.matchAll(/\n/g)].map(({ index }) => index);
  const lineOf = (offset: number) => ends.filter((end) => end < offset).length;
  const spans: Span[] = [];
  const add = ({ range: [from, to] }: { range: [number, number] }) => void spans.push([lineOf(from), lineOf(to)]);
  const visitor = { FunctionDeclaration: add, FunctionExpression: add, ArrowFunctionExpression: add };
  Deno.lint.runPlugin({ name: "sizes", rules: { functions: { create: () => visitor } } }, path, text);
  return spans;
}
