/**
 * Telnet's commands and options, and bytes that are made of them.
 *
 * @module
 */

import type { TestClient } from "@x/shouty/testing";

/** Commands. */
export const SE = 240;
export const NOP = 241;
export const IP = 244;
export const AYT = 246;
export const SB = 250;
export const WILL = 251;
export const WONT = 252;
export const DO = 253;
export const DONT = 254;
export const IAC = 255;

/** Options. */
export const ECHO = 1;
export const TIMING_MARK = 6;
export const NAWS = 31;

/** Text as UTF-8, and bytes as they are. */
export function bytesOf(...parts: (string | number)[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(
    parts.flatMap((part) => typeof part === "number" ? part : [...new TextEncoder().encode(part)]),
  );
}

/** Reads all bytes up to the end of input. */
export async function readAll(client: TestClient): Promise<number[]> {
  const all: number[] = [];
  for (let bytes = await client.read(); bytes !== null; bytes = await client.read()) all.push(...bytes);
  return all;
}
