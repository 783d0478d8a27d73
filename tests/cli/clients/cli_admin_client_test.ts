import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { serve } from "@x/shouty";
import { MemoryListener } from "@x/shouty/testing";
import { ADMIN_COMMANDS } from "../../../cli/flags/admin_flags.ts";
import { TOKEN } from "../../kit/admin/admin.ts";
import { admin, PERMISSIONS, start, test } from "../../kit/admin/admin_command.ts";
import { runCommand } from "../../kit/command.ts";

test("shouty admin shows a server and steers it", async () => {
  // However long the commands below take, the connection waits for the next line.
  const { server, at } = await start(["--idle-timeout", "off"]);
  await using _ = server;
  using client = await Deno.connect({ port: server.port });
  await client.write(new TextEncoder().encode("one\ntwo"));
  await client.read(new Uint8Array(4));
  const status = await admin(at, "status");
  assertEquals([status.code, status.stderr], [0, ""]);
  assertMatch(status.stdout, /^server {7}shouty [\d.]+, process \d+, up \d+\.\d s\nstate {8}ready\nlistening {4}127\./);
  assertMatch(
    status.stdout,
    /\nconnections {2}1 open, 1 accepted, 0 rejected, 0 gone\ntraffic {6}1 line, 7 B in, 4 B out\n/,
  );
  const list = await admin(at, "connections", "--sort=-age", "--filter", "127.0.0.1", "--waits-for", "line");
  assertMatch(
    list.stdout,
    /^ID +PEER +AGE .* WAITS FOR +DETAIL\n1 +127\.0\.0\.1:\d+ .* open +line\n1 of 1 connection\n$/,
  );
  assertEquals((await admin(at, "connections", "--phase", "leaving")).stdout, "0 of 0 connections, 1 in all\n");
  const { connections: [row] } = JSON.parse((await admin(at, "connections", "--json")).stdout);
  assertEquals([row.id, row.lines], [1, 1]);
  assertEquals((await admin(at, "pause")).stdout, "paused: the server accepts no more connections\n");
  assertMatch((await admin(at, "status")).stdout, /\nstate {8}not ready: paused\n/);
  assertEquals((await admin(at, "resume")).stdout, "resumed: the server accepts connections\n");
  const limits = await admin(at, "limits", "--max-connections", "5", "--idle-timeout=3600500ms", "--max-lines", "off");
  assertMatch(limits.stdout, /^--idle-timeout +3600500ms\n(.*\n)*--max-connections +5\n/);
  await server.stderrMatch(/ info changed limits: \{"idleTimeout":3600500,"maxLines":"off","maxConnections":5\}\n/);
  assertMatch((await admin(at, "limits")).stdout, /\n--max-lines +off\n(.*\n)*--max-connections +5\n/);
  assertEquals((await admin(at, "close", "1", "--detail", "bye")).stdout, "closing connection 1\n");
  await client.closeWrite();
  await server.stderrMatch(/closing connection from .* \(closed "bye", /);
  assertEquals((await admin(at, "drain", "--drain", "finish")).stdout, "draining: 0 open\n");
  assertEquals((await server.outcome()).code, 0);
});

test("shouty admin limits has a flag for each limit of a server", async () => {
  await using server = serve({ listener: new MemoryListener() });
  const { flags } = ADMIN_COMMANDS.limits;
  assertEquals(Object.keys(server.limits).filter((name) => !Object.hasOwn(flags, name)), []);
});

test("shouty admin makes what peers and handlers say safe to show", async () => {
  const { connectionsText } = await import("../../../cli/admin/text.ts");
  const row = { id: 1, peer: "unix", local: "unix:/run/s", lines: 0, bytesIn: 0, bytesOut: 0, ageMs: 1, idleMs: 1 };
  const connections = [{ ...row, phase: "open", waitsFor: "peer", detail: "\x1b[31mred\n\u202e" } as const];
  const text = connectionsText({ total: 1, matched: 1, connections });
  assertStringIncludes(text, "\\u001b[31mred\\u000a\\u202e\n1 of 1 connection");
});

test("shouty admin words times and sizes in their largest units", async () => {
  const { connectionsText } = await import("../../../cli/admin/text.ts");
  const row = { peer: "unix", local: "unix:/run/s", lines: 0, phase: "open", waitsFor: "peer" } as const;
  const minute = 60_000;
  const [hour, day] = [60 * minute, 24 * 60 * minute];
  const rows = [
    [59_900, 0, 1023, 1024],
    [minute, hour - 1, 1024 * 1024 - 1024, 1024 * 1024],
    [hour, day - 1, 2.5 * 2 ** 30, 2 ** 50],
    [day, 10 * day + hour, 1, 2 ** 40],
  ];
  const connections = rows.map(([ageMs, idleMs, bytesIn, bytesOut], id) => {
    return { ...row, id, ageMs, idleMs, bytesIn, bytesOut };
  });
  const [, ...lines] = connectionsText({ total: 4, matched: 4, connections }).split("\n");
  assertEquals(lines.map((line) => line.split(/ {2,}/).filter((_, column) => [2, 3, 5, 6].includes(column))), [
    ["59.9 s", "0.0 s", "1023 B", "1.0 KiB"],
    ["1 min 0 s", "59 min 59 s", "1023.0 KiB", "1.0 MiB"],
    ["1 h 0 min", "23 h 59 min", "2.5 GiB", "1024.0 TiB"],
    ["1 d 0 h", "10 d 1 h", "1 B", "1.0 TiB"],
    [],
  ]);
});

test("shouty admin words in one line what fails", async () => {
  const fails = async (code: number, args: string[], expected: string | RegExp, env: Record<string, string> = {}) => {
    const outcome = await runCommand(["admin", ...args], { permissions: PERMISSIONS, env });
    assertEquals([outcome.code, outcome.stdout], [code, ""], outcome.stderr);
    if (typeof expected === "string") assertEquals(outcome.stderr, `shouty: ${expected}\n`);
    else assertMatch(outcome.stderr, expected);
  };
  const symbol = "status|connections|drain|pause|resume|close|limits";
  const verbs = "expected status, connections, drain, pause, resume, close or limits";
  await fails(2, [], `cannot use shouty admin without ${symbol}: ${verbs}`);
  await fails(2, ["stop"], `cannot use argument "stop": ${verbs}`);
  // The address comes behind the command, as --admin; the error once named "status" instead.
  const misplaced = `cannot use argument "127.0.0.1:9190": ${verbs}`;
  await fails(2, ["127.0.0.1:9190", "status"], misplaced);
  await fails(2, ["127.0.0.1:9190", "close", "--admin", "127.0.0.1:9190"], misplaced);
  await fails(2, ["connection"], 'cannot use argument "connection": did you mean shouty admin connections?');
  await fails(2, ["--json", "status"], 'cannot use "--json" here: expected the flags behind status');
  await fails(
    2,
    ["close"],
    "cannot use shouty admin close without ID: expected a whole number from 1 to 9007199254740991",
  );
  await fails(2, ["close", "x"], 'cannot use argument "x": expected a whole number from 1 to 9007199254740991');
  await fails(2, ["status", "now"], 'cannot use argument "now": expected only flags');
  await fails(
    2,
    ["limits", "--port", "1"],
    'unknown flag "--port": see shouty admin limits --help',
  );
  await fails(
    2,
    ["connections", "--sort", "size"],
    /^shouty: cannot use --sort "size": expected one of id, age, .*\n$/,
  );
  await fails(2, ["status"], /^shouty: cannot use SHOUTY_ADMIN "off": expected a host and a port/, {
    SHOUTY_ADMIN: "off",
  });
  await fails(2, ["status"], /^shouty: cannot use SHOUTY_ADMIN_TOKEN: expected 16/, { SHOUTY_ADMIN_TOKEN: "x" });
  await fails(1, ["status", "--admin", "127.0.0.1:9"], "cannot ask 127.0.0.1:9: connection refused");
  await fails(1, ["status", "--admin", "unix:/nowhere/s"], "cannot ask unix:/nowhere/s: no such file or directory");
  const { server, at } = await start([], { SHOUTY_ADMIN_TOKEN: TOKEN });
  await using _ = server;
  const needs = "it needs a token, from --admin-token-file or SHOUTY_ADMIN_TOKEN";
  await fails(1, ["status", "--admin", at], `cannot ask ${at}: ${needs}`);
  const wrong = { SHOUTY_ADMIN_TOKEN: "wrong-wrong-wrong-wrong" };
  await fails(1, ["status", "--admin", at], "cannot answer: wrong token", wrong);
  const right = { SHOUTY_ADMIN_TOKEN: TOKEN };
  await fails(1, ["close", "9", "--admin", at], "cannot close connection 9: there is none", right);
  const other = `127.0.0.1:${server.port}`;
  await fails(1, ["status", "--admin", other], `cannot ask ${other}: the answer is not that of an admin port`);
});

test("shouty admin says that another server's JSON is not the answer of an admin port", async () => {
  const options = { hostname: "127.0.0.1", port: 0, onListen() {} };
  await using other = Deno.serve(options, () => Response.json({ connections: [{ id: 1 }] }));
  const at = `127.0.0.1:${other.addr.port}`;
  for (const command of ["status", "connections", "drain"]) {
    const { code, stdout, stderr } = await admin(at, command);
    const expected = `shouty: cannot ask ${at}: the answer is not that of an admin port\n`;
    assertEquals([code, stdout, stderr], [1, "", expected], command);
  }
});

test("shouty admin gives up on a server that does not answer", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const at = `127.0.0.1:${listener.addr.port}`;
  const { code, stderr } = await admin(at, "status", "--timeout", "200ms");
  assertEquals([code, stderr], [1, `shouty: cannot ask ${at}: no answer within 0.2 s\n`]);
});

