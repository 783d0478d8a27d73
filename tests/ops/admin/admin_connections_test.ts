import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { Conn } from "@x/shouty";
import { MemoryListener } from "@x/shouty/testing";
import { startAdmin } from "../../kit/admin/admin.ts";
import { test } from "../../kit/bounded.ts";

test("an admin port closes one connection, with a word for the log", async () => {
  await using admin = await startAdmin();
  const clients = [await admin.t.admitted(), await admin.t.admitted()];
  const { status, body } = await admin.ask("POST /connections/2/close", { body: '{"detail":"too noisy"}' });
  assertEquals([status, body], [202, '{"id":2}\n']);
  assertEquals(await clients[1].readAll(), "");
  await clients[1].closeWrite();
  const { conn, reason, detail } = await admin.t.closed();
  assertEquals([conn.id, reason, detail], [2, "closed", "too noisy"]);
  assertEquals((await admin.ask("POST /connections/1/close")).status, 202);
  await clients[0].closeWrite();
  assertEquals((await admin.t.closed(2)).detail, "admin");
  const gone = await admin.ask("POST /connections/2/close");
  assertEquals([gone.status, gone.body], [404, '{"error":"Cannot close connection 2: there is none"}\n']);
  const wrong = await admin.ask("POST /connections/1/close", { body: '{"detail":5}' });
  assertEquals([wrong.status, wrong.body], [400, '{"error":"Cannot use detail: expected a string, got 5"}\n']);
});

test("an admin port changes limits, all or none", async () => {
  await using admin = await startAdmin();
  const patch = async (body: string) => {
    const { status, body: text } = await admin.ask("PATCH /limits", { body });
    return [status, JSON.parse(text).error ?? ""];
  };
  const before = await admin.json("GET /limits");
  assertEquals([before.maxConnections, before.maxLines, before.allow], [10_000, null, null]);
  assertEquals(await patch('{"maxConnections":5,"idleTimeout":null,"atCapacity":"wait"}'), [200, ""]);
  const { maxConnections, idleTimeout, atCapacity } = admin.t.server.limits;
  assertEquals([maxConnections, idleTimeout, atCapacity], [5, Infinity, "wait"]);
  assertEquals(await patch('{"deny":["192.0.2.0/24"]}'), [200, ""]);
  assertEquals(await patch('{"deny":null}'), [200, ""]);
  assertEquals(await patch(""), [200, ""]);
  for (
    const [body, error] of [
      ['{"maxConnections":0}', /^Cannot use maxConnections 0: expected a whole number of at least 1, or null$/],
      ['{"maxLineBytes":null}', /^Cannot use maxLineBytes null: expected a whole number from 1 to \d+$/],
      ['{"idleTimeout":0}', /^Cannot use idleTimeout 0: expected more than 0 and at most \d+ ms, or null$/],
      ['{"maxConnections":"5"}', /^Cannot use maxConnections "5": expected a number$/],
      ['{"maxLines":1,"lineTimeout":-1}', /^Cannot use lineTimeout -1/],
      ['{"deny":["nonsense"]}', /nonsense/],
      ['{"port":80}', /^Cannot use "port": expected one of idleTimeout, /],
      ['{"__proto__":{}}', /^Cannot use "__proto__"/],
      ["[1]", /^Cannot use the body: expected a JSON object$/],
      ["null", /^Cannot use the body: expected a JSON object$/],
      ["{", /^Cannot use the body: expected JSON$/],
    ] as const
  ) {
    const [status, message] = await patch(body);
    assertEquals(status, 400, body);
    assertMatch(message, error);
  }
  assertEquals(admin.t.server.limits.maxLines, Infinity);
});

