import { assert, assertEquals, assertMatch } from "@std/assert";
import { openLog } from "../../../cli/log/log.ts";
import { report } from "../../../cli/log/report.ts";
import type { ConnInfo, ServerEvent } from "../../../mod.ts";
import { FakeStderr, TIME } from "../../kit/fakes/fake_stderr.ts";

const loopback = (port: number) => ({ transport: "tcp", hostname: "127.0.0.1", port }) as const;
const conn: ConnInfo = { id: 7, remoteAddr: loopback(51234), localAddr: loopback(8080) };
const closed = {
  type: "closed",
  conn,
  reason: "idle",
  lines: 3,
  bytesIn: 21,
  bytesOut: 21,
  durationMs: 10_004,
} as const;

async function logged(event: ServerEvent): Promise<string> {
  const stderr = new FakeStderr();
  const log = openLog("debug", "text", stderr);
  report(log, event);
  await log.flush();
  assertMatch(stderr.text, TIME);
  return stderr.lines.join("\n");
}

Deno.test("Each event has its line", async () => {
  const addr = loopback(8080);
  const error = new Error("Too many\nopen files (os error 24)");
  const report = { closed: { "end": 3 }, handlersLeft: 0, durationMs: 5 };
  const { remoteAddr } = conn;
  const expected: [ServerEvent, string][] = [
    [{ type: "listening", addr }, "info listening on 127.0.0.1:8080"],
    [{ type: "listening", addr: { ...addr, hostname: "::" } }, "info listening on [::]:8080"],
    [{ type: "accepted", conn }, "info accepted connection from 127.0.0.1:51234"],
    [closed, "info closing connection from 127.0.0.1:51234 (idle, 3 lines, 21 bytes in, 21 bytes out, 10.0 s)"],
    [
      { ...closed, reason: "end", lines: 1, bytesIn: 1, bytesOut: 0, durationMs: 951 },
      "info closing connection from 127.0.0.1:51234 (end, 1 line, 1 byte in, 0 bytes out, 1.0 s)",
    ],
    [
      { ...closed, reason: "transport-error", error },
      "info closing connection from 127.0.0.1:51234 (transport-error, 3 lines, 21 bytes in, 21 bytes out, 10.0 s): too many open files",
    ],
    [
      { type: "rejected", remoteAddr, reason: "max-connections", limit: 2 },
      "warn rejected connection from 127.0.0.1:51234 (max-connections 2)",
    ],
    [
      { type: "rejected", remoteAddr, reason: "proxy-header", error },
      "warn rejected connection from 127.0.0.1:51234 (proxy-header): too many open files",
    ],
    [{ type: "rejected", remoteAddr, reason: "denied" }, "warn rejected connection from 127.0.0.1:51234 (denied)"],
    [
      { type: "rejected", remoteAddr, reason: "proxy-header", error },
      "warn rejected connection from 127.0.0.1:51234 (proxy-header): too many open files",
    ],
    [{ type: "gone", error }, "debug a client left before it was served: too many open files"],
    [{ type: "gone", remoteAddr, error }, "debug 127.0.0.1:51234 left before it was served: too many open files"],
    [{ type: "accept-error", error, retryMs: 5 }, "warn cannot accept (next try in 5 ms): too many open files"],
    [{ type: "accept-error", error, retryMs: 0 }, "warn cannot accept (next try now): too many open files"],
    [{ type: "handler-error", conn, error }, "error handler failed for 127.0.0.1:51234: too many open files"],
    [{ type: "draining", active: 2 }, "info shutting down"],
    [{ type: "waiting", active: 2 }, "info waiting on 2 connections"],
    [{ type: "waiting", active: 1 }, "info waiting on 1 connection"],
    [{ type: "stopped", report }, "info all connections closed"],
    [
      { type: "stopped", report: { ...report, closed: { "drain-timeout": 1 } } },
      "warn cut 1 connection at the drain timeout\ninfo all connections closed",
    ],
    [
      { type: "stopped", report: { ...report, closed: { "drain-timeout": 2 } } },
      "warn cut 2 connections at the drain timeout\ninfo all connections closed",
    ],
  ];
  for (const [event, line] of expected) assertEquals(await logged(event), line);
});

