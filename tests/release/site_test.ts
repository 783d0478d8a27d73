import { assertEquals, assertGreater, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { test } from "../kit/bounded.ts";
import { lacks, NO_BROWSER, shows, TestBrowser } from "../kit/foreign/browser.ts";
import { type Outcome, Subprocess } from "../kit/command.ts";
import { load } from "../kit/foreign/npm.ts";

const ROOT = `${import.meta.dirname}/../..`;
const SITE = await load<typeof import("../../tools/site/build.ts")>(import.meta.resolve("../../tools/site/build.ts"));
/** The types of what the site consists of. A browser takes a page only for what its host calls it. */
const TYPES: Readonly<Record<string, string>> = { html: "text/html", css: "text/css", js: "text/javascript" };

const FOLDER = await Deno.makeTempDir({ prefix: "shouty_site_" });
Deno.test.afterAll(() => Deno.remove(FOLDER, { recursive: true }));

let building: Promise<Outcome> | undefined;

/** The site of this project. The first call builds it, as `deno task site` does. */
async function built(): Promise<{ folder: string; outcome: Outcome }> {
  const folder = `${FOLDER}/site`;
  building ??= (async () => {
    await using tool = new Subprocess(Deno.execPath(), ["run", "-A", "tools/site/main.ts", "--output", folder], {
      env: { NO_COLOR: "1" },
    });
    return await tool.outcome();
  })();
  const outcome = await building;
  assertEquals(outcome.code, 0, outcome.stderr);
  return { folder, outcome };
}

async function filesIn(folder: string, end: string): Promise<string[]> {
  const names = await Array.fromAsync(Deno.readDir(folder), ({ name }) => name);
  return names.filter((name) => name.endsWith(end)).toSorted();
}

/** A small project: an entry point and the given documents. */
async function project(files: Record<string, string>): Promise<{ root: string; output: string }> {
  const root = await Deno.makeTempDir({ dir: FOLDER });
  await Deno.mkdir(`${root}/docs`);
  const all = {
    "deno.json": '{ "name": "@a/b", "exports": { ".": "./mod.ts" } }',
    "mod.ts": "/** What it is. @module */\n/** One. */\nexport const one = 1;\n",
    ...files,
  };
  for (const [path, text] of Object.entries(all)) {
    await Deno.mkdir(`${root}/${path}`.replace(/\/[^/]*$/, ""), { recursive: true });
    await Deno.writeTextFile(`${root}/${path}`, text);
  }
  return { root, output: `${root}/out` };
}

test(
  "deno task site makes a page of every guide, with the Markdown beside it, and lists all for language models",
  async () => {
    const { folder, outcome: { stdout, stderr } } = await built();
    assertEquals(stdout, `${folder}/index.html\n`);
    const said = stderr.split("\n").filter((line) => line.startsWith("site: "));
    assertEquals(said.length, SITE.module.STEPS, stderr);
    assertMatch(said.at(-1)!, /^site: [1-9]\d{3,} links, none of them dead$/);
    assertEquals(stderr.includes("\x1b"), false, "In a pipe, progress is plain lines");

    const guides = (await filesIn(`${ROOT}/docs`, ".md")).map((name) => `docs/${name}`);
    assertGreater(guides.length, 0);
    const list = await Deno.readTextFile(`${folder}/llms.txt`);
    for (const path of ["README.md", ...guides]) {
      const text = await Deno.readTextFile(`${ROOT}/${path}`);
      assertEquals(await Deno.readTextFile(`${folder}/${path}`), text);
      assertStringIncludes(list, `](${path})`);
      await Deno.stat(`${folder}/${path.replace(/README\.md$/, "index.md").replace(/\.md$/, ".html")}`);
    }
    for (const [, path] of list.matchAll(/\]\(([^)]+)\)/g)) await Deno.stat(`${folder}/${path}`);
  },
  120,
  SITE.missing,
);

test(
  "the site's pages can be read without a script",
  async () => {
    const { folder } = await built();
    const pages = ["index.html", ...(await filesIn(`${folder}/docs`, ".html")).map((name) => `docs/${name}`)];
    for (const path of pages) {
      const page = await Deno.readTextFile(`${folder}/${path}`);
      const [, markdown] = /rel="alternate" type="text\/markdown" href="([^"]+)"/.exec(page)!;
      const text = await Deno.readTextFile(new URL(markdown, `file://${folder}/${path}`));
      const main = page.slice(page.indexOf("<main"), page.indexOf("</main>"));
      assertEquals(/<script|\bhidden\b/.test(main.replaceAll(/<(pre|code)\b.*?<\/\1>/gs, "")), false, path);
      // Every heading and, to show that nothing in between is missing, the number of blocks of code.
      const prose = text.replaceAll(/^(`{3,})[^`\n]*\n[\s\S]*?^\1$/gm, "");
      assertEquals(main.match(/<h[1-6]\b/g)?.length, prose.match(/^#{1,6} /gm)?.length, path);
      const fences = text.match(/^(`{3,})[^`\n]*\n[\s\S]*?^\1$/gm)?.length ?? 0;
      assertEquals((main.match(/<pre\b/g)?.length ?? 0) >= fences, true, path);
    }
    assertStringIncludes(await Deno.readTextFile(`${folder}/api/~/Conn.html`), "All reads share one position");
  },
  120,
  SITE.missing,
);

