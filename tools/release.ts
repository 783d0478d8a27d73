/**
 * The steps of a release, which `.github/workflows/release.yml` runs one by one: `deno task release`. A test rehearses
 * them (`tests/release/release_test.ts`).
 *
 * @module
 */

const USAGE = `Usage: deno task release STEP

  check TAG              fails unless TAG is the version in deno.json, and the changelog begins with it
  notes                  prints what the changelog says about this version
  compile [TARGET...]    makes an archive with one executable for each target, by default all five
  checksums              writes SHA256SUMS, which "sha256sum -c" checks
  publish [FLAG...]      publishes to JSR; the flags are those of "deno publish"

compile and checksums write to dist/release.`;

/** What executables are made for, as `deno compile --target` calls it. */
export const TARGETS: readonly string[] = [
  "x86_64-unknown-linux-gnu",
  "aarch64-unknown-linux-gnu",
  "x86_64-apple-darwin",
  "aarch64-apple-darwin",
  "x86_64-pc-windows-msvc",
];

const FOLDER = "dist/release";

class StepError extends Error {
  override name = "StepError";
}

const STEPS: Readonly<Record<string, (args: string[]) => Promise<void>>> = {
  check: ([tag = ""]) => check(tag),
  notes: async () => console.log(await notes()),
  compile: (targets) => compile(targets.length > 0 ? targets : TARGETS),
  checksums,
  publish: (flags) => run(Deno.execPath(), ["publish", ...flags]),
};

async function version(): Promise<string> {
  return JSON.parse(await Deno.readTextFile("deno.json")).version;
}

/** What is published cannot be taken back: a mistake has to show before. */
async function check(tag: string): Promise<void> {
  const expected = `v${await version()}`;
  if (tag !== expected) throw new StepError(`The tag is "${tag}", but the version in deno.json makes it "${expected}"`);
  if (await notes() === "") throw new StepError(`CHANGELOG.md says nothing about ${expected.slice(1)}`);
  console.log(`${tag} can be released`);
}

/** Returns the section of the changelog about this version, which has to be the first. */
async function notes(): Promise<string> {
  const changelog = await Deno.readTextFile("CHANGELOG.md");
  const [, first = "", text = ""] = /^## (\S+).*\n([^]*?)(?=^## |$(?![^]))/m.exec(changelog) ?? [];
  const expected = await version();
  if (first === expected) return text.trim();
  throw new StepError(`CHANGELOG.md begins with "${first}", but the version in deno.json is "${expected}"`);
}

/** An archive keeps the right to execute the file, which a bare file loses on its way through a browser. */
async function compile(targets: readonly string[]): Promise<void> {
  const unknown = targets.find((target) => !TARGETS.includes(target));
  if (unknown !== undefined) throw new StepError(`There is no target "${unknown}", only ${TARGETS.join(", ")}`);
  await Deno.mkdir(FOLDER, { recursive: true });
  for (const target of targets) {
    const folder = await Deno.makeTempDir({ prefix: "shouty_release_" });
    try {
      await run(Deno.execPath(), ["task", "--quiet", "compile", "--target", target, "--output", `${folder}/shouty`]);
      await Deno.copyFile("LICENSE", `${folder}/LICENSE`);
      const archive = `shouty-${await version()}-${target}.tar.gz`;
      const program = target.includes("windows") ? "shouty.exe" : "shouty";
      await run("tar", ["-czf", `${FOLDER}/${archive}`, "-C", folder, program, "LICENSE"]);
      console.log(archive);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  }
}

async function checksums(): Promise<void> {
  const names = await Array.fromAsync(Deno.readDir(FOLDER), ({ name }) => name);
  const archives = names.filter((name) => name.endsWith(".tar.gz")).toSorted();
  const lines = await Promise.all(archives.map(async (name) => {
    const digest = await crypto.subtle.digest("SHA-256", await Deno.readFile(`${FOLDER}/${name}`));
    return `${new Uint8Array(digest).toHex()}  ${name}\n`;
  }));
  await Deno.writeTextFile(`${FOLDER}/SHA256SUMS`, lines.join(""));
  console.log(`SHA256SUMS of ${archives.length} archives`);
}

/** Runs a program in the project's folder; it says itself what is wrong. */
async function run(program: string, args: string[]): Promise<void> {
  const { success } = await new Deno.Command(program, { args, stdin: "null" }).spawn().status;
  if (!success) throw new StepError(`${program} ${args.join(" ")} has failed`);
}

if (import.meta.main) {
  Deno.chdir(new URL("..", import.meta.url));
  const [name = "", ...args] = Deno.args;
  const step = Object.hasOwn(STEPS, name) ? STEPS[name] : undefined;
  try {
    if (name === "--help") console.log(USAGE);
    else if (step === undefined) throw new StepError(`There is no step "${name}"; --help lists what there is`);
    else await step(args);
  } catch (error) {
    if (!(error instanceof StepError)) throw error;
    console.error(`release: ${error.message}`);
    Deno.exitCode = step === undefined ? 2 : 1;
  }
}
