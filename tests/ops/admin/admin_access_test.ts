import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { FakeClock } from "@x/shouty/testing";
import { Attempts, FAILURE_MS, FREE_FAILURES } from "../../../ops/admin/http/attempts.ts";
import { Token } from "../../../ops/admin/http/token.ts";
import { type AskOptions, send, startAdmin, type TestAdmin, TOKEN } from "../../kit/admin/admin.ts";
import { test } from "../../kit/bounded.ts";

const WRONG = "a-token-that-is-wrong";

/** What needs the token; the list of paths in the documentation without those that do not. */
const GUARDED = [
  ...["GET /status", "GET /metrics", "GET /connections", "GET /events", "GET /limits", "PATCH /limits"],
  ...["POST /drain", "POST /pause", "POST /resume", "POST /connections/1/close", "GET /nothing"],
];

async function statusOf(admin: TestAdmin, what: string, options: AskOptions = {}): Promise<number> {
  return (await admin.ask(what, options)).status;
}

test("with a token, an admin port answers health checks and the page alone without it", async () => {
  await using admin = await startAdmin({ token: TOKEN });
  for (const path of ["/healthz", "/readyz", "/"]) assertEquals(await statusOf(admin, `GET ${path}`), 200, path);
  for (const what of GUARDED) {
    const { status, headers, body } = await admin.ask(what);
    assertEquals([status, headers.get("www-authenticate")], [401, "Bearer"], what);
    assertEquals(body, '{"error":"Cannot answer without the token"}\n');
    const wrong = await admin.ask(what, { token: WRONG });
    // Each client has only so many failures.
    assertEquals(wrong.status === 401 || wrong.status === 429, true, what);
  }
  assertEquals([admin.t.server.state, admin.t.server.paused], ["listening", false]);
});

test("an admin port takes the token from the header, in any case of its scheme, and as a whole", async () => {
  await using admin = await startAdmin({ token: TOKEN });
  const status = (authorization: string) =>
    statusOf(admin, "GET /status", { headers: { Authorization: authorization } });
  assertEquals(await status(`Bearer ${TOKEN}`), 200);
  assertEquals(await status(`bearer  ${TOKEN} `), 200);
  for (
    const wrong of [`Bearer ${TOKEN}x`, `Bearer ${TOKEN.slice(1)}`, `Bearer ${TOKEN.toUpperCase()}`, `Basic ${TOKEN}`]
  ) {
    assertEquals(await status(wrong), 401, wrong);
  }
  for (const wrong of [TOKEN, "Bearer", "Bearer ", ""]) assertEquals(await status(wrong), 401, wrong);
});

test("an admin port gives a cookie for the token, which is not the token, and takes it back", async () => {
  await using admin = await startAdmin({ token: TOKEN });
  const { port } = admin.port.addr as Deno.NetAddr;
  for (const body of [JSON.stringify({ token: TOKEN }), `token=${encodeURIComponent(TOKEN)}`]) {
    const { status, headers } = await admin.ask("POST /login", { body });
    const set = headers.get("set-cookie")!;
    assertEquals([status, set.includes(TOKEN)], [204, false]);
    assertMatch(set, new RegExp(`^shouty_admin_${port}=[\\w.]+; HttpOnly; SameSite=Strict; Path=/; Max-Age=43200$`));
    const [cookie] = set.split(";");
    assertEquals(await statusOf(admin, "GET /status", { headers: { Cookie: `other=1; ${cookie}; last=2` } }), 200);
    assertEquals(await statusOf(admin, "GET /status", { headers: { Cookie: `${cookie}0` } }), 401);
    const [name, value] = cookie.split("=");
    const longer = `${name}=${Number(value.split(".")[0]) + 1}.${value.split(".")[1]}`;
    assertEquals(await statusOf(admin, "GET /status", { headers: { Cookie: longer } }), 401);
  }
  const https = await admin.ask("POST /login", {
    host: "localhost",
    headers: { Origin: "https://localhost" },
    body: JSON.stringify({ token: TOKEN }),
  });
  assertMatch(https.headers.get("set-cookie")!, /^shouty_admin_0=.*; Secure$/);
  const out = await admin.ask("POST /logout");
  assertEquals(out.status, 204);
  assertMatch(out.headers.get("set-cookie")!, /=; HttpOnly; .*Max-Age=0$/);
  for (const body of ["", "{}", '{"token":5}', `{"token":"${WRONG}"}`, `token=${WRONG}`]) {
    const { status, headers, body: text } = await admin.ask("POST /login", { body });
    assertEquals([status, headers.get("set-cookie")], [401, null], body);
    assertEquals(text, '{"error":"Cannot sign in: wrong token"}\n');
  }
  assertEquals(await statusOf(admin, "POST /login", { body: "{" }), 400);
});

