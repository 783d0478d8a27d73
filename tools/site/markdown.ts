/**
 * What the site reads from Markdown and makes of it: headings with the anchors that GitHub gives them, links, colours of
 * code. The packages are not in the import map, so that only the site needs npm.
 *
 * @module
 */

// deno-lint-ignore-file no-import-prefix -- see above
import hljs from "npm:highlight.js@11.12.0";
import MarkdownIt from "npm:markdown-it@14.3.3";

/** A part of a parsed document; the fields of markdown-it's tokens that the site uses. */
export interface Token {
  type: string;
  tag: string;
  content: string;
  children: Token[] | null;
  attrGet(name: string): string | null;
  attrSet(name: string, value: string): void;
}

/** A heading, and the anchor that leads to it; the title of a page has none. */
export interface Heading {
  level: number;
  text: string;
  id: string | null;
}

/** What a document says about itself. */
export interface Outline {
  /** The text of its first heading; empty without one. */
  title: string;
  /** The text of its first paragraph. */
  description: string;
  headings: Heading[];
  /** Where its links and pictures lead, as they are written, in the order of the document. */
  links: { target: string; heading: string }[];
}

/** Where a link leads on the site, given where it leads in the project. */
export type MapLink = (target: string) => string;

/** A Markdown renderer as Eleventy uses one: `env` is the data of the page. */
export interface Renderer {
  render(text: string, env: { mapLink: MapLink }): string;
  parse(text: string, env: object): Token[];
}

/** Makes a renderer. Eleventy changes the one that it gets, so that each build needs its own. */
export function makeRenderer(): Renderer {
  // deno-lint-ignore no-explicit-any -- the package has no types
  const md: any = new MarkdownIt({ html: true, highlight });
  md.core.ruler.push("site", ({ tokens, env }: { tokens: Token[]; env: { mapLink?: MapLink } }) => {
    nameHeadings(tokens);
    if (env.mapLink !== undefined) mapLinks(tokens, env.mapLink);
  });
  // Wide tables scroll by themselves: the page stays as wide as the screen. The keyboard has to reach them.
  md.renderer.rules.table_open = () => '<div class="wide" tabindex="0"><table>\n';
  md.renderer.rules.table_close = () => "</table></div>\n";
  const fence = md.renderer.rules.fence;
  md.renderer.rules.fence = (...args: unknown[]) => scrollable(fence(...args));
  const block = md.renderer.rules.code_block;
  md.renderer.rules.code_block = (...args: unknown[]) => scrollable(block(...args));
  return md;
}

function scrollable(html: string): string {
  return html.replace("<pre>", '<pre tabindex="0">');
}

/** Colours code of a known language; an empty result leaves the code to the renderer. */
function highlight(code: string, language: string): string {
  return hljs.getLanguage(language) ? hljs.highlight(code, { language }).value : "";
}

/** Gives each heading an anchor, except the title of the page. */
function nameHeadings(tokens: Token[]): void {
  const used = new Set<string>();
  tokens.forEach((token, i) => {
    if (token.type !== "heading_open") return;
    const id = anchorOf(plain(tokens[i + 1]), used);
    // Without an anchor for the whole page, which the search would list twice.
    if (token.tag !== "h1") token.attrSet("id", id);
  });
}

/**
 * The anchor of a heading, by GitHub's rule: letters, digits, hyphens and underscores; a number tells those that are
 * the same apart.
 */
function anchorOf(text: string, used: Set<string>): string {
  const base = text.toLowerCase().replaceAll(/[^\p{L}\p{M}\p{N}\p{Pc} -]/gu, "").replaceAll(" ", "-");
  let anchor = base;
  for (let i = 1; used.has(anchor); i++) anchor = `${base}-${i}`;
  used.add(anchor);
  return anchor;
}

/** Changes where the links and pictures of a document lead. */
function mapLinks(tokens: Token[], mapLink: MapLink): void {
  for (const token of tokens.flatMap(({ children }) => children ?? [])) {
    const name = linkAttribute(token);
    const target = name && token.attrGet(name);
    if (target) token.attrSet(name, mapLink(target));
  }
}

function linkAttribute({ type }: Token): string {
  return { link_open: "href", image: "src" }[type] ?? "";
}

/** The text of an inline token, without marks. */
function plain({ children }: Token): string {
  return (children ?? []).map(({ type, content }) => type === "softbreak" ? " " : content).join("");
}

/** Whether a paragraph is only a picture. */
function isPicture({ children }: Token): boolean {
  return children?.length === 1 && children[0].type === "image";
}

const PARSER = makeRenderer();

/** Reads what a document says about itself. */
export function outline(text: string): Outline {
  const tokens = PARSER.parse(text, {});
  const found: Outline = { title: "", description: "", headings: [], links: [] };
  let heading = "";
  tokens.forEach((token, i) => {
    if (token.type === "heading_open") {
      heading = plain(tokens[i + 1]);
      found.headings.push({ level: Number(token.tag.slice(1)), text: heading, id: token.attrGet("id") });
      found.title ||= heading;
    } else if (token.type === "paragraph_open" && !isPicture(tokens[i + 1])) found.description ||= plain(tokens[i + 1]);
    for (const child of token.children ?? []) {
      const target = child.attrGet(linkAttribute(child));
      if (target) found.links.push({ target, heading });
    }
  });
  return found;
}
