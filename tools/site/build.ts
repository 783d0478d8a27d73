/**
 * Builds the site: the README, the guides and what they link to with Eleventy, the API with `deno doc`, the search index
 * with Pagefind. Every page is there as Markdown, too, and `llms.txt` lists those.
 *
 * @module
 */

// deno-lint-ignore-file no-import-prefix -- not in the import map, so that only the site needs npm
import { close, createIndex } from "npm:pagefind@1.6.0";
import { type ApiPage, apiPages, writeApi } from "./api.ts";
import { deadLinks } from "./links.ts";
import { renderPages } from "./render.ts";
import { findSources, type Page, type Sources } from "./sources.ts";

/** What to build, and where. */
export interface SiteOptions {
  /** The project's folder. */
  root: string;
  /** The folder of the site. Everything in it is replaced. */
  output: string;
  /** Hears what each step has done. */
  onStep?: (what: string) => void;
}

/** Files of the theme that pages load. */
const ASSETS = ["style.css", "api.css", "theme.js"];

/** The number of calls of {@linkcode SiteOptions.onStep}. */
export const STEPS = 4;

/**
 * Builds the site.
 *
 * @throws {Error} If a link leads nowhere.
 */
export async function buildSite({ root, output, onStep = () => {} }: SiteOptions): Promise<void> {
  await Deno.remove(output, { recursive: true }).catch(ignoreMissing);
  await Deno.mkdir(output, { recursive: true });
  const sources = await findSources(root);
  const { title: name } = sources.pages.get("README.md")!;
  const api = await writeApi(root, `${output}/api`, name);
  onStep(`the API of ${api.length} entry points`);

  await renderPages(sources, api, output, name);
  await copyFiles(root, output, sources);
  await Deno.writeTextFile(`${output}/llms.txt`, listForModels(sources, api));
  onStep(`${sources.pages.size} pages`);

  onStep(`search in ${await index(output, sources)} pages`);

  const { dead, checked } = await deadLinks(output);
  if (dead.length > 0) throw new Error(`Links that lead nowhere (${dead.length}):\n  ${dead.join("\n  ")}`);
  onStep(`${checked} links, none of them dead`);
}

function ignoreMissing(error: unknown): void {
  if (!(error instanceof Deno.errors.NotFound)) throw error;
}

/** Writes what is not rendered: pictures and code as they are, each page's Markdown, and the theme. */
async function copyFiles(root: string, output: string, { pages, files }: Sources): Promise<void> {
  const put = async (path: string, content: string | Uint8Array) => {
    await Deno.mkdir(`${output}/${path}`.replace(/\/[^/]*$/, ""), { recursive: true });
    await Deno.writeFile(
      `${output}/${path}`,
      typeof content === "string" ? new TextEncoder().encode(content) : content,
    );
  };
  for (const path of files) await put(path, await Deno.readFile(`${root}/${path}`));
  for (const { markdownUrl, markdown } of pages.values()) await put(markdownUrl, markdown);
  for (const name of ASSETS) await put(name, await Deno.readFile(`${import.meta.dirname}/theme/${name}`));
}

/** The list of all pages for language models, in the form that llmstxt.org describes. */
function listForModels({ pages, sections }: Sources, api: ApiPage[]): string {
  const readme = pages.get("README.md")!;
  const listed = new Set([readme, ...sections.flatMap(({ pages }) => pages)]);
  const line = ({ title, markdownUrl, description }: Pick<Page, "title" | "markdownUrl" | "description">) =>
    `- [${title}](${markdownUrl})${description === "" ? "" : `: ${description}`}`;
  const parts = [
    { title: "Overview", pages: [readme] },
    ...sections,
    { title: "API", pages: api },
    { title: "Optional", pages: [...pages.values()].filter((page) => !listed.has(page)) },
  ].filter(({ pages }) => pages.length > 0);
  const lists = parts.map(({ title, pages }) => `## ${title}\n\n${pages.map(line).join("\n")}\n`);
  return `# ${readme.title}\n\n> ${readme.description}\n\n${lists.join("\n")}`;
}

/** Makes the search index, of the pages and of each symbol of the API; returns how many. */
async function index(output: string, { pages }: Sources): Promise<number> {
  const paths = [...[...pages.values()].map(({ url }) => url), ...await apiPages(output)];
  try {
    const { index } = succeeded(await createIndex({}));
    for (const path of paths) {
      const content = await Deno.readTextFile(`${output}/${path}`);
      succeeded(await index!.addHTMLFile({ url: path, content }));
    }
    succeeded(await index!.writeFiles({ outputPath: `${output}/pagefind` }));
  } finally {
    // Ends Pagefind's process.
    await close();
  }
  return paths.length;
}

function succeeded<Result extends { errors: string[] }>(result: Result): Result {
  if (result.errors.length > 0) throw new Error(`Pagefind: ${result.errors.join("; ")}`);
  return result;
}