test("shouty admin gives up on a server that announces its answer again and again", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const asking = admin(`127.0.0.1:${listener.addr.port}`, "status", "--timeout", "30s");
  using conn = await listener.accept();
  await conn.write(new TextEncoder().encode("HTTP/1.1 100 Continue\r\n\r\n".repeat(11)));
  const { code, stderr } = await asking;
  assertEquals([code, /: the answer does not begin\n$/.test(stderr)], [1, true], stderr);
});

test("shouty admin says that a switch to another protocol is not the answer of an admin port", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const at = `127.0.0.1:${listener.addr.port}`;
  const asking = admin(at, "status", "--timeout", "30s");
  using conn = await listener.accept();
  const head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nx";
  await conn.write(new TextEncoder().encode(head));
  const { code, stderr } = await asking;
  assertEquals([code, stderr], [1, `shouty: cannot ask ${at}: the answer is not that of an admin port\n`]);
});

test("shouty admin gives up on an answer that has no end", async () => {
  const part = new Uint8Array(64 * 1024).fill(32);
  const body = () => new ReadableStream({ pull: (controller) => controller.enqueue(part) });
  await using other = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, () => new Response(body()));
  const { code, stdout, stderr } = await admin(`127.0.0.1:${other.addr.port}`, "status", "--timeout", "10s");
  assertEquals([code, stdout, /: the answer is too long\n$/.test(stderr)], [1, "", true], stderr);
});

test("shouty admin shows its help", async () => {
  const help = async (...args: string[]) => {
    const { code, stdout } = await runCommand(["admin", ...args]);
    assertEquals(code, 0);
    return stdout;
  };
  assertMatch(
    await help("--help"),
    /^shouty admin asks a server's admin port, .*\.\n\nUsage: shouty admin status\|.*\n(.*\n)*\nshouty admin limits\n/,
  );
  assertMatch(
    await help("close", "--help"),
    /^shouty admin close closes .*\n\nUsage: shouty admin close ID \[FLAG...\]\n/,
  );
  const note = "Environment variables are SHOUTY_ADMIN for --admin and SHOUTY_ADMIN_TOKEN_FILE for --admin-token-file";
  assertStringIncludes(await help("limits", "--help"), note);
  assertMatch(await help("--version"), /^shouty \d/);
});

test("The limits of the server's own variables are not those that shouty admin limits sets", async () => {
  const { server, at } = await start();
  await using _ = server;
  const env = { SHOUTY_MAX_CONNECTIONS: "3", SHOUTY_ADMIN: at };
  const { stdout } = await runCommand(["admin", "limits"], { permissions: PERMISSIONS, env });
  assertMatch(stdout, /\n--max-connections +10000\n/);
});
