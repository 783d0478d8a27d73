import { assertEquals, assertLess, assertMatch, assertThrows } from "@std/assert";
import type { Listener, Transport } from "@x/shouty";
import { listenTls, listenUnix, withTelnet } from "@x/shouty/ops";
import { TestClient } from "@x/shouty/testing";
import { MAX_SUBNEGOTIATION_BYTES, TelnetFilter } from "../../../ops/wrappers/telnet_filter.ts";
import { turn } from "../../../internal/time/event_loop.ts";
import { test, testOnce } from "../../kit/bounded.ts";
import { HAS_SCRIPT, Subprocess } from "../../kit/command.ts";
import { tapped } from "../../kit/faults.ts";
import { missingProgram } from "../../kit/foreign/foreign.ts";
import { restlessClock } from "../../kit/fakes/restless_clock.ts";
import { inMemory, listenLoopback, startConversations, startServer } from "../../kit/server.ts";
import { AUTHORITY, IDENTITY } from "../../kit/tls.ts";

const [SE, NOP, IP, AYT, SB, WILL, WONT, DO, DONT, IAC] = [240, 241, 244, 246, 250, 251, 252, 253, 254, 255];
const [ECHO, TIMING_MARK, NAWS] = [1, 6, 31];

/** Text as UTF-8, and bytes as they are. */
function bytesOf(...parts: (string | number)[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(
    parts.flatMap((part) => typeof part === "number" ? part : [...new TextEncoder().encode(part)]),
  );
}

/** Reads all bytes up to the end of input. */
async function readAll(client: TestClient): Promise<number[]> {
  const all: number[] = [];
  for (let bytes = await client.read(); bytes !== null; bytes = await client.read()) all.push(...bytes);
  return all;
}

/** Sends bytes in pieces that end at the indexes `cuts`; returns what comes back. */
async function talk(
  listener: Listener,
  connect: () => TestClient,
  sent: Uint8Array,
  cuts: number[],
): Promise<number[]> {
  await using _ = startServer({ listener: withTelnet(listener) });
  using client = connect();
  const received = readAll(client);
  for (const [i, end] of [...cuts, sent.length].entries()) await client.write(sent.subarray(cuts[i - 1] ?? 0, end));
  await client.closeWrite();
  return await received;
}

const SENT = bytesOf(
  ...[IAC, DO, ECHO, "he", IAC, NOP, "llo", IAC, WILL, NAWS, IAC, SB, NAWS, 0, IAC, IAC, 0, 24, IAC, SE, "\r\n"],
  ...["wo", IAC, DONT, ECHO, IAC, WONT, NAWS, "r", IAC, IP, IAC, AYT, "ld", IAC, IAC, "!\n"],
);
const REFUSALS = [[IAC, WONT, ECHO], [IAC, DONT, NAWS]];
const REPLIES = [...bytesOf("HELLO\nWORLD\ufffd!\n")];

/** Separates the refusals from the replies. */
function split(received: number[]): { refusals: number[][]; replies: number[] } {
  const refusals: number[][] = [];
  const replies = [...received];
  for (let at = replies.indexOf(IAC); at >= 0; at = replies.indexOf(IAC)) refusals.push(replies.splice(at, 3));
  return { refusals, replies };
}

testOnce("Telnet's commands are taken out and refused, wherever they are cut", async () => {
  for (let cut = 0; cut < SENT.length; cut++) {
    const { listener } = inMemory();
    const received = await talk(listener, () => listener.connect(), SENT, [cut]);
    assertEquals(split(received), { refusals: REFUSALS, replies: REPLIES }, `Cut at ${cut}`);
  }
});

testOnce("Telnet's commands are taken out and refused byte by byte, and through small buffers", async () => {
  const { listener } = inMemory({ bufferBytes: 1 });
  const received = await talk(listener, () => listener.connect(), SENT, Array.from(SENT, (_, i) => i));
  assertEquals(split(received), { refusals: REFUSALS, replies: REPLIES });
});

testOnce(
  "A TIMING-MARK is answered behind the replies to what came before it, and before those to what came after",
  async () => {
    const { listener } = inMemory();
    await using _ = startServer({ listener: withTelnet(listener) });
    const client = listener.connect();
    await client.write(bytesOf("before\n", IAC, IP, IAC, DO, TIMING_MARK, "after\n", IAC, DO, TIMING_MARK));
    await client.closeWrite();
    const mark = [IAC, WILL, TIMING_MARK];
    assertEquals(await readAll(client), [...bytesOf("BEFORE\n", ...mark, "AFTER\n", ...mark)]);
  },
);

testOnce("A TIMING-MARK that is cut anywhere is answered once, and one that is only offered is refused", () => {
  for (let cut = 0; cut <= 3; cut++) {
    const answers: number[] = [];
    const filter = new TelnetFilter((bytes) => answers.push(...bytes));
    const bytes = bytesOf(IAC, DO, TIMING_MARK);
    const marks = [bytes.slice(0, cut), bytes.slice(cut)].filter((part) => filter.filter(part, part).mark);
    assertEquals([marks.length, answers], [1, []]);
    const offer = bytesOf(IAC, WILL, TIMING_MARK);
    assertEquals([filter.filter(offer, offer).mark, answers], [false, [IAC, DONT, TIMING_MARK]]);
  }
});

testOnce("A subnegotiation of up to 1 KiB is left out, and a longer one ends its connection", async () => {
  const { listener } = inMemory();
  await using t = startServer({ listener: withTelnet(listener) });
  const sub = (length: number) => bytesOf(IAC, SB, NAWS, ..."x".repeat(length - 3), IAC, SE, "hello\n");
  const client = listener.connect();
  await client.write(sub(MAX_SUBNEGOTIATION_BYTES));
  assertEquals(await client.readLine(), "HELLO");
  await client.write(sub(MAX_SUBNEGOTIATION_BYTES + 1));
  const { reason, error } = await t.closed();
  assertEquals([reason, (error as Error).message], [
    "transport-error",
    "A Telnet subnegotiation longer than 1024 bytes",
  ]);
});

testOnce("Subnegotiations are bounded each, not all together", async () => {
  const { listener } = inMemory();
  await using _ = startServer({ listener: withTelnet(listener) });
  const client = listener.connect();
  for (let i = 0; i < 5; i++) await client.write(bytesOf(IAC, SB, NAWS, ..."x".repeat(500), IAC, SE));
  await client.write("hello\n");
  assertEquals(await client.readLine(), "HELLO");
});

testOnce("A refusal leaves before the end of a connection that its handler closes", async () => {
  const { listener } = inMemory();
  await using _ = startConversations({ listener: withTelnet(listener) }, async (conn) => {
    await conn.readLine();
    conn.close();
  });
  const client = listener.connect();
  await client.write(bytesOf(IAC, DO, ECHO, "bye\n"));
  assertEquals(await readAll(client), [IAC, WONT, ECHO]);
});

test("Options that a peer asks for once the server has ended its side get no answer, and end nothing", async () => {
  const asked = Array.from({ length: 20_000 }, () => [IAC, DO, ECHO]).flat();
  await using t = startConversations({ listener: withTelnet(listenLoopback()) }, async (conn) => {
    await conn.write("last\n");
    await conn.closeWrite();
    await conn.readExactly(40_000);
    assertEquals(await conn.readLine(), null);
  });
  const client = await t.connect();
  assertEquals(await readAll(client), [...bytesOf("last\n")]);
  await client.write(bytesOf("x".repeat(20_000), ...asked, "x".repeat(20_000)));
  await client.closeWrite();
  assertEquals((await t.closed()).reason, "end");
});

testOnce("A graceful close of a connection goes on reading, whatever options the peer asks for meanwhile", async () => {
  const { listener } = inMemory();
  await using _ = startConversations({ listener: withTelnet(listener) }, (conn) => conn.write("last\n"));
  const client = listener.connect();
  assertEquals(await readAll(client), [...bytesOf("last\n")]);
  await client.write(Uint8Array.from(Array.from({ length: 100_000 }, () => [IAC, DO, ECHO]).flat()));
  await client.closeWrite();
});

testOnce("A byte 255 that the server writes is sent twice, in a reply of any length", async () => {
  const { listener } = inMemory({ bufferBytes: 100 });
  const reply = Uint8Array.from({ length: 20_000 }, (_, i) => i % 3 === 0 ? IAC : i % 251);
  await using _ = startConversations({ listener: withTelnet(listener) }, async (conn) => {
    await conn.write(reply);
  });
  const client = listener.connect();
  assertEquals(await readAll(client), [...reply].flatMap((byte) => byte === IAC ? [IAC, IAC] : [byte]));
});

testOnce("A peer that asks for options and never reads the refusals is read no further, and ends as idle", async () => {
  const { listener, clock } = inMemory({ bufferBytes: 1000 });
  await using t = startServer({ listener: withTelnet(listener), clock });
  const client = listener.connect();
  let asked = 0;
  const asking = (async () => {
    for (;; asked++) await client.write(bytesOf(IAC, DO, ECHO));
  })();
  asking.catch(() => {});
  for (let turns = 50; turns > 0 && asked < 5000; turns--) await turn();
  // What the buffers of both directions hold, and as many refusals as may wait.
  assertLess(asked, 2000);
  await clock.advance(9999);
  assertEquals(t.stats.active, 1);
  await clock.advance(1);
  assertEquals(["idle", "first-line-timeout"].includes((await t.closed()).reason), true);
});

testOnce("A refusal that cannot leave yet waits once, however many bytes come after it", async () => {
  const memory = inMemory().listener;
  const writes: PromiseWithResolvers<number>[] = [];
  const write = () => {
    const writing = Promise.withResolvers<number>();
    writes.push(writing);
    return writing.promise;
  };
  const listener = withTelnet(tapped(memory, () => ({ write })));
  using client = memory.connect();
  const transport = await listener.accept();
  const into = new Uint8Array(100);
  for (const sent of [bytesOf(IAC, DO, ECHO, "a"), bytesOf(IAC, DO, NAWS, "b")]) {
    await client.write(sent);
    assertEquals(await transport.read(into), 1);
  }
  for (let i = 0; i < 1000; i++) {
    await client.write("c");
    await transport.read(into);
  }
  assertEquals(writes.length, 1);
  // What waits is done before the next write begins: the number of microtasks tells how much that is.
  transport.write(into).catch(() => {});
  writes[0].resolve(3);
  while (writes.length < 2) await undefined;
  writes[1].resolve(3);
  let microtasks = 0;
  for (; writes.length < 3; microtasks++) await undefined;
  assertLess(microtasks, 100);
  transport.close();
});

test("A peer that sends nothing but commands has others go on, and its time runs out", async () => {
  const clock = restlessClock();
  const options = { clock, idleTimeout: 500, firstLineTimeout: Infinity };
  await using t = startServer({ listener: withTelnet(listenLoopback()), ...options });
  const client = await t.admitted();
  let asking = true;
  const commands = Uint8Array.from({ length: 60_000 }, (_, i) => i % 2 === 0 ? IAC : NOP);
  const storm = (async () => {
    while (asking) await client.write(commands);
  })().catch(() => {});
  assertEquals(await t.talk("hello\n"), "HELLO\n");
  await t.closed();
  clock.pass(499);
  // Commands come at this time, too.
  for (let turns = 5; turns > 0; turns--) await turn();
  clock.pass(1);
  assertEquals((await t.closed(2)).reason, "idle");
  asking = false;
  await storm;
});

testOnce("Commands that are always there leave the loop to others in between", async () => {
  let reads = 0;
  const addr: Deno.NetAddr = { transport: "tcp", hostname: "127.0.0.1", port: 1 };
  const transport: Transport = {
    ...{ remoteAddr: addr, localAddr: addr, close() {} },
    ...{ write: ({ length }) => Promise.resolve(length), closeWrite: () => Promise.resolve() },
    read(into) {
      for (let i = 0; i < 256; i++) into[i] = i % 2 === 0 ? IAC : NOP;
      return Promise.resolve(++reads < 20_000 ? 256 : null);
    },
  };
  const accept = () => Promise.resolve(transport);
  const conn = await withTelnet({ addr, accept, close() {} }).accept();
  let readsBefore = Infinity;
  setTimeout(() => readsBefore = reads, 0);
  assertEquals(await conn.read(new Uint8Array(1024)), null);
  assertLess(readsBefore, 20_000);
});

testOnce("Many TIMING-MARKs in one piece take linear work", async () => {
  const { listener } = inMemory({ bufferBytes: 1 << 17 });
  await using _ = startServer({ listener: withTelnet(listener), maxLineBytes: 65_536 });
  const client = listener.connect();
  const marks = bytesOf("x".repeat(40_000), ...Array.from({ length: 8000 }, () => [IAC, DO, TIMING_MARK]).flat(), "\n");
  const { slice, set } = Uint8Array.prototype;
  const proto = Object.getPrototypeOf(Uint8Array.prototype);
  let copied = 0;
  proto.slice = function (this: Uint8Array, ...args: [number, number]) {
    const part = slice.apply(this, args);
    copied += part.length;
    return part;
  };
  proto.set = function (this: Uint8Array, source: Uint8Array, offset?: number) {
    copied += source.length;
    return set.call(this, source, offset);
  };
  try {
    await client.write(marks);
    await client.closeWrite();
    assertEquals((await readAll(client)).length, 40_001 + 3 * 8000);
  } finally {
    Object.assign(proto, { slice, set });
  }
  assertEquals(copied < 20 * marks.length, true, `${copied} bytes were copied`);
});

test("Telnet's commands are taken out and refused under TLS, and on a Unix socket", async () => {
  const expected = { refusals: REFUSALS, replies: REPLIES };
  const tls = await listenTls({ listener: listenLoopback(), ...IDENTITY });
  const { port } = tls.addr as Deno.NetAddr;
  const secure = new TestClient(await Deno.connectTls({ port, caCerts: [AUTHORITY.cert] }));
  assertEquals(split(await talk(tls, () => secure, SENT, [7, 20])), expected);
  if (Deno.build.os === "windows") return;
  const path = `${await Deno.makeTempDir()}/socket`;
  const unix = await listenUnix({ path });
  const local = new TestClient(await Deno.connect({ transport: "unix", path }));
  assertEquals(split(await talk(unix, () => local, SENT, [7, 20])), expected);
});

testOnce("withTelnet() refuses what is no listener", () => {
  assertThrows(() => withTelnet({} as Listener), TypeError, "Cannot use listener: expected a listener");
});

const HAS_TELNET = await missingProgram("telnet") === "";
const MISSING = HAS_TELNET && HAS_SCRIPT ? "" : " (skipped: telnet or util-linux's script is missing)";

test(
  "A user of telnet goes on after Ctrl-C",
  async () => {
    await using t = startServer({ listener: withTelnet(listenLoopback()) });
    const line = `exec telnet 127.0.0.1 ${t.port}`;
    const args = ["--quiet", "--return", "--command", line, "/dev/null"];
    await using telnet = new Subprocess("script", args, { env: { SHELL: "/bin/sh", TERM: "dumb" } });
    await telnet.stdoutMatch(/Escape character is/);
    await telnet.type("hello\n");
    await telnet.stdoutMatch(/HELLO\r\n/);
    await telnet.type("\x03");
    await telnet.type("after\n");
    // Without an answer to its TIMING-MARK, telnet would drop all output from here on.
    await telnet.stdoutMatch(/AFTER\r\n/);
    // `^]`, and telnet's command that sends a Synch with an urgent byte.
    await telnet.type("\x1d");
    await telnet.stdoutMatch(/telnet> /);
    await telnet.type("send synch\n");
    await telnet.type("again\n");
    await telnet.stdoutMatch(/AGAIN\r\n/);
    await telnet.type("\x1d");
    await telnet.type("quit\n");
    const { lines, reason } = await t.closed();
    assertEquals(lines, 3);
    assertMatch(reason, /^(end|reset)$/);
  },
  60,
  MISSING,
);
