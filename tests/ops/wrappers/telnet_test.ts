import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import type { Listener } from "@x/shouty";
import { listenTls, listenUnix, withTelnet } from "@x/shouty/ops";
import { TestClient } from "@x/shouty/testing";
import { TelnetFilter } from "../../../ops/wrappers/telnet_filter.ts";
import { test, testOnce } from "../../kit/bounded.ts";
import { HAS_SCRIPT, Subprocess } from "../../kit/command.ts";
import { missingProgram } from "../../kit/foreign/foreign.ts";
import { inMemory, listenLoopback, startConversations, startServer } from "../../kit/server.ts";
import { AUTHORITY, IDENTITY } from "../../kit/tls.ts";
import {
  AYT,
  bytesOf,
  DO,
  DONT,
  ECHO,
  IAC,
  IP,
  NAWS,
  NOP,
  readAll,
  SB,
  SE,
  TIMING_MARK,
  WILL,
  WONT,
} from "../../kit/telnet.ts";

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
