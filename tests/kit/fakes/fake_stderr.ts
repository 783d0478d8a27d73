/** A stderr in memory, for the tests of the log. */

/** What a line of the format `text` begins with. */
export const TIME: RegExp = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z /;

/** A stderr whose writes can wait or fail. */
export class FakeStderr {
  text: string = "";
  calls: number = 0;
  /** Called for each write; resolves to the number of bytes that are written, or throws. */
  behave: (bytes: Uint8Array) => Promise<number> = (bytes) => Promise.resolve(bytes.length);
  #next = Promise.withResolvers<void>();

  async write(bytes: Uint8Array): Promise<number> {
    this.calls++;
    this.#next.resolve();
    this.#next = Promise.withResolvers();
    const count = await this.behave(bytes);
    this.text += new TextDecoder().decode(bytes.subarray(0, count));
    return count;
  }

  get lines(): string[] {
    return this.text.trimEnd().split("\n").map((line) => line.replace(TIME, ""));
  }

  /** Settles at the next write. */
  get written(): Promise<void> {
    return this.#next.promise;
  }
}
