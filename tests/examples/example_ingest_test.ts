import { assert, assertEquals, assertLess } from "@std/assert";
import { DatabaseSync } from "node:sqlite";
import { type Metric, serveIngest, sqliteStore } from "../../examples/ingest.ts";
import { test } from "../kit/bounded.ts";
import { listening, NO_SIGNALS, Subprocess } from "../kit/command.ts";
import { inMemory, TestServer } from "../kit/server.ts";

test("ingest stores counters, gauges and timers, with their rates", async () => {
  using db = new Database();
  await using t = new TestServer((options) => serveIngest(options, sqliteStore(db.handle)), {});
  await t.talk("logins:1|c|@0.1\r\nusers:42|g\nusers:-3|g\n\nanswer:3.5|ms:4|ms:320|ms|@0.5");
  assertEquals(db.rows(), [
    { name: "logins", type: "c", value: 1, rate: 0.1, relative: 0 },
    { name: "users", type: "g", value: 42, rate: 1, relative: 0 },
    { name: "users", type: "g", value: -3, rate: 1, relative: 1 },
    { name: "answer", type: "ms", value: 3.5, rate: 1, relative: 0 },
    { name: "answer", type: "ms", value: 4, rate: 1, relative: 0 },
    { name: "answer", type: "ms", value: 320, rate: 0.5, relative: 0 },
  ]);
});

test("ingest counts the lines that it does not understand, and stores nothing of them", async () => {
  using db = new Database();
  await using t = new TestServer((options) => serveIngest(options, sqliteStore(db.handle)), {});
  const most = "9".repeat(400);
  const bad = [
    `x:${most}|c`,
    `x:-${most}|g`,
    "a\0b:1|c",
    "\x1b[2J:1|c",
    "x",
    "x:",
    ":1|c",
    "x:1",
    "x:|c",
    "x:1|q",
    "x:1|c|@2",
    "x:1|c|@0",
    "a b:1|c",
    "x:1|c:2",
    "x:1e400|c",
  ];
  await t.talk(`${bad.join("\n")}\nx:1|c\n`);
  assertEquals(db.rows().map(({ name }) => name), [...bad.map(() => "ingest.bad_lines"), "x"]);
});

test("ingest writes the lines that have come together in one transaction", async () => {
  const { listener, clock } = inMemory();
  const batches: number[] = [];
  const store = (metrics: Metric[]) => void batches.push(metrics.length);
  await using t = new TestServer((options) => serveIngest(options, store), { listener, clock });
  await t.talk("x:1|c\n".repeat(2000));
  assertEquals(batches.reduce((sum, count) => sum + count), 2000);
  assertLess(batches.length, 20);
});

test("ingest stores all of a batch or nothing, and closes the connection that it came from", async () => {
  using db = new Database();
  await using t = new TestServer((options) => serveIngest(options, sqliteStore(db.handle)), {});
  db.handle.exec(`CREATE TRIGGER full BEFORE INSERT ON metrics WHEN NEW.name = 'last'
    BEGIN SELECT RAISE(ABORT, 'disk full'); END`);
  await t.talk("first:1|c\nlast:1|c\n");
  assertEquals((await t.closed()).reason, "handler-error");
  assertEquals(db.rows(), []);
  await t.talk("next:1|c\n");
  assertEquals(db.rows().map(({ name }) => name), ["next"]);
});

test("ingest reads nothing while the store is busy, and everything once it is not", async () => {
  const gate = Promise.withResolvers<void>();
  let [stored, running] = [0, 0];
  const store = async (metrics: Metric[]) => {
    assertEquals(++running, 1, "It reads on while the store is busy");
    await gate.promise;
    stored += metrics.length;
    running--;
  };
  const { listener, clock } = inMemory();
  await using t = new TestServer((options) => serveIngest(options, store), { listener, clock });
  const client = await t.connect();
  let written = 0;
  const writing = (async () => {
    for (; written < 200_000; written += 100) await client.write("some.name:1|c\n".repeat(100));
    await client.closeWrite();
  })();
  for (let quiet = 0, before = 0; quiet < 20; quiet = written === before ? quiet + 1 : 0) {
    before = written;
    await clock.advance(100);
  }
  assertLess(written * 14, 512 * 1024);
  gate.resolve();
  await writing;
  await t.closed();
  assertEquals(stored, 200_000);
});

test("ingest loses no line that a client has written before a shutdown", async () => {
  using db = new Database();
  await using t = new TestServer((options) => serveIngest(options, sqliteStore(db.handle)), {});
  const clients = await Promise.all(Array.from({ length: 20 }, () => t.admitted()));
  let written = 0;
  for (const [i, client] of clients.entries()) {
    const count = 1 + 150 * i;
    await client.write("some.name:1|c\n".repeat(count));
    written += count;
  }
  const stopping = t.server.shutdown();
  await Promise.all(clients.map(async (client) => {
    assertEquals(await client.readAll(), "");
    client[Symbol.dispose]();
  }));
  assertEquals((await stopping).closed, { drained: 20 });
  assertEquals(db.count(), written);
});

test(
  "ingest has stored every line when a signal has ended it",
  async () => {
    const dir = await Deno.makeTempDir();
    try {
      const file = `${dir}/metrics.db`;
      await using example = await listening(
        new Subprocess(Deno.execPath(), ["run", "-A", "examples/ingest.ts", "0", file]),
      );
      const conns = await Promise.all(Array.from({ length: 5 }, () => Deno.connect({ port: example.port })));
      using db = new Database(file);
      // The kernel accepts connections before the server does, and resets those that the server has not accepted.
      await Promise.all(conns.map((conn) => send(conn, "first:1|c\n")));
      while (db.count() < conns.length) await new Promise((resolve) => setTimeout(resolve, 10));
      await Promise.all(conns.map((conn) => send(conn, "some.name:1|c\n".repeat(2000))));
      example.signal("SIGTERM");
      for (const conn of conns) {
        assertEquals(await new Response(conn.readable).text(), "");
      }
      assertEquals((await example.outcome()).code, 0);
      assertEquals(db.count(), 5 + 10_000);
    } finally {
      await Deno.remove(dir, { recursive: true });
    }
  },
  60,
  NO_SIGNALS,
);

async function send(conn: Deno.TcpConn, text: string): Promise<void> {
  await new Response(text).body!.pipeTo(conn.writable, { preventClose: true });
}

/** A database with metrics. */
class Database implements Disposable {
  readonly handle: DatabaseSync;

  constructor(file = ":memory:") {
    this.handle = new DatabaseSync(file);
  }

  rows(): Record<string, unknown>[] {
    const rows = this.handle.prepare("SELECT name, type, value, rate, relative, at FROM metrics ORDER BY rowid").all();
    return rows.map(({ at, ...row }) => {
      assert(Math.abs(Number(at) - Date.now()) < 600_000);
      return { ...row };
    });
  }

  count(): number {
    return Number(this.handle.prepare("SELECT count(*) AS count FROM metrics").get()!.count);
  }

  [Symbol.dispose](): void {
    this.handle.close();
  }
}
