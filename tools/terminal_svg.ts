/**
 * Draws `docs/terminal.svg`: two terminals, one with the server and one with `telnet`, as they look in a real run.
 *
 * `deno run -A tools/terminal_svg.ts` runs both, with port 8080, and writes the drawing. It needs `telnet` and the
 * `script` of util-linux, which gives `telnet` a terminal. A test does the same and compares.
 *
 * @module
 */

import { Subprocess } from "../tests/kit/command.ts";

const DRAWING = `${import.meta.dirname}/../docs/terminal.svg`;
const TYPED = ["Hello. How are you?", "Ok. Be shouty!", "I'm going away. Bye!"];

/** The lines of a terminal. */
export interface Terminal {
  title: string;
  lines: string[];
}

/** Runs the server and a client, and returns what their terminals show. */
export async function record(port: number): Promise<Terminal[]> {
  const flags = ["--port", String(port), "--idle-timeout", "3s"];
  await using server = new Subprocess(Deno.execPath(), ["task", "-q", "start", ...flags]);
  await server.stderrMatch(/listening on \S+\n/);
  const telnet = ["--quiet", "--return", "--command", `telnet 127.0.0.1 ${port}`, "/dev/null"];
  await using client = new Subprocess("script", telnet, { env: { SHELL: "/bin/sh" } });
  await client.stdoutMatch(/Escape character/);
  for (const line of TYPED) {
    await client.type(`${line}\n`);
    await client.stdoutMatch(new RegExp(`^${line.toUpperCase().replace(/[.?]/g, "\\$&")}\r?\n`, "m"));
  }
  const { stdout } = await client.outcome();
  await server.stderrMatch(/closing connection.*\n/);
  server.signal("SIGINT");
  const { stderr } = await server.outcome();
  const [log, end] = stderr.trimEnd().split(/\n(?=\S+ info shutting down)/);
  return [
    {
      title: "a server",
      lines: [`$ deno task -q start ${flags.join(" ")}`, ...log.split("\n"), "^C", ...end.split("\n")],
    },
    { title: "a client", lines: [`$ telnet 127.0.0.1 ${port}`, ...stdout.trimEnd().split(/\r?\n/)] },
  ];
}

/** The width of a character of 14 px, in the widest of the fonts. */
const CHARACTER = 8.7;
const LINE = 20;
const BAR = 30;
const PADDING = 14;
const GAP = 14;
const COLORS: [RegExp, string][] = [
  [/^\$ .*/, "#ffffff"],
  [/^\^C/, "#ff9d76"],
  [/^\d{4}-\S+Z info/, "#7d8aa5"],
];
const TEXT = "#c9d4ea";

/** Draws terminals, one above the other. */
export function draw(terminals: Terminal[]): string {
  const longest = Math.max(...terminals.flatMap(({ lines }) => lines.map((line) => line.length)));
  const width = Math.ceil(longest * CHARACTER + 2 * PADDING);
  const parts: string[] = [];
  let y = 0;
  for (const { title, lines } of terminals) {
    const height = BAR + 2 * PADDING + lines.length * LINE - 4;
    parts.push(`<rect y="${y}" width="${width}" height="${height}" rx="9" fill="#1b2130"/>`);
    parts.push(
      `<path d="M0 ${y + BAR}V${y + 9}a9 9 0 0 1 9-9h${width - 18}a9 9 0 0 1 9 9v${BAR - 9}z" fill="#2b3348"/>`,
    );
    parts.push(`<text class="title" x="${width / 2}" y="${y + 20}" text-anchor="middle">${title}</text>`);
    lines.forEach((line, row) => {
      const top = y + BAR + PADDING + 12 + row * LINE;
      parts.push(`<text class="line" x="${PADDING}" y="${top}" xml:space="preserve">${colored(line)}</text>`);
    });
    y += height + GAP;
  }
  const height = y - GAP;
  const alt = "Two terminals: a server that logs each connection, and telnet, whose lines come back in upper case";
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${alt}">
<style>
text { font: 14px ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: ${TEXT}; }
.title { font-size: 13px; fill: #8f9bb5; }
</style>
${parts.join("\n")}
</svg>
`;
}

function colored(line: string): string {
  for (const [pattern, color] of COLORS) {
    const part = pattern.exec(line)?.[0];
    if (part !== undefined) return `<tspan fill="${color}">${escape(part)}</tspan>${escape(line.slice(part.length))}`;
  }
  const typed = TYPED.includes(line);
  return typed ? `<tspan fill="#ffffff">${escape(line)}</tspan>` : escape(line);
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** The lines that a drawing shows. */
export function linesOf(svg: string): string[] {
  const lines = svg.matchAll(/<text class="line"[^>]*>(.*)<\/text>/g);
  return [...lines].map(([, text]) =>
    text.replaceAll(/<[^>]*>/g, "").replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&")
  );
}

if (import.meta.main) await Deno.writeTextFile(DRAWING, draw(await record(8080)));
