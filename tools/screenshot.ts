/**
 * Makes the picture of the admin port's page, `docs/admin.png`: a server with a small load, and Chromium that looks at it
 * for as long as the page's charts reach back. `--seconds N` shortens that.
 *
 * The clients come through the PROXY protocol, from addresses that are reserved for documents.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { type Conn, serve, shout } from "@x/shouty";
import { proxyProtocol, serveAdmin, ServerMetrics } from "@x/shouty/ops";
import manifest from "../deno.json" with { type: "json" };
import { NO_BROWSER, shows, TestBrowser } from "../tests/kit/foreign/browser.ts";

const PICTURE = `${import.meta.dirname}/../docs/admin.png`;

/** The number of clients at most. */
const CLIENTS = 90;

const { seconds } = parseArgs(Deno.args, { string: ["seconds"], default: { seconds: "310" } });
if (NO_BROWSER !== "") throw new Error(`Cannot make a picture${NO_BROWSER}`);

const metrics = new ServerMetrics();
const over = proxyProtocol(Deno.listen({ hostname: "127.0.0.1", port: 0 }), { from: ["127.0.0.1"] });
const limits = { maxConnections: 500, maxConnectionsPerIp: 2, idleTimeout: 15_000, maxLineBytes: 1024 };
const options = { listener: over, onEvent: metrics.onEvent, drainTimeout: 1000, ...limits };
await using server = serve(options, metrics.timed(answer));
metrics.watch(server);
await using admin = await serveAdmin({ server, metrics, port: 0, version: manifest.version });

const ended = new AbortController();
const clients = Array.from({ length: CLIENTS }, () => keepComing());
await takePicture();
ended.abort();
await Promise.all(clients);

/** Shouts; now and then it takes as long as a question to a database would, and some clients get a deadline. */
async function answer(line: string, conn: Conn): Promise<string> {
  if (line === "upload") conn.setDeadline(60_000 + 240_000 * Math.random(), "upload");
  if (Math.random() < 0.02) await pause(2 + 40 * Math.random() ** 3);
  return shout(line);
}

async function takePicture(): Promise<void> {
  await using browser = await TestBrowser.start();
  const viewport = { width: 1200, height: 800 };
  const page = await browser.open(`http://127.0.0.1:${(admin.addr as Deno.NetAddr).port}/`, { viewport });
  await shows(page, "#matched", /\d/);
  await page.click("#columns >> text=Lines");
  await pause(1000 * Number(seconds));
  await page.mouse.move(0, 0);
  // Not in a moment in which the machine stands still.
  await shows(page, "#chart-lines .big", /^[1-9]\d\d$/);
  await Deno.writeFile(PICTURE, await page.screenshot());
  await shrink();
  console.log(`${PICTURE}: ${(await Deno.stat(PICTURE)).size} bytes`);
}

/** Leaves the picture 64 colours, which makes a third of it, where the program for that is installed. */
async function shrink(): Promise<void> {
  const args = ["--force", "--strip", "--output", PICTURE, "64", PICTURE];
  await new Deno.Command("pngquant", { args }).output().catch(() => {});
}

/** One client after another, with quiet times that come and go. */
async function keepComing(): Promise<void> {
  await pause(20_000 * Math.random());
  while (!ended.signal.aborted) {
    await visit().catch(() => {});
    const tide = 1 + Math.sin(Date.now() / 30_000);
    await pause(1000 + 30_000 * tide ** 2 * Math.random());
  }
}

/** One client: it sends some lines, and leaves in one way or another. */
async function visit(): Promise<void> {
  const { port } = server.addr as Deno.NetAddr;
  using conn = await Deno.connect({ hostname: "127.0.0.1", port });
  const read = conn.readable.pipeTo(new WritableStream()).catch(() => {});
  await send(conn, `PROXY TCP4 ${someAddress()} 192.0.2.1 ${1024 + Math.floor(60_000 * Math.random())} 8080\r\n`);
  if (Math.random() < 0.3) await send(conn, "upload\n");
  for (let lines = 5 + 150 * Math.random(); lines > 0 && !ended.signal.aborted; lines--) {
    await send(conn, "A line of the usual length, give or take a few words\n".repeat(1 + 3 * Math.random()));
    await pause(900 * Math.random());
  }
  const way = Math.random();
  if (way < 0.03) await send(conn, "x".repeat(2000));
  else if (way < 0.85) await conn.closeWrite();
  await read;
}

function someAddress(): string {
  const net = ["192.0.2", "198.51.100", "203.0.113"][Math.floor(3 * Math.random())];
  return `${net}.${10 + Math.floor(25 * Math.random())}`;
}

async function send(conn: Deno.Conn, text: string): Promise<void> {
  await conn.write(new TextEncoder().encode(text));
}

/** Waits, but not longer than until the picture is taken. */
function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    ended.signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
