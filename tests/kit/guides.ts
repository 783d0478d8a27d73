/**
 * Reads the documents in `docs/` and runs the transcripts in them.
 *
 * - A comment `<!-- file: NAME -->` before a block of code makes the block that file of the reader's folder.
 * - A comment `<!-- same as: PATH -->` says that the block is a file of this project, or a part of one.
 * - A block `console` is a transcript: lines that begin with `$ ` are commands, the others what they print. A command
 *   that ends in ` &` runs until the guide ends. `^C` on a line of its own is a Ctrl-C.
 * - A comment `<!-- not run: REASON -->` before a transcript excepts it.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { Subprocess } from "./command.ts";

export const ROOT: string = new URL("../..", import.meta.url).pathname;
/** The ports in the guides; a run takes free ones in their place. */
const PORTS = /\b(?:8080|8081|8443|7000)\b/g;

/** A block of code in a document. */
export interface Block {
  /** The comment before it, such as `file: guess.ts`; empty if there is none. */
  comment: string;
  /** What follows the opening backquotes, such as `ts ignore`. */
  language: string;
  text: string;
}

/** One command of a transcript and what it prints. */
interface Command {
  line: string;
  output: string[];
}

/** The blocks of a document, in order. */
export function blocksOf(markdown: string): Block[] {
  const blocks = markdown.matchAll(/(?:^<!-- (.+?) -->\n+)?^( *)```([^\n]*)\n(.*?)^ *```$/gms);
  return [...blocks].map(([, comment = "", indent, language, text]) => ({
    comment,
    language,
    text: text.replaceAll(new RegExp(`^${indent}`, "gm"), ""),
  }));
}

/** The document's text; by its path from the project's folder. */
export async function document(path: string): Promise<string> {
  return await Deno.readTextFile(`${ROOT}${path}`);
}

/** The paths of README.md and of all guides. */
export async function documents(): Promise<string[]> {
  const paths = ["README.md"];
  for await (const { name } of Deno.readDir(`${ROOT}docs`)) if (name.endsWith(".md")) paths.push(`docs/${name}`);
  return paths.sort();
}

/** Does what a guide says, in an empty folder beside the project, and checks what each command prints. */
export async function follow(path: string): Promise<void> {
  const blocks = blocksOf(await document(path));
  const parent = await Deno.makeTempDir({ prefix: "shouty_guide_" });
  const ports = new Map<string, string>();
  const running: Subprocess[] = [];
  try {
    await Deno.symlink(ROOT, `${parent}/shouty`);
    const cwd = path === "README.md" || path === "docs/command.md" ? ROOT : `${parent}/work`;
    await Deno.mkdir(`${parent}/work`);
    const offline = await copyVendor(`${parent}/work`);
    for (const { comment, language, text } of blocks) {
      const name = /^file: (.+)/.exec(comment)?.[1];
      const content = name === "deno.json" && offline ? JSON.stringify({ vendor: true, ...JSON.parse(text) }) : text;
      if (name !== undefined) await writeFile(`${cwd}/${name}`, replacePorts(content, ports));
      if (language !== "console" || comment.startsWith("not run: ")) continue;
      for (const command of commandsOf(replacePorts(text, ports))) await run(command, cwd, running);
    }
  } finally {
    for (const process of running) await process[Symbol.asyncDispose]();
    await Deno.remove(parent, { recursive: true });
  }
}

/** Copies the modules of `vendor/`, which stand in for JSR; as `docs/offline.md` says. Returns whether there are any. */
async function copyVendor(to: string): Promise<boolean> {
  try {
    await Deno.stat(`${ROOT}vendor`);
  } catch {
    return false;
  }
  const { code } = await new Deno.Command("cp", { args: ["-r", `${ROOT}vendor`, to] }).output();
  return code === 0;
}

async function writeFile(path: string, text: string): Promise<void> {
  await Deno.mkdir(path.replace(/\/[^/]*$/, ""), { recursive: true });
  await Deno.writeTextFile(path, text);
}

function commandsOf(transcript: string): Command[] {
  const commands: Command[] = [];
  for (const line of transcript.trimEnd().split("\n")) {
    if (line.startsWith("$ ")) commands.push({ line: line.slice(2), output: [] });
    else commands.at(-1)!.output.push(line);
  }
  return commands;
}

async function run({ line, output }: Command, cwd: string, running: Subprocess[]): Promise<void> {
  const background = line.endsWith(" &");
  const process = start(background ? line.slice(0, -2) : line, cwd);
  if (background) running.push(process);
  const interrupted = output.indexOf("^C");
  if (background || interrupted >= 0) await seen(process, background ? output : output.slice(0, interrupted));
  if (background) return;
  await using _process = process;
  if (interrupted >= 0) process.signal("SIGINT");
  const outcome = await process.outcome();
  const printed = outcome.stdout.split("\n").filter((text) => !PROGRESS.test(text)).join("\n");
  const expected = output.filter((text) => text !== "^C").join("\n");
  assertEquals(comparable(printed), comparable(expected), `$ ${line}\n${outcome.stdout}`);
}

/** Waits until a process that goes on has printed these lines. */
async function seen(process: Subprocess, lines: string[]): Promise<void> {
  const patterns = lines.map((line) => comparable(line).replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const loose = patterns.map((pattern) =>
    pattern.replaceAll("TIME", "\\S+").replaceAll("ADDRESS", "127\\.0\\.0\\.1:\\d+")
  );
  if (lines.length > 0) await process.stdoutMatch(new RegExp(loose.join("\\n(?:.*\\n)*?")));
}

/** Starts a command in a shell; everything that it prints is one stream. */
function start(line: string, cwd: string): Subprocess {
  const path = `${Deno.execPath().replace(/\/[^/]*$/, "")}:${Deno.env.get("PATH")}`;
  const env = { PATH: path, DENO_NO_UPDATE_CHECK: "1" };
  // The shell gives its place to the last command, so that a signal reaches it.
  const script = /^[\w-]+( [^|;&<>]*)?$/.test(line) && !/^(cd|export) /.test(line) ? `exec ${line}` : line;
  return new Subprocess("bash", ["-c", `exec 2>&1; ${script}`], { cwd, env });
}

/** Lines in which Deno reports its own progress. */
const PROGRESS = /^(?:Check|Download|Initialize) /;

/** Text without what differs from run to run: times, durations, and the ports of clients. */
function comparable(text: string): string {
  return text.trimEnd()
    .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "TIME")
    .replace(/127\.0\.0\.1:(?:3[2-9]|[45]\d|6[0-5])\d{3}\b/g, "ADDRESS")
    .replace(/\b[\d.]+ ?(?:ms|s)\b/g, "DURATION");
}

function replacePorts(text: string, ports: Map<string, string>): string {
  return text.replace(PORTS, (port) => {
    if (!ports.has(port)) ports.set(port, freePort());
    return ports.get(port)!;
  });
}

/** A port below those that the system gives to clients, so that none of them takes it meanwhile. */
function freePort(): string {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    try {
      Deno.listen({ port }).close();
      return String(port);
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
}
