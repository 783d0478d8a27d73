import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { Buffer } from "node:buffer";
import { serve } from "@x/shouty";
import { formatTrace, listenTls, proxyProtocol, type TraceEntry, type TraceOptions, withTrace } from "@x/shouty/ops";
import { MemoryListener, TestClient } from "@x/shouty/testing";
import { test } from "../../kit/bounded.ts";
import { faulty, tapped } from "../../kit/faults.ts";
import { inMemory, listenLoopback, startServer } from "../../kit/server.ts";
import { AUTHORITY, IDENTITY, startTls } from "../../kit/tls.ts";

/** Collects the entries of a trace, and each as a line without its number and address. */
function record(options: Partial<TraceOptions> = {}) {
  const entries: TraceEntry[] = [];
  const write = (entry: TraceEntry) => void entries.push(entry);
  return {
    entries,
    options: { write, ...options },
    get lines() {
      return entries.map((entry) => formatTrace(entry).replace(/^\d+ \S+ /, ""));
    },
  };
}

/** Sends bytes to a traced server in memory, and reads its replies to the end. */
async function talk(trace: ReturnType<typeof record>, sent: string | Uint8Array): Promise<string> {
  const { listener } = inMemory();
  await using _ = startServer({ listener: withTrace(listener, trace.options) });
  using client = listener.connect();
  await client.write(sent);
  await client.closeWrite();
  return await client.readAll();
}

test("A trace has each read and write, and how the connection began and ended", async () => {
  const trace = record();
  assertEquals(await talk(trace, "hello\r\n"), "HELLO\n");
  assertEquals(trace.lines, [
    ...["open", String.raw`read 7 bytes "hello\r\n"`, String.raw`write 6 bytes "HELLO\n"`],
    ...["end", "close"],
  ]);
  const [{ id, remoteAddr }] = trace.entries;
  assertEquals(trace.entries.every((entry) => entry.id === id && entry.remoteAddr === remoteAddr), true);
  assertMatch(formatTrace(trace.entries[0]), /^\d+ 127\.0\.0\.1:\d+ open$/);
});

test("Whatever bytes a client sends, the trace shows them on one line of printable ASCII", async () => {
  const trace = record({ maxShownBytes: Infinity });
  await talk(trace, Uint8Array.from({ length: 256 }, (_, byte) => byte));
  const text = trace.entries.filter(({ type }) => type === "read").map(({ text }) => text).join("");
  assertMatch(text, /^[ -~]+$/);
  const bytes = text.replaceAll(/\\x(..)|\\(.)|[^\\]/g, (all, hex, named) => {
    const byte = hex ? parseInt(hex, 16) : (named ? { t: "\t", n: "\n", r: "\r" }[named as string] ?? named : all)
      .charCodeAt(0);
    return `${byte},`;
  });
  assertEquals(bytes, Array.from({ length: 256 }, (_, byte) => `${byte},`).join(""));
  const unsafe = record();
  await talk(unsafe, "\x1b[31m\u202e\u2028\u061c\n");
  assertEquals(unsafe.lines[1], String.raw`read 14 bytes "\x1b[31m\xe2\x80\xae\xe2\x80\xa8\xd8\x9c\n"`);
});

test("A trace shows the first bytes of a long read, and says how many it leaves out", async () => {
  const trace = record({ maxShownBytes: 4 });
  await talk(trace, "abcdefgh\n");
  assertEquals(trace.lines[1], 'read 9 bytes "abcd" and 5 more');
  assertEquals([trace.entries[1].text, trace.entries[1].leftOut, trace.entries[1].bytes], ["abcd", 5, 9]);
});

test("The hook decides what may be shown, gets all bytes, and cannot change what is served", async () => {
  const seen: [string, string][] = [];
  const redact: TraceOptions["redact"] = (bytes, { type, text }) => {
    seen.push([type + text, new TextDecoder().decode(bytes)]);
    bytes.fill(120);
    return type === "read" ? "" : bytes.subarray(0, 3);
  };
  const trace = record({ redact, maxShownBytes: 2 });
  assertEquals(await talk(trace, "a secret\n"), "A SECRET\n");
  assertEquals(seen, [["read", "a secret\n"], ["write", "A SECRET\n"]]);
  assertEquals(trace.lines.slice(1, 3), ['read 9 bytes ""', 'write 9 bytes "xx" and 1 more']);
});

test("The hook cannot change the bytes of what is written, also if they are a Buffer's", async () => {
  const { listener } = inMemory();
  const trace = record({ redact: (bytes) => bytes.fill(120) });
  using _client = listener.connect();
  const transport = await withTrace(listener, trace.options).accept();
  const bytes = Buffer.from("a secret\n");
  await transport.write(bytes);
  assertEquals([trace.lines[1], `${bytes}`], ['write 9 bytes "xxxxxxxxx"', "a secret\n"]);
  transport.close();
  listener.close();
});