test("a session ends after half a day, or with another token, and not with the process", async () => {
  const clock = new FakeClock();
  const { value } = await (await Token.from(TOKEN, clock)).newSession();
  const again = await Token.from(TOKEN, clock);
  assertEquals(await again.isSession(value), true);
  assertEquals(await (await Token.from(WRONG, clock)).isSession(value), false);
  const now = Date.now;
  try {
    Date.now = () => now() + 12 * 60 * 60 * 1000 + 1000;
    assertEquals(await again.isSession(value), false);
  } finally {
    Date.now = now;
  }
  for (const nonsense of ["", ".", "1.2", value.toUpperCase(), ` ${value}`]) {
    assertEquals(await again.isSession(nonsense), nonsense === value, nonsense);
  }
});

test("without a token, an admin port on the loopback lets everybody in, also to sign in", async () => {
  await using admin = await startAdmin();
  assertEquals(await statusOf(admin, "GET /status"), 200);
  assertEquals(await statusOf(admin, "GET /status", { token: WRONG }), 200);
  const { status, headers } = await admin.ask("POST /login", { body: "token=any" });
  assertEquals([status, headers.get("set-cookie")], [204, null]);
});

test("an admin port knows itself by IP addresses, localhost and the names that it is given", async () => {
  await using admin = await startAdmin({ hosts: ["Admin.example"] });
  const status = (host: string, what = "GET /status") => statusOf(admin, what, { host });
  for (
    const host of [
      ...["127.0.0.1", "127.0.0.1:9090", "10.0.0.7:9090", "[::1]:9090", "[fd00::1]"],
      ...["localhost", "LOCALHOST:1", "admin.example", "admin.example:443"],
    ]
  ) {
    assertEquals(await status(host), 200, host);
  }
  for (
    const host of ["evil.example", "evil.example:9090", "localhost.evil.example", "127.0.0.1.evil.example", "1", "[]"]
  ) {
    for (const what of ["GET /status", "GET /readyz", "GET /", "POST /drain", "POST /login"]) {
      const { status, body } = await admin.ask(what, { host });
      assertEquals([status, JSON.parse(body).error.startsWith(`Cannot use Host "${host}"`)], [403, true], host);
    }
  }
  assertEquals(admin.t.server.state, "listening");
});

test("a request that carries the token may use any name, as Prometheus does, and one with the cookie may not", async () => {
  await using admin = await startAdmin({ token: TOKEN });
  assertEquals(await statusOf(admin, "GET /status", { host: "shouty.internal:9090", token: TOKEN }), 200);
  assertEquals(await statusOf(admin, "GET /readyz", { host: "shouty.internal:9090", token: TOKEN }), 200);
  assertEquals(await statusOf(admin, "GET /status", { host: "shouty.internal:9090", token: WRONG }), 401);
  assertEquals(await statusOf(admin, "GET /status", { host: "shouty.internal:9090" }), 403);
  const { headers } = await admin.ask("POST /login", { body: `token=${TOKEN}` });
  const Cookie = headers.get("set-cookie")!.split(";")[0];
  const { port } = admin.port.addr as Deno.NetAddr;
  assertEquals(await statusOf(admin, "GET /status", { host: `evil.example:${port}`, headers: { Cookie } }), 403);
});

test("a health check needs no name, as HAProxy sends none, and all else does", async () => {
  await using admin = await startAdmin();
  assertEquals([await statusOf(admin, "GET /readyz", { host: "" })], [200]);
  assertEquals([await statusOf(admin, "GET /status", { host: "" })], [403]);
  assertMatch(await send(admin.port.addr, "GET /readyz HTTP/1.1\r\n\r\n"), /^HTTP\/1\.1 400 /);
});

