/**
 * An outbox under test, and the kernel that it writes to.
 *
 * @module
 */

import { Outbox } from "../../internal/io/outbox.ts";

/** A transport that takes a limited number of bytes per write, and only while it is open; it records every write. */
export class Kernel {
  readonly taken: Uint8Array[] = [];
  /** The size of the buffer of each write. */
  readonly rooms: number[] = [];
  readonly blocks: number[] = [];
  failed: unknown;
  /** Called when a write has failed. */
  failing: () => void = () => {};
  calls = 0;
  #most: number;
  #gate = Promise.withResolvers<void>();
  #blockBytes = 0;

  constructor(most: number = Infinity, open = true) {
    this.#most = most;
    if (open) this.open();
  }

  get text(): string {
    return new TextDecoder().decode(this.bytes);
  }

  get bytes(): Uint8Array {
    return new Uint8Array(this.taken.flatMap((part) => [...part]));
  }

  open(): void {
    this.#gate.resolve();
  }

  shut(): void {
    this.#gate = Promise.withResolvers();
  }

  async write(bytes: Uint8Array): Promise<number> {
    this.calls++;
    await this.#gate.promise;
    this.rooms.push(bytes.buffer.byteLength);
    this.taken.push(bytes.slice(0, this.#most));
    const { length } = this.taken.at(-1)!;
    this.#blockBytes += length;
    return length;
  }

  closeWrite(): Promise<void> {
    return Promise.resolve();
  }

  writing(): void {}

  grown(): void {}

  wrote(): void {
    this.blocks.push(this.#blockBytes);
    this.#blockBytes = 0;
  }

  /** The bytes of output that `holdOutput` was last told. */
  output = 0;

  stuck = false;

  holdOutput(bytes: number): void {
    this.output = bytes;
  }
}

/** Makes an outbox for a kernel, which also stands for its clocks and its memory. */
export function outboxTo(kernel: Kernel): Outbox {
  const failed = (error: unknown) => {
    kernel.failed = error;
    kernel.failing();
  };
  const owner = { failed, abort() {} };
  return new Outbox(kernel, kernel, kernel, owner);
}
