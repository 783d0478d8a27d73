import { assertEquals, assertMatch } from "@std/assert";
import { FakeClock } from "@x/shouty/testing";
import { BufferedHandler } from "../../../cli/log/handler.ts";
import { openLog } from "../../../cli/log/log.ts";
import { report } from "../../../cli/log/report.ts";
import type { ServerEvent } from "../../../mod.ts";
import { startServer } from "../../kit/command.ts";
import { FakeStderr } from "../../kit/fakes/fake_stderr.ts";

const remoteAddr = { transport: "tcp", hostname: "127.0.0.1", port: 51234 } as const;
const conn = { id: 7, remoteAddr, localAddr: remoteAddr };
const accepted: ServerEvent = { type: "accepted", conn };
const rejected: ServerEvent = { type: "rejected", remoteAddr, reason: "denied" };
const failed: ServerEvent = { type: "handler-error", conn, error: new Error("oops") };

function closed(reason: "idle" | "end"): ServerEvent {
  return { type: "closed", conn, reason, lines: 0, bytesIn: 0, bytesOut: 0, durationMs: 1 };
}

function open(most: number, format: "text" | "json" = "text") {
  const [stderr, clock] = [new FakeStderr(), new FakeClock()];
  const log = openLog("info", format, stderr, { most, clock });
  const many = (count: number, event: ServerEvent) => {
    for (let i = 0; i < count; i++) report(log, event);
  };
  /** The lines so far, without what follows their first two words; but whole lines about what was left out. */
  const lines = async () => {
    await log.flush();
    return stderr.lines.map((line) => /left out/.test(line) ? line : line.split(" ").slice(0, 2).join(" "));
  };
  return { stderr, clock, log, many, lines };
}

Deno.test("Of each kind of line the first in a second are written, and then how many were left out", async () => {
  const { clock, many, lines } = open(2);
  many(5, accepted);
  many(1, rejected);
  await clock.advance(400);
  many(4, accepted);
  await clock.advance(600);
  assertEquals(await lines(), [
    ...["info accepted", "info accepted", "warn rejected"],
    'info left out 7 lines of the kind "accepted" in 1.0 s',
  ]);
  many(2, accepted);
  await clock.advance(1000);
  assertEquals((await lines()).slice(4), ["info accepted", "info accepted"]);
});

Deno.test("A rare reason is seen while lines with another one are left out", async () => {
  const { many, lines } = open(1);
  many(1000, closed("idle"));
  many(1, closed("end"));
  assertEquals(await lines(), [
    ...["info closing", "info closing"],
    'info left out 999 lines of the kind "closed idle" in 0.0 s',
  ]);
});

Deno.test("Errors and what tells of the server's life are never left out", async () => {
  const { many, lines } = open(1);
  many(3, failed);
  many(3, { type: "waiting", active: 1 });
  many(3, { type: "draining", active: 1 });
  assertEquals((await lines()).length, 9);
});

Deno.test("Lines whose level is off are not counted as left out", async () => {
  const { clock, many, lines } = open(1);
  many(3, { type: "gone", error: new Error("left") });
  await clock.advance(1000);
  assertEquals(await lines(), [""]);
});

Deno.test("A second that the event loop is too busy to end in time ends with the next line", async () => {
  const stderr = new FakeStderr();
  let now = 0;
  const log = openLog("info", "json", stderr, { most: 1, clock: { now: () => now, setTimer: () => () => {} } });
  report(log, accepted);
  report(log, accepted);
  now = 2500;
  report(log, accepted);
  await log.flush();
  const lines = stderr.text.trimEnd().split("\n").map((line) => JSON.parse(line));
  assertEquals(lines.map(({ event }) => event), ["accepted", "left-out", "accepted"]);
  const { kind, lines: count, durationMs, level } = lines[1];
  assertEquals([kind, count, durationMs, level], ["accepted", 1, 2500, "info"]);
});

Deno.test("The timer of a second is called off when that second has ended otherwise, and keeps no process alive", async () => {
  const timers: { keepAlive: boolean; off: boolean }[] = [];
  let now = 0;
  const setTimer = (_: () => void, __: number, keepAlive: boolean) => {
    const timer = { keepAlive, off: false };
    timers.push(timer);
    return () => timer.off = true;
  };
  const log = openLog("info", "text", new FakeStderr(), { most: 1, clock: { now: () => now, setTimer } });
  for (now of [0, 1000, 3500]) report(log, accepted);
  assertEquals(timers.map(({ keepAlive }) => keepAlive), [false, false, false]);
  assertEquals(timers.map(({ off }) => off), [true, true, false]);
  await log.flush();
});

Deno.test("A line of the log quotes what a handler says of the end, and limits that are off are named so", async () => {
  const { log, stderr } = open(Infinity);
  report(log, { ...closed("idle"), detail: 'he said "no"' } as ServerEvent);
  report(log, { type: "limits-changed", limits: { maxConnections: Infinity, maxLines: 5 } } as unknown as ServerEvent);
  await log.flush();
  const [end, limits] = stderr.lines;
  assertMatch(end, /\(idle "he said \\"no\\"", 0 lines, /);
  assertEquals(limits, 'info changed limits: {"maxConnections":"off","maxLines":5}');
});

Deno.test("Failures to accept are left out, too, when there are too many", async () => {
  const { many, lines } = open(1);
  many(3, { type: "accept-error", error: new Error("no descriptor"), retryMs: 5 });
  assertEquals(await lines(), ["warn cannot", 'warn left out 2 lines of the kind "accept-error" in 0.0 s']);
});

Deno.test("The last flush waits for the write under way, and writes what came meanwhile", async () => {
  const { log, stderr } = open(Infinity);
  const writing = Promise.withResolvers<void>();
  stderr.behave = async (bytes) => (await writing.promise, bytes.length);
  report(log, { type: "waiting", active: 1 });
  const flushed = log.flush();
  report(log, { type: "waiting", active: 2 });
  writing.resolve();
  await flushed;
  assertEquals(stderr.lines, ["info waiting on 1 connection", "info waiting on 2 connections"]);

  const handler = new BufferedHandler("INFO", ({ msg }) => msg, stderr);
  const again = Promise.withResolvers<void>();
  stderr.behave = async (bytes) => (await again.promise, bytes.length);
  handler.log("three");
  const first = handler.flush();
  let over = false;
  const second = handler.flush().then(() => over = true);
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(over, false);
  again.resolve();
  await Promise.all([first, second]);
});

Deno.test("The lines and what was left out add up in the log of a server", async () => {
  await using server = await startServer(["--log-sample", "3", "--deny", "127.0.0.1"]);
  for (let i = 0; i < 20; i++) {
    using conn = await Deno.connect({ port: server.port });
    await new Response(conn.readable).text();
  }
  server.signal("SIGTERM");
  const { code, stderr } = await server.outcome();
  const left = [...stderr.matchAll(/warn left out (\d+) lines? of the kind "rejected denied" in \d+\.\d s\n/g)];
  const sum = left.reduce((all, [, count]) => all + Number(count), 0);
  assertEquals([code, stderr.match(/rejected connection/g)!.length + sum], [0, 20], stderr);
  assertMatch(stderr, /info shutting down\n(.*\n)*.*info all connections closed\n/);
});