Deno.test("With json, a line is one object, whose msg is the text and whose fields are what it is made of", async () => {
  const stderr = new FakeStderr();
  const log = openLog("info", "json", stderr);
  report(log, closed);
  await log.flush();
  const { time, ...rest } = JSON.parse(stderr.text);
  assertEquals(new Date(time).toISOString(), time);
  assertEquals(rest, {
    level: "info",
    msg: "closing connection from 127.0.0.1:51234 (idle, 3 lines, 21 bytes in, 21 bytes out, 10.0 s)",
    event: "closed",
    id: 7,
    remote: "127.0.0.1:51234",
    reason: "idle",
    lines: 3,
    bytesIn: 21,
    bytesOut: 21,
    durationMs: 10_004,
  });
});

Deno.test("Nothing is worked out for a level that is off, nor fields for text", async () => {
  const stderr = new FakeStderr();
  const log = openLog("warn", "text", stderr);
  const never = () => {
    throw new Error("Worked out in vain");
  };
  log.write("debug", "signal", never, never);
  log.write("info", "signal", never, never);
  log.write("warn", "signal", () => "one", never);
  log.write("error", "signal", () => "two", never);
  await log.flush();
  assertEquals(stderr.lines, ["warn one", "error two"]);
});

Deno.test("Lines are written together, within 100 ms", async () => {
  const stderr = new FakeStderr();
  const log = openLog("info", "text", stderr);
  // Timers fire in the order of their times, however late: the log's fires before one of a second.
  const { promise: second, resolve } = Promise.withResolvers<string>();
  const timer = setTimeout(() => resolve("a second"), 1000);
  for (let i = 0; i < 100; i++) log.write("info", "signal", () => `line ${i}`);
  assertEquals(stderr.calls, 0);
  assertEquals(await Promise.race([stderr.written.then(() => "the lines"), second]), "the lines");
  clearTimeout(timer);
  await log.flush();
  assertEquals(stderr.calls, 1);
  assertEquals(stderr.lines.length, 100);
});

Deno.test("A line is made at once, so that what it tells of is not kept", async () => {
  const log = openLog("info", "json", new FakeStderr());
  const made: string[] = [];
  log.write("info", "signal", () => made.push("text").toString(), () => ({ fields: made.push("fields") }));
  assertEquals(made, ["text", "fields"]);
  await log.flush();
});

Deno.test("A full chunk does not wait for others", () => {
  const stderr = new FakeStderr();
  const log = openLog("info", "text", stderr);
  for (let i = 0; i < 70; i++) log.write("info", "signal", () => "x".repeat(1000));
  assertEquals(stderr.calls, 1);
  return log.flush();
});

/** Opens a log whose line "one" is being written until `slow` resolves, while "two" waits. */
async function writingSlowly() {
  const stderr = new FakeStderr();
  const slow = Promise.withResolvers<void>();
  stderr.behave = (bytes) => slow.promise.then(() => bytes.length);
  const log = openLog("info", "text", stderr);
  log.write("info", "signal", () => "one");
  await stderr.written;
  log.write("info", "signal", () => "two");
  return { stderr, slow, log };
}

Deno.test("Lines that come while others are being written wait for company too, and are not forgotten", async () => {
  const { stderr, slow, log } = await writingSlowly();
  log.write("info", "signal", () => "three");
  slow.resolve();
  await stderr.written;
  log.write("info", "signal", () => "four");
  await stderr.written;
  await log.flush();
  assertEquals(stderr.lines, ["info one", "info two", "info three", "info four"]);
  assertEquals(stderr.calls, 3);
});

Deno.test("Lines that are due when a slow write ends do not wait any longer", async () => {
  const { stderr, slow } = await writingSlowly();
  await new Promise((resolve) => setTimeout(resolve, 150)); // Due after 100 ms.
  slow.resolve();
  await new Promise((resolve) => setTimeout(resolve));
  assertEquals(stderr.lines, ["info one", "info two"]);
});

