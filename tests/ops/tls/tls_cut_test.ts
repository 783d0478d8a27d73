import { once } from "node:events";
import net from "node:net";
import tls from "node:tls";
import { assertEquals, assertMatch } from "@std/assert";
import type { Conn } from "@x/shouty";
import { FakeClock } from "@x/shouty/testing";
import { socketsTurns, turn } from "../../../internal/time/event_loop.ts";
import { test } from "../../kit/bounded.ts";
import { AUTHORITY, startTls } from "../../kit/tls.ts";

test("Under TLS, an end that is not said may be an attack: what is unfinished is not answered", async () => {
  await using t = await startTls();
  using cable = await t.cable();
  const client = await cable.connectTls();
  await client.write("hello\nrm -rf /tmp/x");
  assertEquals(await client.readLine(), "HELLO");
  await cable.cut();
  const { reason, lines, error } = await t.closed();
  assertEquals([reason, lines], ["reset", 1]);
  assertMatch((error as Error).message, /without TLS's close_notify$/);
});

test("Under TLS, a connection that is broken off ends with reason reset", async () => {
  await using t = await startTls();
  const socket = net.connect(t.port, "127.0.0.1");
  const client = tls.connect({ socket, ca: AUTHORITY.cert, servername: "localhost" });
  client.write("hello\n");
  await once(client, "data");
  socket.resetAndDestroy();
  const { reason, error } = await t.closed();
  assertEquals(reason, "reset");
  assertEquals(error instanceof Deno.errors.ConnectionReset, true);
});

test("Under TLS, bytes that are damaged on the way end the connection, and are no line", async () => {
  await using t = await startTls();
  using cable = await t.cable();
  const client = await cable.connectTls();
  await client.write("hello\n");
  assertEquals(await client.readLine(), "HELLO");
  await cable.inject(Uint8Array.of(23, 3, 3, 0, 40, ...new Uint8Array(40)));
  const { reason, lines } = await t.closed();
  assertEquals([reason, lines], ["transport-error", 1]);
});

test("Under TLS, a shutdown with finish waits for the rest of a record that has begun, and answers its line", async () => {
  await using t = await startTls({}, { drain: "finish", answerMisdirected: true });
  using cable = await t.cable();
  const client = await cable.connectTls();
  await client.write("one\n");
  assertEquals(await client.readLine(), "ONE");
  const { passed, release } = cable.hold(10);
  await client.write("two\n");
  await passed;
  const stopped = t.server.shutdown({ drainTimeout: 10_000 });
  await t.until("waiting");
  release();
  assertEquals(await client.readAll(), "TWO\n");
  client.close();
  assertEquals((await stopped).closed, { drained: 1 });
});

test("Under TLS, a record that is left unfinished does not put off maxAge", async () => {
  const clock = new FakeClock();
  await using t = await startTls({}, { clock, maxAge: 1000, idleTimeout: Infinity });
  using cable = await t.cable();
  const client = await cable.connectTls();
  await client.write("one\n");
  assertEquals(await client.readLine(), "ONE");
  const { passed } = cable.hold(10);
  await client.write("two\n");
  await passed;
  await clock.advance(1200);
  assertEquals(await client.readAll(), "");
  client.close();
  await clock.advance(2000);
  assertEquals((await t.closed()).reason, "max-age");
});

test("Under TLS, a shutdown with finish waits for a line of a message whose record has begun, and for those behind it", async () => {
  const conversation = async (conn: Conn) => {
    await conn.write("ready\n");
    for (let line = await conn.readLine(); line !== null; line = await conn.readLine()) {
      let text = "";
      for (; line !== null && line !== "."; line = await conn.readLine({ boundary: false })) text += line;
      if (line !== null) await conn.write(`${text}\n`);
    }
  };
  await using t = await startTls({}, { drain: "finish" }, { conversation });
  using cable = await t.cable();
  const client = await cable.connectTls();
  await client.write("one,\n");
  assertEquals(await client.readLine(), "ready");
  const { passed, release } = cable.hold(10);
  await client.write("two,\n");
  await passed;
  const stopped = t.server.shutdown({ drainTimeout: 10_000 });
  await t.until("waiting");
  release();
  while (t.stats.lines < 2) await turn();
  // The server waits for the next line, of which nothing has come, for longer than it takes to end an input.
  await socketsTurns(2000);
  for (const line of ["three\n", ".\n"]) await client.write(line);
  assertEquals(await client.readAll(), "one,two,three\n");
  client.close();
  assertEquals((await stopped).closed, { drained: 1 });
});
