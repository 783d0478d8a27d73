import { assertEquals } from "@std/assert";
import { serveShouts } from "../../examples/shout_stream.ts";
import { test } from "../kit/bounded.ts";
import { TestServer } from "../kit/server.ts";

test("shout_stream shouts every line, the unterminated last one too", async () => {
  await using t = new TestServer(serveShouts, {});
  const replies = await t.talk("Hello. How are you?\r\n\nstraße\nbye");
  assertEquals(replies, "HELLO. HOW ARE YOU?\n\nSTRASSE\nBYE\n");
});

test("shout_stream tells a client whose line is too long", async () => {
  await using t = new TestServer(serveShouts, { maxLineBytes: 5 });
  assertEquals(await t.talk("short\nlonger\nlost\n"), "SHORT\nerror: line longer than 5 bytes\n");
  assertEquals((await t.closed()).reason, "line-too-long");
});
