// The guides say which holes these two programs have. What they say is true only as long as these tests pass.
import { assertEquals, assertLess, assertMatch } from "@std/assert";
import { connect } from "node:net";
import { test } from "../../kit/bounded.ts";
import { type Outcome, Subprocess } from "../../kit/command.ts";

const BY_HAND = ["bench/peers/by_hand.ts", "bench/peers/by_hand.mjs"];

function start(program: string): Subprocess {
  return new Subprocess(Deno.execPath(), ["run", "--allow-net", program, "0"]);
}

async function portOf(server: Subprocess): Promise<number> {
  const [, port] = await server.stdoutMatch(/listening on \S+:(\d+)/);
  return Number(port);
}

/** Sends text and the end of input, and returns how many bytes of replies have come when the connection ends. */
async function replyBytes(server: Subprocess, text: string): Promise<number> {
  const socket = connect({ port: await portOf(server), host: "127.0.0.1", allowHalfOpen: true });
  const closed = Promise.withResolvers<void>();
  let bytes = 0;
  socket.on("data", (chunk: Uint8Array) => bytes += chunk.length);
  socket.on("error", () => {});
  socket.on("end", () => socket.destroy());
  socket.on("close", () => closed.resolve());
  socket.end(text);
  await closed.promise;
  return bytes;
}

/** Resets a connection, once its first reply has come. */
async function reset(server: Subprocess): Promise<Outcome> {
  const socket = connect(await portOf(server), "127.0.0.1", () => socket.write("hello\n"));
  socket.on("data", () => socket.resetAndDestroy());
  return await server.outcome();
}

for (const program of BY_HAND) {
  test(`${program} gives no reply to an unterminated last line`, async () => {
    await using server = start(program);
    assertEquals(await replyBytes(server, "one\ntwo"), 4);
  });

  test(`${program} ends as a whole when one client resets its connection`, async () => {
    await using server = start(program);
    const { code, stderr } = await reset(server);
    assertEquals(code, 1);
    assertMatch(stderr, /ECONNRESET|Connection reset/);
  });
}

test("bench/peers/by_hand.ts loses replies, and ends as a whole, when a client ends its side before it has them", async () => {
  await using server = start("bench/peers/by_hand.ts");
  assertLess(await replyBytes(server, "a\n".repeat(20_000)), 40_000);
  const { code, stderr } = await server.outcome();
  assertEquals(code, 1);
  assertMatch(stderr, /Interrupted|BadResource|closed/);
});

test("bench/peers/by_hand.mjs breaks a character that comes in two pieces", async () => {
  await using server = start("bench/peers/by_hand.mjs");
  const [first, second] = [new Uint8Array([0xc3]), new Uint8Array([0xa9, 10])];
  using conn = await Deno.connect({ port: await portOf(server) });
  conn.setNoDelay(true);
  // The reply to a whole line shows that the server has read what came before the next piece.
  await conn.write(new Uint8Array([...new TextEncoder().encode("a\n"), ...first]));
  const buffer = new Uint8Array(64);
  assertEquals(await conn.read(buffer), 2);
  await conn.write(second);
  const bytes = await conn.read(buffer) ?? 0;
  assertEquals(new TextDecoder().decode(buffer.subarray(0, bytes)), "\ufffd\ufffd\n");
});

test("node:net loses a reply that is made after the client has ended its side", async () => {
  const late = `
    import net from "node:net";
    const server = net.createServer((socket) => {
      socket.on("error", () => {});
      socket.on("data", () => setTimeout(() => socket.write("late"), 200));
    });
    server.listen(0, "127.0.0.1", () => console.log("listening on 127.0.0.1:" + server.address().port));`;
  await using server = new Subprocess(Deno.execPath(), ["eval", late]);
  assertEquals(await replyBytes(server, "hello\n"), 0);
});
