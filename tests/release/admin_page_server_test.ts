import { assertEquals } from "@std/assert";
import { serve, shout } from "@x/shouty";
import { serveAdmin, ServerMetrics } from "@x/shouty/ops";
import { TestClient } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";
import { NO_BROWSER, type Page, shows, TestBrowser } from "../kit/foreign/browser.ts";

const TOKEN = "the-token-of-this-test";

test(
  "the admin page shows and steers a real server, from the sign-in to the end of the drain",
  async () => {
    const metrics = new ServerMetrics();
    const patient = { firstLineTimeout: Infinity, idleTimeout: Infinity, drainTimeout: Infinity };
    const options = { hostname: "127.0.0.1", port: 0, onEvent: metrics.onEvent, ...patient };
    await using server = serve(options, metrics.timed((line: string) => shout(line)));
    metrics.watch(server);
    await using admin = await serveAdmin({ server, metrics, port: 0, token: TOKEN });
    await using browser = await TestBrowser.start();
    const url = `http://127.0.0.1:${(admin.addr as Deno.NetAddr).port}/`;

    const { port } = server.addr as Deno.NetAddr;
    using first = new TestClient(await Deno.connect({ port }));
    using second = new TestClient(await Deno.connect({ port }));
    await first.write("one\ntwo\n");
    assertEquals([await first.readLine(), await first.readLine()], ["ONE", "TWO"]);

    const page = await browser.open(url);
    await signIn(page);
    await shows(page, "#chart-connections .big", /^2/);
    await shows(page, "#total-lines", /^2$/);
    await shows(page, "#handled", /^[12] calls? in the last/);
    await page.getByRole("button", { name: "Close connection 2 from 127.0.0.1:" }).click();
    await page.click("#ask-yes");
    assertEquals(await second.read(), null);
    await shows(page, "#closed", "closed1");
    await page.clock.fastForward(3000);
    await shows(page, "#matched", /^1$/);

    await page.click("summary");
    await page.click("[aria-label='Change maxConnections']");
    await page.fill("#ask-value", "1");
    await page.keyboard.press("Enter");
    await shows(page, "#reasons", "at capacity: 1 of 1 connections");
    assertEquals(server.limits.maxConnections, 1);
    await page.click("#pause");
    await page.click("#ask-yes");
    await shows(page, "#state", "Paused");
    assertEquals(server.paused, true);
    await page.click("#resume");
    await page.click("#ask-yes");
    await shows(page, "#state", "Not ready");

    await page.click("#drain");
    await page.click("#ask-yes");
    await shows(page, "#draining-text", "1 of 1 connection still open.");
    first.close();
    await server.finished;
    await shows(page, "#lost", "The drain has ended, and so has the server.");
    browser.check(url);
  },
  120,
  NO_BROWSER,
);

async function signIn(page: Page): Promise<void> {
  await page.locator("#sign-in").waitFor();
  await page.fill("#token", TOKEN);
  await page.keyboard.press("Enter");
}
