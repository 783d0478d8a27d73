/**
 * Decrypted bytes on their way to a reader.
 *
 * @module
 */

/** Puts decrypted bytes into the buffer of the outstanding read, and keeps what does not fit. */
export class Unread {
  /** The free part of the outstanding read's buffer; undefined if no read is outstanding. */
  #into: Uint8Array | undefined;
  #chunks: Uint8Array[] | undefined;
  #length = 0;

  /** Number of bytes that are kept. */
  get length(): number {
    return this.#length;
  }

  /** Lets the next bytes go into a buffer; nothing may be kept then. */
  open(into: Uint8Array): void {
    this.#into = into;
  }

  /** Lets no more bytes go into that buffer; returns how many have. */
  shut(into: Uint8Array): number {
    const left = this.#into!.length;
    this.#into = undefined;
    return into.length - left;
  }

  /** Adds bytes, which may change after the call. */
  add(bytes: Uint8Array): void {
    const into = this.#into;
    if (into === undefined || into.length < bytes.length) return this.#addPart(bytes, into);
    into.set(bytes);
    this.#into = into.subarray(bytes.length);
  }

  /** Moves kept bytes into a buffer; returns how many. */
  take(into: Uint8Array): number {
    const [chunk] = this.#chunks!;
    const part = chunk.subarray(0, into.length);
    into.set(part);
    this.#length -= part.length;
    if (part.length < chunk.length) this.#chunks![0] = chunk.subarray(part.length);
    else if (this.#chunks!.length > 1) this.#chunks!.shift();
    else this.#chunks = undefined;
    return part.length;
  }

  #addPart(bytes: Uint8Array, into: Uint8Array | undefined): void {
    const fitting = into?.length ?? 0;
    into?.set(bytes.subarray(0, fitting));
    if (into !== undefined) this.#into = into.subarray(fitting);
    (this.#chunks ??= []).push(bytes.slice(fitting));
    this.#length += bytes.length - fitting;
  }
}