test(
  "the site fails on a link to a file, a page or a place that is missing, and names it",
  async () => {
    const refuses = async (files: Record<string, string>, why: string) => {
      const options = await project(files);
      const { message } = await assertRejects(() => SITE.module.buildSite(options), Error);
      assertStringIncludes(message, why);
    };
    await refuses({ "README.md": "# A\n\n[x](docs/x.md)\n" }, "README.md links to docs/x.md, which does not exist");
    await refuses(
      { "README.md": "# A\n\n[x](docs/x.md#none)\n", "docs/x.md": "# X\n\n## Some\n" },
      "index.html links to docs/x.html#none: no such place in the page",
    );
    await refuses({ "README.md": '# A\n\n<a href="x.html">x</a>\n' }, "index.html links to x.html: no such file");
    await refuses({ "README.md": "# A\n\n![x](/x.svg)\n" }, "x.svg");
  },
  120,
  SITE.missing,
);

test(
  "the site orders the guides as docs/README.md does, appends the others, and keeps no list of its own",
  async () => {
    const options = await project({
      "README.md": "# A\n\nFirst words.\n\n    indented code\n\nSee [b](docs/b.md#it-is-so) and [the code](mod.ts).\n",
      "docs/README.md": "# Guides\n\n## To begin\n\n- [b](b.md), then [a](a.md)\n",
      "docs/a.md": "# The letter a\n\n{{ braces }} {% stay %}\n",
      "docs/b.md": "# The letter b\n\n## It is: so\n\n## It is: so\n\n[second](#it-is-so-1), [all](../docs/)\n",
      "docs/new.md": "# A new one\n\n[Files](../files) to copy\n",
      "files/one.yaml": "one: 1\n",
    });
    await SITE.module.buildSite(options);
    const list = await Deno.readTextFile(`${options.output}/llms.txt`);
    const titles = Array.from(list.matchAll(/^(?:## (.*)|- \[(.*?)\])/gm), ([, section, title]) => section ?? title);
    assertEquals(titles, [
      ...["Overview", "A", "To begin", "The letter b", "The letter a", "More", "A new one", "API", "@a/b"],
      ...["Optional", "Guides", "mod.ts", "files/"],
    ]);
    const index = await Deno.readTextFile(`${options.output}/index.html`);
    for (const part of ["docs/b.html#it-is-so", "mod.ts.html", "<code>indented code"]) {
      assertStringIncludes(index, part);
    }
    assertStringIncludes(await Deno.readTextFile(`${options.output}/docs/a.html`), "{{ braces }} {% stay %}");
    assertStringIncludes(await Deno.readTextFile(`${options.output}/mod.ts.html`), "<code");
    // A folder without a README shows its files.
    assertStringIncludes(await Deno.readTextFile(`${options.output}/docs/new.html`), 'href="../files/index.html"');
    assertStringIncludes(await Deno.readTextFile(`${options.output}/files/index.html`), ">one.yaml<");
  },
  120,
  SITE.missing,
);

test(
  "in a browser, the site is searched, turns dark, fits a narrow screen, and works in a subfolder of any host",
  async () => {
    const { folder } = await built();
    await using host = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async ({ url }) => {
      const path = decodeURIComponent(new URL(url).pathname).replace(/^\/some\/folder\//, "");
      if (path === "/favicon.ico") return new Response(null, { status: 404 });
      const type = TYPES[path.replace(/.*\./, "")] ?? "application/octet-stream";
      return new Response(await Deno.readFile(`${folder}/${path}`), { headers: { "content-type": type } });
    });
    const base = `http://127.0.0.1:${host.addr.port}/some/folder/`;
    await using browser = await TestBrowser.start();
    const page = await browser.open(`${base}docs/operations.html`, { viewport: { width: 1400, height: 900 } });
    await page.locator("pagefind-modal-trigger button").click();
    await page.locator("pagefind-modal input").fill("lame duck");
    // The results appear one by one, in any order, and not every page that has both words has them side by side.
    await page.locator("pagefind-modal .pf-result", { hasText: /lame.duck/i }).first().locator("a[href]").first()
      .click();
    await shows(page, "main, #content", /lame.duck/i);
    assertEquals(page.url().startsWith(base), true);
    await page.goto(`${base}docs/operations.html`);

    const paper = () => page.evaluate("getComputedStyle(document.body).backgroundColor") as Promise<string>;
    const light = await paper();
    await page.click("#theme");
    await shows(page, "#theme", "Light");
    assertEquals(await paper() === light, false);
    assertEquals(await lacks(page), []);
    await page.goto(`${base}api/~/Conn.html`);
    await page.locator("html.dark").waitFor();

    for (const path of ["index.html", "docs/operations.html", "api/index.html"]) {
      const narrow = await browser.open(base + path, { viewport: { width: 360, height: 700 } });
      assertEquals(await narrow.evaluate("document.documentElement.scrollWidth"), 360, path);
    }
    browser.check(base);
  },
  120,
  SITE.missing || NO_BROWSER,
);
