import { test } from "../../kit/bounded.ts";
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { converse, NO_SIGNALS, Subprocess } from "../../kit/command.ts";
import { missingProgram } from "../../kit/foreign/foreign.ts";
import { blocksOf, document, documents, folderOf, follow, isRun, ROOT } from "../../kit/project/guides.ts";

// The guides are for a shell of Unix.
const NO_SHELL = Deno.build.os === "windows"
  ? " (skipped: Windows has no bash)"
  : await missingProgram("bash", "--version");
const NO_OPENSSL = await missingProgram("openssl", "version");

for (const path of await documents()) {
  const transcripts = blocksOf(await document(path)).filter(isRun);
  if (transcripts.length === 0) continue;
  const where = path === "docs/command.md" ? "project" : "folder";
  const missing = NO_SHELL || (transcripts.some(({ text }) => /^\$ openssl /m.test(text)) ? NO_OPENSSL : "");
  test(`${path} prints what it says`, () => follow(path, where), 240, missing);
}

test("The server of the README's first screen runs as it stands", async () => {
  await using folder = await folderOf("docs/first_protocol.md", ["deno.json"]);
  for (const block of blocksOf(await document("README.md"))) await folder.write(block);
  const args = ["run", "--allow-net", "hello.ts"];
  await using server = new Subprocess(Deno.execPath(), args, { cwd: folder.path });
  const [, port] = await server.stdoutMatch(/listening on 0\.0\.0\.0:(\d+)/);
  assertEquals(await converse({ hostname: "127.0.0.1", port: Number(port) }, "hello\n"), "You said hello\n");
}, 240);

// A reader who wrote the README's first server as server.ts into the clone replaced the library's own file.
test("No file that the README asks for in the clone is a file of the project", async () => {
  const files = blocksOf(await document("README.md")).map(({ comment }) => /^file: (.+)/.exec(comment)?.[1]);
  for (const file of files.filter((name) => name !== undefined)) {
    await assertRejects(() => Deno.stat(`${ROOT}${file}`), Deno.errors.NotFound);
  }
}, 60);

// No image is built here, which needs a daemon and a registry: the commands of the Dockerfile run in a folder.
test(
  "The Dockerfile of docs/container.md copies what its server needs, and starts it",
  async () => {
    const dockerfile = blocksOf(await document("docs/container.md")).find(({ comment }) =>
      comment === "file: Dockerfile"
    );
    const instruction = (name: string) => new RegExp(`^${name} (.+)$`, "m").exec(dockerfile!.text)![1];
    const files = instruction("COPY").split(" ").slice(0, -1);
    await using folder = await folderOf("docs/first_protocol.md", files);
    const [program, ...args] = instruction("RUN").split(" ");
    const cached = await new Deno.Command(program, { args, cwd: folder.path }).output();
    assertEquals(cached.code, 0, new TextDecoder().decode(cached.stderr));
    const [entry, ...rest] = JSON.parse(instruction("ENTRYPOINT"));
    await using server = new Subprocess(entry, rest, { cwd: folder.path });
    await server.stdoutMatch(/listening/);
    server.signal("SIGTERM");
    assertMatch((await server.outcome()).stdout, /all connections closed/);
  },
  240,
  NO_SIGNALS,
);