Deno.test("With a stuck reader, lines beyond 1 MiB are dropped, and their number is logged once it reads again", async () => {
  const stderr = new FakeStderr();
  const stuck = Promise.withResolvers<void>();
  stderr.behave = (bytes) => stuck.promise.then(() => bytes.length);
  const log = openLog("info", "text", stderr);
  for (let i = 0; i < 5000; i++) log.write("info", "signal", () => `${i} ${"x".repeat(1000)}`);
  await log.flush(); // Times out, as it does at the command's end.
  stuck.resolve();
  await log.flush();
  const dropped = Number(/^warn dropped (\d+) log lines$/.exec(stderr.lines.at(-1)!)![1]);
  assertEquals(stderr.lines.length - 1 + dropped, 5000);
  assert(stderr.text.length < 2 ** 20 + 2000, `${stderr.text.length} characters were queued`);
  const [level, last] = stderr.lines.at(-2)!.split(" ");
  assertEquals([level, Number(last)], ["info", stderr.lines.length - 2], "The first lines stay, in order");
});

Deno.test("Partial writes and a pipe that would block lose nothing", async () => {
  const stderr = new FakeStderr();
  stderr.behave = (bytes) =>
    stderr.calls % 2 === 1 && stderr.calls < 4
      ? Promise.reject(new Deno.errors.WouldBlock("Resource temporarily unavailable"))
      : Promise.resolve(Math.min(bytes.length, 7));
  const log = openLog("info", "text", stderr);
  log.write("info", "signal", () => "one");
  log.write("info", "signal", () => "grüße");
  await log.flush();
  await log.flush(); // The first flush may have timed out.
  assertEquals(stderr.lines, ["info one", "info grüße"]);
});

Deno.test("A write that fails loses its lines, which are counted, and the next ones are tried again", async () => {
  const stderr = new FakeStderr();
  const log = openLog("info", "text", stderr);
  stderr.behave = () => Promise.reject(new Deno.errors.BrokenPipe("Broken pipe (os error 32)"));
  log.write("info", "signal", () => "one");
  log.write("info", "signal", () => "two");
  await log.flush();
  log.write("info", "signal", () => "three");
  await log.flush();
  stderr.behave = (bytes) => Promise.resolve(bytes.length);
  log.write("info", "signal", () => "four");
  await log.flush();
  assertEquals(stderr.lines, ["info four", "warn dropped 3 log lines"]);
});

Deno.test("After a write that failed in a line, that line is ended, and whole lines do not count as dropped", async () => {
  const stderr = new FakeStderr();
  const log = openLog("info", "text", stderr);
  // The disk has room for a line and a half, then for nothing, and then for everything.
  let room = `${new Date().toISOString()} info one\n`.length * 1.5;
  stderr.behave = (bytes) => {
    const count = Math.min(room, bytes.length);
    room -= count;
    return count > 0 ? Promise.resolve(count) : Promise.reject(new Error("No space left on device"));
  };
  room = Math.floor(room);
  log.write("info", "signal", () => "one");
  log.write("info", "signal", () => "two");
  await log.flush();
  log.write("info", "signal", () => "six");
  await log.flush();
  room = Infinity;
  log.write("info", "signal", () => "ten");
  await log.flush();
  const [one, torn, ...others] = stderr.lines;
  assertEquals([one, others], ["info one", ["info ten", "warn dropped 2 log lines"]]);
  assert("info two".startsWith(torn) || /^\d{4}/.test(torn), torn);
});

Deno.test("A line of the log is one line, and shows what is in it, whatever an error repeats", async () => {
  const error = new Error("a\u0085b\u2028c\u202ed\u009be\ud800f\u007fg");
  const escaped = String.raw`a\u0085b\u2028c\u202ed\u009be\ud800f\u007fg`;
  for (const format of ["text", "json"] as const) {
    const stderr = new FakeStderr();
    const log = openLog("debug", format, stderr);
    report(log, { type: "handler-error", conn, error });
    log.write("info", "signal", () => "two\nlines");
    await log.flush();
    const [first, second, ...more] = stderr.text.trimEnd().split("\n");
    assertEquals(more, []);
    assert(first.includes(`handler failed for 127.0.0.1:51234: ${escaped.replace("\\u2028", " ")}`), first);
    assert(second.includes(format === "text" ? String.raw`two\u000alines` : String.raw`two\nlines`), second);
    if (format === "json") assertEquals(JSON.parse(second).msg, "two\nlines");
  }
});