test("A hook that throws shows nothing, and neither that nor a full disk ends the connection", async () => {
  const fail = () => {
    throw new Error("a bug");
  };
  const trace = record({ redact: fail });
  assertEquals(await talk(trace, "a secret\n"), "A SECRET\n");
  assertEquals(trace.lines.slice(1, 3), ['read 9 bytes "[redact failed]"', 'write 9 bytes "[redact failed]"']);
  assertEquals(await talk(record({ write: fail }), "hello\n"), "HELLO\n");
  // An async hook fails when nothing waits for it any more.
  const later = async () => await Promise.reject(new Error("a bug"));
  const async = record({ redact: later as never });
  assertEquals(await talk(async, "a secret\n"), "A SECRET\n");
  assertEquals(async.lines[1], 'read 9 bytes "[redact failed]"');
  assertEquals(await talk(record({ write: later }), "hello\n"), "HELLO\n");
});

test("An error of a read is in the trace, on one line", async () => {
  const { listener } = inMemory();
  const trace = record();
  const error = new Deno.errors.ConnectionReset("cut\noff\u202e");
  const broken = faulty(listener, { fail: (method, call) => method === "read" && call === 2 ? error : undefined });
  {
    await using server = startServer({ listener: withTrace(broken, trace.options) });
    using client = listener.connect();
    await client.write("hello\n");
    await server.closed(1);
  }
  assertEquals(trace.lines.includes(String.raw`error: cut\u000aoff\u202e`), true, trace.lines.join("\n"));
});

test("An end of this side and a reset are in the trace", async () => {
  const trace = record();
  const memory = new MemoryListener();
  const calls: string[] = [];
  const listener = withTrace(tapped(memory, () => ({ reset: () => void calls.push("reset") })), trace.options);
  using client = memory.connect();
  const transport = await listener.accept();
  await transport.closeWrite();
  assertEquals(await client.readAll(), "");
  transport.reset!();
  assertEquals([calls, trace.lines], [["reset"], ["open", "close-write", "reset"]]);
  await listener.close();
});

test("Around TLS a trace has what the handler gets, and the connection is still known as encrypted", async () => {
  const [outside, inside] = [record(), record()];
  const memory = listenLoopback();
  {
    await using server = await startTls({ listener: withTrace(memory, inside.options) });
    assertEquals(await server.talkTls("hello\n"), "HELLO\n");
  }
  assertEquals(inside.lines.some((line) => line.includes("hello")), false);
  assertMatch(inside.lines[1], /^read \d+ bytes "\\x16\\x03/);
  const tcp = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = tcp.addr;
  const listener = withTrace(await listenTls({ listener: tcp, ...IDENTITY }), outside.options);
  await using _ = serve({ listener }, (line, conn) => `${line} ${conn.tls?.version}`);
  using client = new TestClient(await Deno.connectTls({ port, caCerts: [AUTHORITY.cert] }));
  await client.write("hello\n");
  assertEquals(await client.readLine(), "hello TLSv1.3");
  assertEquals(outside.lines.slice(0, 2), ["open", String.raw`read 6 bytes "hello\n"`]);
});

test("Around the PROXY protocol a trace has the client's address, and within it the header", async () => {
  const [outside, inside] = [record(), record()];
  const { listener } = inMemory();
  const proxied = proxyProtocol(withTrace(listener, inside.options), { from: "127.0.0.1" });
  await using _ = startServer({ listener: withTrace(proxied, outside.options) });
  using client = listener.connect();
  await client.write("PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\nhello\n");
  assertEquals(await client.readLine(), "HELLO");
  assertMatch(formatTrace(outside.entries[1]), /^\d+ 192\.0\.2\.7:56324 read 6 bytes "hello\\n"$/);
  assertMatch(formatTrace(inside.entries[1]), /^\d+ 127\.0\.0\.1:\d+ read 48 bytes "PROXY TCP4 192/);
});

test("Numbers are different over all traces of a process", async () => {
  const traces = [record(), record()];
  for (const trace of traces) await talk(trace, "hello\n");
  const [first, second] = traces.map(({ entries }) => entries[0].id);
  assertEquals(second, first + 1);
});

test("Options of a trace that are wrong are named", () => {
  const listener = new MemoryListener();
  const write = () => {};
  const says = (options: unknown, message: string) => {
    assertThrows(() => withTrace(listener, options as TraceOptions), Error, message);
  };
  says(undefined, "Cannot use withTrace options");
  says({}, "Cannot use write");
  says({ write, redact: "all" }, "Cannot use redact");
  says({ write, maxShownBytes: -1 }, "Cannot use maxShownBytes -1: expected a whole number of at least 0, or Infinity");
  assertThrows(() => withTrace({} as never, { write }), TypeError, "Cannot use listener");
});

test("An error that is no text leaves a traced connection its own error", async () => {
  const odd = Object.create(null);
  const { listener } = inMemory();
  const failing = tapped(listener, () => ({ read: () => Promise.reject(odd) }));
  const trace = record();
  await using t = startServer({ listener: withTrace(failing, trace.options) });
  using _client = listener.connect();
  const { reason, error } = await t.closed();
  assertEquals([reason, error === odd], ["transport-error", true]);
});
