import { assertEquals } from "@std/assert";
import { Backoff } from "../../../internal/server/acceptor.ts";
import { test } from "../../kit/bounded.ts";

const { NotConnected, ConnectionReset, ConnectionAborted } = Deno.errors;

test("Backoff doubles from 5 ms to 1 s, and starts again at 5 ms after a success", () => {
  const backoff = new Backoff();
  const delays = () => Array.from({ length: 10 }, () => backoff.next(new Error("EMFILE")));
  assertEquals(delays(), [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
  backoff.reset();
  assertEquals(delays()[0], 5);
});

test("Backoff does not wait after an error of one peer", () => {
  const backoff = new Backoff();
  for (const kind of [NotConnected, ConnectionReset, ConnectionAborted]) assertEquals(backoff.next(new kind()), 0);
});

test("Backoff makes a short pause after a hundred errors of peers in a row, and never a longer one", () => {
  const backoff = new Backoff();
  const delays = Array.from({ length: 1000 }, () => backoff.next(new NotConnected()));
  assertEquals(delays.slice(98, 101), [0, 5, 0]);
  assertEquals(delays.reduce((sum, delay) => sum + delay), 50);
  for (let i = 0; i < 99; i++) backoff.next(new NotConnected());
  backoff.reset();
  assertEquals(backoff.next(new NotConnected()), 0, "They are in a row no longer");
});
