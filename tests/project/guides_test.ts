import { test } from "../kit/bounded.ts";
import { assertEquals, assertMatch } from "@std/assert";
import { converse, Subprocess } from "../kit/command.ts";
import { blocksOf, document, documents, folderOf, follow, isRun } from "../kit/guides.ts";

// The guides are for a shell of Unix.
const NO_SHELL = Deno.build.os === "windows" ? " (skipped: Windows has no bash)" : "";

for (const path of await documents()) {
  const transcripts = blocksOf(await document(path)).filter(isRun);
  if (transcripts.length === 0) continue;
  const where = path === "docs/command.md" ? "project" : "folder";
  test(`${path} prints what it says`, () => follow(path, where), 240, NO_SHELL);
}

test("The server of the README's first screen runs as it stands", async () => {
  await using folder = await folderOf("docs/first_protocol.md", ["deno.json"]);
  for (const block of blocksOf(await document("README.md"))) await folder.write(block);
  const args = ["run", "--allow-net", "server.ts"];
  await using server = new Subprocess(Deno.execPath(), args, { cwd: folder.path });
  const [, port] = await server.stdoutMatch(/listening on 0\.0\.0\.0:(\d+)/);
  assertEquals(await converse({ hostname: "127.0.0.1", port: Number(port) }, "hello\n"), "You said hello\n");
}, 240);

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
  NO_SHELL,
);
