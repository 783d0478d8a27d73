/**
 * What belongs to the site: the README, every guide, and what they link to. No list of pages is kept anywhere: a new
 * file in `docs/` is on the site, and `docs/README.md` says in which order.
 *
 * @module
 */

import { type Heading, outline } from "./markdown.ts";

/** A page made of Markdown. */
export interface Page {
  /** The file in the project; a folder ends with a slash. */
  path: string;
  /** The page on the site, relative to its root. */
  url: string;
  /** Its Markdown on the site. */
  markdownUrl: string;
  markdown: string;
  title: string;
  description: string;
  headings: Heading[];
}

/** The pages of a part of the site. */
export interface Section {
  title: string;
  pages: Page[];
}

/** Everything that the site consists of, except what `deno doc` makes. */
export interface Sources {
  /** By path in the project. */
  pages: Map<string, Page>;
  /** Files to copy as they are: pictures, and the code that pages show. */
  files: Set<string>;
  /** The pages in the order in which the site shows them. */
  sections: Section[];
}

const PICTURES = /\.(svg|png|jpg|webp)$/;
/** The page that puts the guides in order, if there is one. */
export const INDEX = "docs/README.md";

/**
 * Finds the pages.
 *
 * @param root The project's folder.
 */
export async function findSources(root: string): Promise<Sources> {
  const pages = new Map<string, Page>();
  const files = new Set<string>();
  const order: { path: string; section: string }[] = [];
  const guides = (await namesIn(`${root}/docs`)).filter((name) => name.endsWith(".md")).map((name) => `docs/${name}`);
  const found = [{ path: "README.md", from: "" }, ...guides.map((path) => ({ path, from: "" }))];
  for (const { path, from } of found) {
    if (pages.has(path) || files.has(path)) continue;
    if (PICTURES.test(path)) {
      files.add(path);
      continue;
    }
    const markdown = await readPage(root, path, from);
    if (!path.endsWith(".md")) files.add(path);
    const { links, ...rest } = outline(markdown);
    pages.set(path, { path, markdown, ...rest, ...urlsOf(path) });
    for (const { target, heading } of links) {
      const linked = resolve(path, target);
      if (linked === undefined) continue;
      const existing = await existingPath(root, linked.path);
      if (existing === undefined) throw new Error(`${path} links to ${linked.path}, which does not exist`);
      found.push({ path: existing, from: path });
      if (path === INDEX) order.push({ path: existing, section: heading });
    }
  }
  for (const path of files) if (path.endsWith("/")) files.delete(path);
  return { pages, files, sections: arrange(pages, order) };
}

async function namesIn(folder: string): Promise<string[]> {
  return (await Array.fromAsync(Deno.readDir(folder), ({ name }) => name)).toSorted();
}

/** Returns the file to which a link leads: in a folder, its README if it has one. Undefined if there is nothing. */
async function existingPath(root: string, path: string): Promise<string | undefined> {
  try {
    if ((await Deno.stat(`${root}/${path}`)).isFile) return path;
    const folder = path.replace(/\/?$/, "/");
    return await existingPath(root, `${folder}README.md`) ?? folder;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw error;
  }
}

/** Reads a page: Markdown as it is, code as the only content of a page, the files of a folder one below the other. */
async function readPage(root: string, path: string, from: string): Promise<string> {
  if (path.endsWith(".md")) return await Deno.readTextFile(`${root}/${path}`);
  if (!path.endsWith("/")) {
    return `# \`${path}\`\n\nLinked from [${from}](${relative(path, from)}).\n\n${await code(root, path)}`;
  }
  const parts = [`# \`${path}\`\n\nLinked from [${from}](${relative(path, from)}).`];
  for (const name of await namesIn(`${root}/${path}`)) {
    if ((await Deno.stat(`${root}/${path}${name}`)).isFile) {
      parts.push(`## \`${name}\`\n\n${await code(root, `${path}${name}`)}`);
    }
  }
  return parts.join("\n\n");
}

async function code(root: string, path: string): Promise<string> {
  const text = await Deno.readTextFile(`${root}/${path}`);
  const language = /(?:\.|\/)([\w]+)$/.exec(path)?.[1].toLowerCase() ?? "";
  // Longer than any fence in the file.
  return `\`\`\`\`\`\`${language}\n${text.trimEnd()}\n\`\`\`\`\`\`\n`;
}

/** Where a page is on the site. `README.md` is what a folder shows; its Markdown keeps its name, as links use that. */
function urlsOf(path: string): { url: string; markdownUrl: string } {
  if (path.endsWith("/")) return { url: `${path}index.html`, markdownUrl: `${path}index.md` };
  if (!path.endsWith(".md")) return { url: `${path}.html`, markdownUrl: `${path}.md` };
  return { url: path.replace(/(^|\/)README\.md$/, "$1index.md").replace(/\.md$/, ".html"), markdownUrl: path };
}

/** Returns the path in the project to which a link of a page leads; undefined if it leads elsewhere. */
export function resolve(page: string, target: string): { path: string; anchor: string } | undefined {
  if (/^(\w+:|#|\/\/)/.test(target)) return undefined;
  const { pathname, hash } = new URL(target, `file:///${page}`);
  return { path: decodeURIComponent(pathname.slice(1)), anchor: hash };
}

/** The relative link from one place of the site to another. */
export function relative(from: string, to: string): string {
  const [here, there] = [from.split("/").slice(0, -1), to.split("/")];
  let same = 0;
  while (same < here.length && here[same] === there[same]) same++;
  return "../".repeat(here.length - same) + there.slice(same).join("/");
}

/** Puts the pages in order: as `docs/README.md` lists them, then the other guides, then what they link to. */
function arrange(pages: Map<string, Page>, order: { path: string; section: string }[]): Section[] {
  const sections = new Map<string, Set<Page>>();
  const placed = new Set(["README.md", INDEX]);
  const place = (path: string, title: string) => {
    const page = pages.get(path);
    if (page === undefined || placed.has(path)) return;
    placed.add(path);
    sections.set(title, (sections.get(title) ?? new Set()).add(page));
  };
  for (const { path, section } of order) place(path, section);
  for (const path of pages.keys()) if (path.startsWith("docs/")) place(path, order.length > 0 ? "More" : "Guides");
  for (const path of pages.keys()) if (path.endsWith(".md")) place(path, "The project");
  return [...sections].map(([title, pages]) => ({ title, pages: [...pages] }));
}
