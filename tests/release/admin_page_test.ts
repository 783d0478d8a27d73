import { assertEquals, assertMatch } from "@std/assert";
import { AdminStub, stubConn } from "../kit/fakes/admin_stub.ts";
import { test } from "../kit/bounded.ts";
import { lacks, NO_BROWSER, type Page, shows, TestBrowser } from "../kit/foreign/browser.ts";

/** Asks a page what has the focus, and by how much it is wider than its window. */
const FOCUSED = "document.activeElement.ariaLabel || document.activeElement.id";
const OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth";

/** Runs a test with an admin port and a browser, and checks afterwards that the page had nothing to complain about. */
function browserTest(name: string, body: (stub: AdminStub, browser: TestBrowser) => Promise<void>, token?: string) {
  const run = async () => {
    await using stub = new AdminStub(token === undefined ? {} : { token });
    await using browser = await TestBrowser.start();
    await body(stub, browser);
    browser.check(stub.url);
  };
  test(`the admin page ${name}`, run, 120, NO_BROWSER);
}

/** Opens the page, and waits until it hears of changes and shows the table. */
async function open(stub: AdminStub, browser: TestBrowser, options = {}): Promise<Page> {
  const page = await browser.open(stub.url, options);
  await shows(page, "#matched", /\d/);
  await stub.listened;
  return page;
}

browserTest("shows live figures, and describes its charts", async (stub, browser) => {
  stub.connections = [stubConn(1), stubConn(2)];
  const page = await open(stub, browser);
  Object.assign(stub.status.stats, { closed: { end: 1204, idle: 0, reset: 7 }, accepted: 1213, rejected: 3 });
  stub.status.metrics.handlerMs = { count: 1500, p50: 0.031, p90: 1.25, p99: 1200 };
  stub.status.metrics.rejected = { denied: 3 };
  stub.status.metrics.handshakes = { active: 0, done: { "TLSv1.3": 5 }, failed: { "no-shared-cipher": 1 } };
  stub.tick(2000, 3000);
  await shows(page, "#chart-lines .big", /^1,500$/);
  stub.tick(1000, 500);
  await shows(page, "#chart-lines .big", /^500$/);
  await shows(page, "#chart-connections .big", "2 of 10,000");
  await shows(page, "#chart-bytes .big", "19.5 KiB in 21.5 KiB out");
  const label = await page.getAttribute("#chart-lines svg", "aria-label");
  assertEquals(label, "Lines per second, last 5 minutes: now 500; highest 1,500");
  assertMatch(await page.getAttribute("#chart-lines path.first", "d") ?? "", /^M[\d.]+ 0.0L300.0 37.3$/);
  for (const [id, text] of Object.entries({ p50: "31 µs", p90: "1.25 ms", p99: "1.2 s" })) {
    await shows(page, `#${id}`, text);
  }
  await shows(page, "#total-lines", "3,500");
  assertEquals(await page.locator("#closed th").allTextContents(), ["end", "reset"]);
  await shows(page, "#rejected", "denied3");
  assertEquals(await page.locator("#handshakes th").allTextContents(), ["TLSv1.3", "failed: no-shared-cipher"]);
  await shows(page, "#about", "0.1.0 · 0.0.0.0:8080 · process 4711 · up 3 s");
  assertEquals(await page.title(), "Ready – shouty");
});

browserTest("searches, sorts and pages its table, and shows a client's bytes as text", async (stub, browser) => {
  const detail = "<img src=x onerror=alert(1)>";
  stub.connections = Array.from({ length: 60 }, (_, i) => stubConn(i + 1));
  stub.connections[41] = stubConn(42, { detail });
  const page = await open(stub, browser);
  assertEquals(await page.locator("#rows tr").count(), 25);
  await page.click("#after");
  await shows(page, "#page", "26 to 50 of 60");
  await page.fill("#filter", "onerror");
  await shows(page, "#matched", "1 of 60");
  await shows(page, "#rows tr .detail", detail);
  assertEquals([await page.locator("#rows tr").count(), await page.locator("#rows img").count()], [1, 0]);
  await page.fill("#filter", "nobody");
  await shows(page, "#none", "No connection matches.");
  await page.fill("#filter", "");
  await page.click("#columns >> text=Lines");
  await shows(page, "#rows tr:first-child th", stubConn(60).peer);
  assertEquals(await page.getAttribute("#columns [data-key=lines]", "aria-sort"), "descending");
  await page.selectOption("#phase", "ending");
  await page.selectOption("#waits-for", "handler");
  await until(() => stub.query === "?sort=-lines&limit=25&offset=0&phase=ending&waitsFor=handler");
});

browserTest("asks before it closes a connection, also by keyboard", async (stub, browser) => {
  stub.connections = [stubConn(1), stubConn(2), stubConn(3)];
  const page = await open(stub, browser);
  const button = page.getByRole("button", { name: "Close connection 2 from 192.0.2.2:40002" });
  await button.focus();
  await page.keyboard.press("Enter");
  await shows(page, "#ask-title", "Close connection 2 from 192.0.2.2:40002?");
  await page.keyboard.press("Escape");
  await page.locator("#ask").waitFor({ state: "hidden" });
  assertEquals(stub.commands, []);
  // The row moves, and keeps the focus.
  stub.connections = [stubConn(2), stubConn(3)];
  await page.clock.fastForward(3000);
  await shows(page, "#matched", /^2$/);
  assertEquals(await page.evaluate(FOCUSED), "Close connection 2 from 192.0.2.2:40002");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await shows(page, "#news-text", "Closing connection 2 from 192.0.2.2:40002.");
  assertEquals(stub.commands, ["POST /connections/2/close"]);
  stub.connections = [];
  await page.clock.fastForward(3000);
  await shows(page, "#none", "No connection matches.");
  assertEquals(await page.evaluate(FOCUSED), "connections");
});

