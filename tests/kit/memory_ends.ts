/**
 * Both ends of a connection in memory.
 *
 * @module
 */

import type { Transport } from "@x/shouty";
import { MemoryListener, type TestClient } from "@x/shouty/testing";

/** Both ends of a connection. */
export async function connect(bufferBytes?: number): Promise<[TestClient, Transport]> {
  const listener = new MemoryListener({ bufferBytes });
  const client = listener.connect();
  return [client, await listener.accept()];
}

/** Bytes as text. */
export function text(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

/** Reads once; returns the text, or null at the end. */
export async function readText(end: Transport, size = 100): Promise<string | null> {
  const buffer = new Uint8Array(size);
  const count = await end.read(buffer);
  return count === null ? null : text(buffer.subarray(0, count));
}
