/**
 * Makes the pages, with Eleventy.
 *
 * @module
 */

// deno-lint-ignore-file no-import-prefix -- not in the import map, so that only the site needs npm
import Eleventy from "npm:@11ty/eleventy@3.1.8";
import type { ApiPage } from "./api.ts";
import { makeRenderer, type MapLink } from "./markdown.ts";
import { INDEX, type Page, relative, resolve, type Sources } from "./sources.ts";

/** The part of Eleventy's configuration that the site uses; the package has no types. */
interface Config {
  setLibrary(name: string, library: unknown): void;
  amendLibrary(name: string, change: (library: { enable(rule: string): void }) => void): void;
  setTemplateFormats(formats: string[]): void;
  setIncludesDirectory(folder: string): void;
  addFilter(name: string, filter: (...values: never[]) => unknown): void;
  addTemplate(path: string, content: string, data: object): void;
}

const THEME = "tools/site/theme";

/**
 * Writes one HTML file for each page.
 *
 * @param sources The pages.
 * @param api The entry points, for the list of all pages.
 * @param output The folder of the site.
 * @param name The name of the site.
 */
export async function renderPages(
  { pages, sections }: Sources,
  api: ApiPage[],
  output: string,
  name: string,
): Promise<void> {
  const reading = [pages.get("README.md")!, ...sections.flatMap((section) => section.pages)];
  const guides = pages.get(INDEX) ?? sections[0]?.pages[0];
  const eleventy = new Eleventy(THEME, output, {
    quietMode: true,
    configPath: false,
    config(config: Config) {
      config.setLibrary("md", makeRenderer());
      // Eleventy switches blocks of code that are only indented off.
      config.amendLibrary("md", (library) => library.enable("code"));
      config.setTemplateFormats(["md"]);
      config.setIncludesDirectory(".");
      config.addFilter("from", ((to: string, from: string) => relative(from, to)) as (...values: never[]) => unknown);
      for (const page of pages.values()) {
        const place = reading.indexOf(page);
        config.addTemplate(`${page.url}.md`, page.markdown, {
          ...page,
          layout: "page.njk",
          // The Markdown is no template: it may have braces.
          templateEngineOverride: "md",
          permalink: page.url,
          site: { name, sections: [...sections, { title: "API", pages: api }], guides: guides?.url },
          previous: place > 0 ? reading[place - 1] : undefined,
          next: place >= 0 ? reading[place + 1] : undefined,
          contents: page.headings.filter(({ level }) => level === 2),
          mapLink: linkMapper(page, pages),
        });
      }
    },
  });
  eleventy.disableLogger();
  await eleventy.write();
}

/** Turns links between files of the project into links between pages of the site. */
function linkMapper(page: Page, pages: Map<string, Page>): MapLink {
  return (target) => {
    const linked = resolve(page.path, target);
    if (linked === undefined) return target;
    const { path, anchor } = linked;
    const folder = path.replace(/\/?$/, "/");
    const to = pages.get(path) ?? pages.get(`${folder}README.md`) ?? pages.get(folder);
    return relative(page.url, to?.url ?? path) + anchor;
  };
}