test("an admin port answers no page of another site", async () => {
  await using admin = await startAdmin({ token: TOKEN });
  const { port } = admin.port.addr as Deno.NetAddr;
  const status = (what: string, headers: Record<string, string>) => statusOf(admin, what, { headers, token: TOKEN });
  assertEquals(await status("POST /pause", { Origin: `http://127.0.0.1:${port}` }), 200);
  for (
    const Origin of ["http://evil.example", "null", "http://127.0.0.1", `http://127.0.0.1:${port + 1}`, "", "file://"]
  ) {
    for (const what of ["POST /drain", "GET /status", "GET /readyz", "POST /login", "GET /events"]) {
      assertEquals(await status(what, { Origin }), 403, `${what} ${Origin}`);
    }
  }
  const site = (name: string, mode: string) => ({ "Sec-Fetch-Site": name, "Sec-Fetch-Mode": mode });
  assertEquals(await status("GET /", site("cross-site", "navigate")), 200);
  assertEquals(await status("GET /status", site("same-origin", "cors")), 200);
  assertEquals(await status("GET /", site("none", "navigate")), 200);
  assertEquals(await status("GET /events", site("cross-site", "no-cors")), 403);
  assertEquals(await status("GET /status", site("same-site", "no-cors")), 403);
  assertEquals(await status("POST /drain", site("cross-site", "navigate")), 403);
  assertEquals(admin.t.server.state, "listening");
});

test("a client that sends wrong tokens has to wait, and one with a session goes on", async () => {
  const clock = new FakeClock();
  await using admin = await startAdmin({ token: TOKEN, clock });
  const Cookie = (await admin.ask("POST /login", { body: `token=${TOKEN}` })).headers.get("set-cookie")!.split(";")[0];
  const tries = Array.from({ length: 2 * FREE_FAILURES }, () => statusOf(admin, "GET /status", { token: WRONG }));
  const statuses = await Promise.all(tries);
  assertEquals(statuses.filter((status) => status === 401).length, FREE_FAILURES);
  assertEquals(statuses.filter((status) => status === 429).length, FREE_FAILURES);
  const { status, headers, body } = await admin.ask("GET /status", { token: TOKEN });
  assertEquals([status, headers.get("retry-after")], [429, "6"]);
  assertEquals(body, '{"error":"Cannot compare the token: too many wrong ones"}\n');
  assertEquals(await statusOf(admin, "POST /login", { body: `token=${TOKEN}` }), 429);
  assertEquals(await statusOf(admin, "GET /status", { headers: { Cookie } }), 200);
  assertEquals(await statusOf(admin, "GET /readyz"), 200);
  await clock.advance(FAILURE_MS);
  // What succeeds does not count, however often.
  for (let i = 0; i < 3; i++) assertEquals(await statusOf(admin, "GET /status", { token: TOKEN }), 200);
  assertEquals(await statusOf(admin, "GET /status", { token: WRONG }), 401);
  assertEquals(await statusOf(admin, "GET /status", { token: WRONG }), 429);
  await clock.advance(FREE_FAILURES * FAILURE_MS);
  assertEquals(await statusOf(admin, "GET /status", { token: WRONG }), 401);
});

test("what one client has failed at does not count for another", async () => {
  const token = await Token.from(TOKEN, new FakeClock());
  for (let i = 0; i < FREE_FAILURES; i++) assertEquals(await token.matches(WRONG, "192.0.2.1"), false);
  await assertRejects(() => token.matches(TOKEN, "192.0.2.1"), Error, "too many wrong ones");
  assertEquals(await token.matches(TOKEN, "192.0.2.2"), true);
});

test("the failures of 10000 clients are remembered, and no more", () => {
  const attempts = new Attempts(new FakeClock());
  const fail = (client: string) => attempts.take(client);
  for (let i = 0; i < FREE_FAILURES; i++) fail("first");
  for (let i = 1; i < 10_000; i++) fail(`client ${i}`);
  assertThrows(() => fail("first"), Error, "too many wrong ones");
  fail("one more");
  fail("first");
});

test("of the clients with wrong tokens, the one that has failed least recently is forgotten first", async () => {
  const clock = new FakeClock();
  const attempts = new Attempts(clock);
  for (let i = 0; i < FREE_FAILURES; i++) attempts.take("first");
  for (let i = 1; i < 10_000; i++) for (let failures = 2; failures > 0; failures--) attempts.take(`client ${i}`);
  await clock.advance(FAILURE_MS);
  attempts.take("first");
  attempts.take("one more");
  assertThrows(() => attempts.take("first"), Error, "too many wrong ones");
});

test("a client that sends the right token many times at once does not have to wait", async () => {
  const token = await Token.from(TOKEN, new FakeClock());
  const many = Array.from({ length: 10 * FREE_FAILURES }, () => token.matches(TOKEN, "192.0.2.1"));
  assertEquals(new Set(await Promise.all(many)), new Set([true]));
});

test("nothing that an object with the token prints has the token in it", async () => {
  const token = await Token.from(TOKEN, new FakeClock());
  const { value } = await token.newSession();
  const printed = [Deno.inspect(token, { depth: 10, showHidden: true }), JSON.stringify(token), String(token), value];
  assertEquals(printed.some((text) => text.includes(TOKEN)), false);
});