browserTest("asks before it pauses, resumes, drains, or changes a limit", async (stub, browser) => {
  const page = await open(stub, browser);
  await page.click("#pause");
  await page.click("#ask-no");
  assertEquals(stub.commands, []);
  await confirm(page, "#pause");
  await shows(page, "#state", "Paused");
  await confirm(page, "#resume");
  await shows(page, "#state", "Ready");
  await page.click("summary");
  await page.click("[aria-label='Change maxConnections']");
  await page.fill("#ask-value", "-1");
  await page.keyboard.press("Enter");
  await shows(page, "#ask-error", "maxConnections is -1.");
  await page.fill("#ask-value", "");
  await page.keyboard.press("Enter");
  await shows(page, "#limits tr:first-child", /maxConnections\s*none/);
  assertEquals(await page.evaluate(FOCUSED), "Change maxConnections");
  await page.click("[aria-label='Change deny']");
  await page.fill("#ask-value", "192.0.2.7, 2001:db8::/32");
  await page.keyboard.press("Enter");
  await shows(page, "#news-text", "deny is now: 192.0.2.7, 2001:db8::/32.");
  await confirm(page, "#drain");
  const commands = ["POST /pause", "POST /resume", 'PATCH /limits {"maxConnections":-1}'];
  const changes = ['PATCH /limits {"maxConnections":null}', 'PATCH /limits {"deny":["192.0.2.7","2001:db8::/32"]}'];
  assertEquals(stub.commands, [...commands, ...changes, "POST /drain"]);
});

browserTest("shows how far a drain has come", async (stub, browser) => {
  stub.connections = Array.from({ length: 40 }, (_, i) => stubConn(i + 1));
  const page = await open(stub, browser);
  Object.assign(stub.status, { state: "lame-duck", ready: false, reasons: ["lame duck"] });
  stub.tick(1000);
  await shows(page, "#draining-text", "Still accepting");
  Object.assign(stub.status, { state: "draining", reasons: ["draining", "paused"] });
  stub.connections.length = 10;
  stub.tick(1000);
  await shows(page, "#draining-text", /^10 of 40 connections still open\.$/);
  const bar = page.locator("#draining-bar");
  assertEquals(await bar.evaluate((element) => (element as unknown as { value: number }).value), 30);
  assertEquals(await page.locator("#reasons").textContent(), "paused");
  assertEquals(await page.locator("#drain").isDisabled(), true);
});

browserTest("asks for the token, and signs in and out", async (stub, browser) => {
  const page = await browser.open(stub.url);
  await page.locator("#sign-in").waitFor();
  assertEquals(await page.evaluate(FOCUSED), "token");
  assertEquals(await lacks(page), []);
  await page.keyboard.type("wrong");
  await page.keyboard.press("Enter");
  await shows(page, "#sign-in-error", "This is not the token");
  await page.fill("#token", "the right one");
  await page.keyboard.press("Enter");
  await shows(page, "#state", "Ready");
  stub.tick(1000, 77);
  await shows(page, "#total-lines", "77");
  assertEquals(await page.inputValue("#token"), "");
  await page.click("#sign-out");
  await page.locator("#sign-in").waitFor();
  assertEquals(await page.locator("#figures").isHidden(), true);
}, "the right one");

test(
  "the admin page survives a restart of the server, and says that its figures start anew",
  async () => {
    await using browser = await TestBrowser.start();
    const first = new AdminStub();
    const { port } = first;
    first.connections = [stubConn(1)];
    const page = await open(first, browser);
    first.tick(5000, 90_000);
    await shows(page, "#total-lines", "90,000");
    await first[Symbol.asyncDispose]();
    await shows(page, "#lost", "The server does not answer. Trying again every second.");
    await using second = new AdminStub({ port, startedAt: "2026-11-29T09:00:00.000Z" });
    await shows(page, "#news-text", "The server was started again at");
    await second.listened;
    second.tick(1000, 20);
    await shows(page, "#chart-lines .big", /^20$/);
    assertEquals([await page.locator("#lost").isHidden(), await page.textContent("#total-lines")], [true, "20"]);
    assertMatch(await page.getAttribute("#chart-lines .restart", "d") ?? "", /^M\d/);
    await page.click("#news-off");
    browser.check(second.url);
  },
  120,
  NO_BROWSER,
);

browserTest("is accessible in both colour schemes, and on a narrow screen", async (stub, browser) => {
  stub.connections = Array.from({ length: 60 }, (_, i) => stubConn(i + 1, { detail: "busy ".repeat(20) }));
  Object.assign(stub.status.stats, { closed: { end: 12, reset: 1 } });
  Object.assign(stub.status, { state: "draining", ready: false, reasons: ["draining"] });
  for (const colorScheme of ["light", "dark"] as const) {
    const page = await open(stub, browser, { colorScheme, viewport: { width: 320, height: 640 } });
    await page.click("summary");
    assertEquals(await page.evaluate(OVERFLOW), 0, "The page is wider than its window");
    await page.setViewportSize({ width: 1200, height: 800 });
    // Colours are all in which the schemes differ.
    assertEquals(await lacks(page, ...(colorScheme === "dark" ? ["color-contrast"] : [])), []);
    await page.click("[aria-label='Change idleTimeout']");
    assertEquals(await lacks(page, ...(colorScheme === "light" ? ["color-contrast"] : [])), []);
  }
});

/** Clicks a button, and says yes. */
async function confirm(page: Page, selector: string): Promise<void> {
  await page.click(selector);
  await page.click("#ask-yes");
  await page.locator("#ask").waitFor({ state: "hidden" });
}

/** Waits for something that has no event. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 20));
}
