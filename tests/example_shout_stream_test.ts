import { assertEquals } from "@std/assert";
import { serveShouts } from "../examples/shout_stream.ts";
import { exchange } from "./line_client.ts";

Deno.test("shout_stream shouts every line, the unterminated last one too", async () => {
  await using server = serveShouts({ port: 0 });
  const replies = await exchange(server.addr, "Hello. How are you?\r\n\nstraße\nbye");
  assertEquals(replies, "HELLO. HOW ARE YOU?\n\nSTRASSE\nBYE\n");
});

Deno.test("shout_stream tells a client whose line is too long", async () => {
  await using server = serveShouts({ port: 0, maxLineBytes: 5 });
  const replies = await exchange(server.addr, "short\nlonger\nlost\n");
  assertEquals(replies, "SHORT\nerror: line longer than 5 bytes\n");
  assertEquals(server.stats().closed["line-too-long"], 1);
});
