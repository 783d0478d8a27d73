/**
 * A real browser, Chromium, as the user of a page. Its package is not in the import map, so that only tests need npm.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { assertEquals } from "@std/assert";
// deno-lint-ignore no-import-prefix -- only the types, for these tests alone
import type { Browser, BrowserContextOptions, Page } from "npm:playwright-core@1.65.1";
import { load } from "./npm.ts";

export type { Page };

interface Playwright {
  readonly chromium: { launch(options: { executablePath: string; args: string[] }): Promise<Browser> };
}

const playwright = await load<Playwright>("npm:playwright-core@1.65.1");
const axe = await load<{ default: { source: string } }>("npm:axe-core@4.14.1");

/** Why tests that need a browser are skipped, for their names; empty if they run. */
export const NO_BROWSER: string = executable() === undefined
  ? " (skipped: chromium is missing)"
  : playwright.missing || axe.missing;

/** Looks for Chromium, or Chrome, where the shell would. */
function executable(): string | undefined {
  const folders = (Deno.env.get("PATH") ?? "").split(":");
  const paths = ["chromium", "google-chrome"].flatMap((name) => folders.map((folder) => `${folder}/${name}`));
  return paths.find((path) => existsSync(path));
}

/** Chromium, for one test. It notes what its pages complain about, and which servers they speak to. */
export class TestBrowser implements AsyncDisposable {
  /** What pages threw, printed as errors or warnings, or were kept from by their Content-Security-Policy. */
  readonly problems: string[] = [];
  /** The servers that were asked for something, such as `http://127.0.0.1:8080`. */
  readonly origins: Set<string> = new Set();
  readonly #browser: Browser;

  private constructor(browser: Browser) {
    this.#browser = browser;
  }

  /** Starts Chromium, which ends with the test. */
  static async start(): Promise<TestBrowser> {
    const args = ["--no-sandbox", "--disable-gpu", "--in-process-gpu", "--disable-dev-shm-usage"];
    return new TestBrowser(await playwright.module.chromium.launch({ executablePath: executable()!, args }));
  }

  /** Opens a page. Each has cookies of its own. */
  async open(url: string, options: BrowserContextOptions = {}): Promise<Page> {
    const page = await this.#browser.newPage({ reducedMotion: "reduce", ...options });
    // As patient as the tests are.
    page.setDefaultTimeout(100_000);
    page.on("pageerror", ({ message }) => this.problems.push(message));
    page.on("console", (message) => {
      // The browser says itself that a server is away or wants a token: that is no fault of the page.
      const isNetwork = message.text().startsWith("Failed to load resource") || message.text().includes("net::ERR_");
      if (!isNetwork && ["error", "warning"].includes(message.type())) this.problems.push(message.text());
    });
    page.on("request", (request) => {
      if (!request.url().startsWith("data:")) this.origins.add(new URL(request.url()).origin);
    });
    await page.addInitScript(WATCH_POLICY);
    // The page's timers run as ever, but a test can move its clock.
    await page.clock.install();
    await page.goto(url);
    return page;
  }

  /** Fails if a page complained, or spoke to a server other than this one. */
  check(url: string): void {
    assertEquals(this.problems, []);
    assertEquals([...this.origins], [new URL(url).origin]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#browser.close();
  }
}

const WATCH_POLICY = `addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
  console.error("kept back by " + violatedDirective + ": " + blockedURI))`;

/** Waits until an element has a text. */
export async function shows(page: Page, selector: string, text: string | RegExp): Promise<void> {
  await page.locator(selector, { hasText: text }).first().waitFor();
}

interface Violation {
  readonly id: string;
  readonly nodes: readonly { html: string; failureSummary: string }[];
}

/**
 * Returns what a page lacks for people who cannot see it well, or use the keyboard alone.
 *
 * @param rules Names of the checks; all by default.
 */
export async function lacks(page: Page, ...rules: string[]): Promise<string[]> {
  const options = rules.length === 0 ? {} : { runOnly: rules };
  await page.evaluate(axe.module.default.source);
  const { violations } = await page.evaluate(`axe.run(document, ${JSON.stringify(options)})`) as {
    violations: Violation[];
  };
  return violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${html} ${failureSummary}`)
  );
}