test("an admin port sorts, filters and limits the list of connections", async () => {
  await using admin = await startAdmin();
  const clients = [];
  for (const lines of [3, 1, 2]) {
    const client = await admin.t.admitted();
    clients.push(client);
    await client.write("x\n".repeat(lines));
    for (let i = 0; i < lines; i++) await client.readLine();
  }
  await clients[1].write("half a li");
  const list = async (query: string) => {
    const { total, matched, connections } = await admin.json(`GET /connections${query}`);
    return [total, matched, connections.map(({ id }: Conn) => id)];
  };
  const [first] = (await admin.json("GET /connections")).connections;
  const { port } = clients[0].addr as Deno.NetAddr;
  assertEquals([first.id, first.peer, first.local], [1, `127.0.0.1:${port}`, `127.0.0.1:${admin.t.port}`]);
  assertEquals([first.lines, first.bytesIn, first.bytesOut], [3, 6, 6]);
  assertEquals([first.phase, first.waitsFor], ["open", "peer"]);
  assert(Number.isInteger(first.ageMs) && Number.isInteger(first.idleMs));
  assertEquals(await list(""), [3, 3, [1, 2, 3]]);
  assertEquals(await list("?sort=-id"), [3, 3, [3, 2, 1]]);
  assertEquals(await list("?sort=lines"), [3, 3, [2, 3, 1]]);
  assertEquals(await list("?sort=-bytesIn&limit=1"), [3, 3, [2]]);
  assertEquals(await list("?sort=-age&limit=1&offset=1"), [3, 3, [2]]);
  assertEquals(await list("?offset=3"), [3, 3, []]);
  assertEquals(await list(`?filter=:${port}`), [3, 1, [1]]);
  assertEquals(await list("?filter=NOBODY"), [3, 0, []]);
  assertEquals(await list("?waitsFor=line"), [3, 1, [2]]);
  assertEquals(await list("?phase=open&waitsFor=peer&sort=peer&limit=1000"), [3, 2, peersInOrder(clients, [1, 3])]);
  assertEquals(await list("?phase=leaving"), [3, 0, []]);
});

/** The numbers of connections, in the order of their peers as texts. */
function peersInOrder(clients: { addr: Deno.Addr }[], ids: number[]): number[] {
  const peer = (id: number) => String((clients[id - 1].addr as Deno.NetAddr).port);
  return ids.toSorted((a, b) => peer(a) < peer(b) ? -1 : 1);
}

test("an admin port finds connections by what their handlers say of them", async () => {
  await using admin = await startAdmin();
  using _client = await admin.t.admitted();
  const [conn] = admin.t.server.connections;
  conn.setDeadline(60_000, "No Greeting");
  assertEquals((await admin.json("GET /connections?filter=GREET")).connections[0].detail, "No Greeting");
});

test("what handlers say cannot act on the terminal on which an answer is shown", async () => {
  await using admin = await startAdmin();
  using _client = await admin.t.admitted();
  const [conn] = admin.t.server.connections;
  const detail = "\x9b31mred \u202ereversed\u2028";
  conn.setDeadline(60_000, detail);
  const { body } = await admin.ask("GET /connections");
  assertStringIncludes(body, String.raw`"detail":"\u009b31mred \u202ereversed\u2028"`);
  assertEquals(JSON.parse(body).connections[0].detail, detail);
});

test("an admin port names what is wrong with the list that is asked for", async () => {
  await using admin = await startAdmin();
  for (
    const [query, error] of [
      ["sort=size", 'Cannot use sort "size": expected one of id, age, idle, lines, bytesIn, bytesOut, peer, or'],
      ["sort=__proto__", 'Cannot use sort "__proto__": expected one of id,'],
      ["phase=gone", 'Cannot use phase "gone": expected one of open, ending, leaving, lingering, closed'],
      ["waitsFor=x", 'Cannot use waitsFor "x": expected one of first-byte, peer, line, body, '],
      ["limit=0", 'Cannot use limit "0": expected a whole number from 1 to 1000'],
      ["limit=1001", 'Cannot use limit "1001": expected a whole number from 1 to 1000'],
      ["limit=", 'Cannot use limit "": expected a whole number from 1 to 1000'],
      ["offset=-1", 'Cannot use offset "-1": expected a whole number from 0'],
      ["offset=1e3", 'Cannot use offset "1e3": expected a whole number from 0'],
      ["order=id", 'Cannot use parameter "order": expected sort, filter, phase, waitsFor, limit, offset'],
      ["limit=1&limit=2", "Cannot use limit twice: expected it once"],
    ]
  ) {
    const { status, body } = await admin.ask(`GET /connections?${query}`);
    assertEquals(status, 400, query);
    assertStringIncludes(JSON.parse(body).error, error);
  }
});

test("an admin port lists a connection although its transport does not tell its own address", async () => {
  const memory = new MemoryListener();
  const get = () => {
    throw new Error("It is closed");
  };
  const accept = async () => Object.defineProperty(await memory.accept(), "localAddr", { get });
  const listener = { addr: memory.addr, accept, close: () => memory.close() };
  await using admin = await startAdmin({}, { listener });
  using _client = memory.connect();
  await admin.t.until("accepted");
  const { connections } = await admin.json("GET /connections");
  assertEquals(connections.map(({ id, local }: { id: number; local: string }) => [id, local]), [[1, ""]]);
});
