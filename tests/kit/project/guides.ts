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
import { Subprocess } from "../command.ts";
import { freePort } from "../sockets/free_port.ts";

export const ROOT: string = `${import.meta.dirname}/../../../`;
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

/** A folder of a reader, beside the project. */
export class Folder implements AsyncDisposable {
  readonly path: string;
  readonly #parent: string;
  readonly #offline: boolean;
  readonly #ports = new Map<string, string>();

  private constructor(parent: string, path: string, offline: boolean) {
    this.#parent = parent;
    this.path = path;
    this.#offline = offline;
  }

  /** Makes an empty one; `vendor/` is in it if JSR is not used here. */
  static async make(): Promise<Folder> {
    const parent = await Deno.makeTempDir({ prefix: "shouty_guide_" });
    await Deno.symlink(ROOT, `${parent}/shouty`);
    await Deno.mkdir(`${parent}/work`);
    return new Folder(parent, `${parent}/work`, await copyVendor(`${parent}/work`));
  }

  /** Writes the file that a block is, if it is one. */
  async write({ comment, text }: Block): Promise<void> {
    const name = /^file: (.+)/.exec(comment)?.[1];
    if (name === undefined) return;
    const vendored = name === "deno.json" && this.#offline;
    const content = vendored ? JSON.stringify({ vendor: true, ...JSON.parse(text) }) : text;
    await Deno.writeTextFile(`${this.path}/${name}`, this.withPorts(content));
  }

  /** The text with free ports in the place of those of the guide. */
  withPorts(text: string): string {
    return text.replace(PORTS, (port) => {
      if (!this.#ports.has(port)) this.#ports.set(port, `${freePort()}`);
      return this.#ports.get(port)!;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.#parent, { recursive: true });
  }
}

/** Does what a guide says, in an empty folder or in that of the project, and checks what each command prints. */
export async function follow(path: string, where: "folder" | "project" = "folder"): Promise<void> {
  await using folder = await Folder.make();
  await using running = new AsyncDisposableStack();
  for (const block of blocksOf(await document(path))) {
    await folder.write(block);
    if (!isRun(block)) continue;
    // In the project's folder, the guide shows what the command says by itself.
    for (const command of commandsOf(where === "folder" ? folder.withPorts(block.text) : block.text)) {
      await run(command, where === "folder" ? folder.path : ROOT, running);
    }
  }
}

/** Whether a block is a transcript that is run. */
export function isRun({ comment, language }: Block): boolean {
  return language === "console" && !comment.startsWith("not run: ");
}

/** A folder with files of a guide. */
export async function folderOf(path: string, files: string[]): Promise<Folder> {
  const folder = await Folder.make();
  for (const block of blocksOf(await document(path))) {
    if (files.includes(block.comment.replace("file: ", ""))) await folder.write(block);
  }
  return folder;
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

function commandsOf(transcript: string): Command[] {
  const commands: Command[] = [];
  for (const line of transcript.trimEnd().split("\n")) {
    if (line.startsWith("$ ")) commands.push({ line: line.slice(2), output: [] });
    else commands.at(-1)!.output.push(line);
  }
  return commands;
}

async function run({ line, output }: Command, cwd: string, running: AsyncDisposableStack): Promise<void> {
  const background = line.endsWith(" &");
  const process = start(background ? line.slice(0, -2) : line, cwd);
  if (background) {
    running.use(process);
    // `deno task` passes this signal on; if it were killed, the server that it has started would stay.
    running.defer(async () => {
      process.signal("SIGTERM");
      await process.exitCode();
    });
  }
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
  const script = /^[\w-]+( ([^|;&]|>&)*)?$/.test(line) && !/^(cd|export) /.test(line) ? `exec ${line}` : line;
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
