/**
 * The redis of the examples under test.
 *
 * @module
 */

import type { ServeOptions, Server } from "@x/shouty";
import type { TestClient } from "@x/shouty/testing";
import { serveRedis } from "../../examples/redis.ts";
import { TestServer } from "./server.ts";

/** Starts a redis; without options on a free port of the loopback. */
export function start(options: ServeOptions = {}): TestServer {
  return new TestServer((options): Server => serveRedis(options), options);
}

/** A command as an array of bulk strings. */
export function encode(...words: string[]): string {
  return `*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join("")}`;
}

/** Sends text; returns the lines that come back, without the character that says what they are. */
export async function ask(client: TestClient, text: string, lines: number): Promise<string> {
  await client.write(text);
  const replies = await Array.fromAsync({ length: lines }, () => client.readLine());
  return replies.map((line) => line!.replace(/^[*$:+-]/, "").replace(/\r$/, "")).join();
}
