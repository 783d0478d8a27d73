/**
 * Finds links that lead nowhere.
 *
 * @module
 */

/** Pages by their places on the site. */
type Site = Map<string, { ids: Set<string>; links: string[] }>;

/**
 * Checks the links between the files of a site, and those to parts of a page. Links to other servers are not followed.
 *
 * @param folder The folder of the site.
 * @returns One line for each link that leads nowhere; and how many links there are.
 */
export async function deadLinks(folder: string): Promise<{ dead: string[]; checked: number }> {
  const site: Site = new Map();
  const files = new Set<string>();
  for await (const path of walk(folder)) {
    files.add(path);
    if (path.endsWith(".html")) site.set(path, read(await Deno.readTextFile(`${folder}/${path}`)));
  }
  const dead = new Set<string>();
  let checked = 0;
  for (const [page, { links }] of site) {
    for (const link of links) {
      if (/^(\w[\w+.-]*:|\/\/)/.test(link)) continue;
      checked++;
      const why = fault(page, link, site, files);
      if (why !== undefined) dead.add(`${page} links to ${link}: ${why}`);
    }
  }
  return { dead: [...dead], checked };
}

async function* walk(folder: string, prefix = ""): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(`${folder}/${prefix}`)) {
    if (isDirectory) yield* walk(folder, `${prefix}${name}/`);
    else yield prefix + name;
  }
}

/** Reads the anchors and the links of a page. Text and attributes have no bare `<`, so tags are what begins with one. */
function read(html: string): { ids: Set<string>; links: string[] } {
  const [ids, links]: [Set<string>, string[]] = [new Set(), []];
  const tags = html.replaceAll(/<!--.*?-->|(<script\b[^>]*>).*?<\/script>|(<style\b[^>]*>).*?<\/style>/gs, "$1$2")
    .matchAll(/<[a-z][^<>]*>/gi);
  for (const [tag] of tags) {
    for (const [, name, double, single] of tag.matchAll(/\s(id|href|src)=(?:"([^"]*)"|'([^']*)')/g)) {
      const value = unescape(double ?? single);
      if (name === "id") ids.add(value);
      else links.push(value);
    }
  }
  return { ids, links };
}

const ENTITIES: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', "#39": "'", "#x2F": "/" };

function unescape(text: string): string {
  return text.replaceAll(/&([#\w]+);/g, (entity, name) => ENTITIES[name] ?? entity);
}

/** Says what is wrong with a link; undefined if nothing is. */
function fault(page: string, link: string, site: Site, files: Set<string>): string | undefined {
  const root = "file:///site/";
  const url = new URL(link, root + page);
  if (link.startsWith("/")) return "a site in a subfolder has nothing there";
  if (!url.href.startsWith(root)) return "outside of the site";
  let path = decodeURIComponent(url.href.slice(root.length).replace(/[?#].*$/s, ""));
  if (path === "" || path.endsWith("/")) path += "index.html";
  if (!files.has(path)) return "no such file";
  const anchor = decodeURIComponent(url.hash.slice(1));
  if (anchor === "" || site.get(path)?.ids.has(anchor)) return undefined;
  return "no such place in the page";
}
