import { assertEquals, assertGreater } from "@std/assert";
import { tooOld } from "../../cli/system/deno_version.ts";
import { Subprocess } from "../kit/command.ts";
import { filesBelow, readFile } from "../kit/project/files.ts";

Deno.test("Deno from 2.9.5 on will do, and every older one is refused by its version", () => {
  for (const version of ["2.9.5", "2.9.5-rc.1", "2.9.6+abc123", "2.10.0", "3.0.0", Deno.version.deno, "unknown"]) {
    assertEquals(tooOld(version), undefined, version);
  }
  for (const version of ["2.9.4", "2.8.9", "1.46.3", "2.9.4+abc123", "0.42.0"]) {
    assertEquals(tooOld(version), `needs Deno 2.9.5 or newer, and this is ${version}`);
  }
});

for (const [what, entry] of [["deno run", "mod.ts"], ["deno task, which runs setup first,", "tools/setup.ts"]]) {
  Deno.test(`An older Deno gets one line and nothing else from ${what} and exit code 1`, async () => {
    const old = await Deno.makeTempFile({ suffix: ".ts" });
    await Deno.writeTextFile(old, `Object.defineProperty(Deno, "version", { value: { deno: "2.9.4" } });`);
    const args = ["run", "--no-prompt", "--allow-net", "--allow-env=JSR_URL", "--preload", old, entry, "--port=0"];
    await using process = new Subprocess(Deno.execPath(), args);
    const { code, stdout, stderr } = await process.outcome();
    await Deno.remove(old);
    assertEquals([code, stdout, stderr], [1, "", "shouty: needs Deno 2.9.5 or newer, and this is 2.9.4\n"]);
  });
}

Deno.test("No module has a cast before a <, which Deno 2.2 and older cannot parse, and so not refuse with one line", async () => {
  // What the command may load.
  const paths = (await Promise.all(["cli", "internal", "ops"].map(filesBelow))).flat();
  const modules = [...paths, "mod.ts", "cli.ts", "client.ts", "server.ts", "conn.ts"].filter((path) =>
    /\.ts$/.test(path)
  );
  assertGreater(modules.length, 100, "The modules are read wrongly");
  const texts = await Promise.all(modules.map(readFile));
  assertEquals(modules.filter((_, i) => / as \w+ <=? /.test(texts[i])), []);
});
