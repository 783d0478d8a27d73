/**
 * The part of the site that `deno doc` makes.
 *
 * @module
 */

import type { Page } from "./sources.ts";

/** The documentation of one entry point, as text. */
export type ApiPage = Pick<Page, "title" | "url" | "markdownUrl" | "description">;

/**
 * Writes the documentation of all entry points: one page for each symbol, and one Markdown file for each entry point.
 *
 * @param root The project's folder.
 * @param output The folder to write to.
 * @param name The name of the site.
 * @returns The Markdown files, for the list of all pages.
 */
export async function writeApi(root: string, output: string, name: string): Promise<ApiPage[]> {
  const { name: packageName, exports } = JSON.parse(await Deno.readTextFile(`${root}/deno.json`)) as {
    name: string;
    exports: Record<string, string>;
  };
  await doc(root, ["--html", `--name=${name}`, `--output=${output}`, ...Object.values(exports)]);
  const specifiers = new Map(
    Object.keys(exports).map((entry) => [entry.replace("./", ""), packageName + entry.slice(1)]),
  );
  for await (const path of htmlFiles(output)) await adapt(output, path, specifiers);
  return await Promise.all(
    Object.entries(exports).map(async ([entry, module]) => {
      const file = `${entry === "." ? "index" : entry.slice(2)}.md`;
      // Without the name of the folder in which the site was built.
      const text = (await doc(root, [module])).replaceAll(new URL(`file://${root}/`).href, "");
      const specifier = packageName + entry.slice(1);
      await Deno.writeTextFile(
        `${output}/${file}`,
        `# ${specifier}\n\n\`\`\`\`\`\`text\n${text.trim()}\n\`\`\`\`\`\`\n`,
      );
      const [first] = text.split("\n\n");
      const description = first.replaceAll("\n", " ").replaceAll(/\{@link(?:code)? ([^}]+)\}/g, "$1");
      const url = `api${entry.slice(1)}/index.html`;
      return { title: specifier, url, markdownUrl: `api/${file}`, description };
    }),
  );
}

async function doc(root: string, args: string[]): Promise<string> {
  const options = { args: ["doc", ...args], cwd: root, env: { NO_COLOR: "1" } };
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), options).output();
  if (!success) throw new Error(`deno doc: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

async function* htmlFiles(folder: string, prefix = ""): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(`${folder}/${prefix}`)) {
    if (isDirectory) yield* htmlFiles(folder, `${prefix}${name}/`);
    else if (name.endsWith(".html")) yield prefix + name;
  }
}

/**
 * Adds to a page of the API a way back to the guides, what the search index reads, and styles for narrow screens; and
 * names the module of a symbol as one imports it.
 *
 * @param output The folder of the API.
 * @param path The page in it.
 * @param specifiers What one imports, by what `deno doc` calls it.
 */
async function adapt(output: string, path: string, specifiers: ReadonlyMap<string, string>): Promise<void> {
  const html = await Deno.readTextFile(`${output}/${path}`);
  const up = "../".repeat(path.split("/").length);
  const [, module = "", symbol] = /^(?:(\w+)\/)?~\/(.*)\.html$/.exec(path) ?? [];
  const title = symbol === undefined ? "" : ` data-pagefind-meta="title:${symbol} (${specifiers.get(module || ".")})"`;
  const changed = html
    .replace("<html>", '<html lang="en">')
    .replace("</head>", `<link rel="stylesheet" href="${up}api.css">$&`)
    .replace('<ul class="breadcrumbs">', `<a class="guides" href="${up}index.html">← Guides</a>$&`)
    .replace('<div id="content">', `<div id="content" data-pagefind-body${title}>`)
    .replaceAll(/ from &quot;([\w.]+)&quot;;/g, (text, name) => text.replace(name, specifiers.get(name) ?? name));
  await Deno.writeTextFile(`${output}/${path}`, changed);
}

/**
 * The pages of the API that the search index reads, by their places on the site: those of whole symbols. Members are
 * documented there as well.
 */
export async function apiPages(output: string): Promise<string[]> {
  const pages: string[] = [];
  for await (const path of htmlFiles(`${output}/api`)) if (/~\/[^.]+\.html$/.test(path)) pages.push(`api/${path}`);
  return pages;
}
