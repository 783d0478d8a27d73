/**
 * Reads a tar archive, as far as `deno publish` uses the format.
 *
 * @module
 */

const BLOCK = 512;

/**
 * Reads the files of an archive.
 *
 * @param archive The bytes of the archive.
 * @returns Contents by path, which begins with a slash.
 */
export async function untar(archive: ReadableStream<Uint8Array>): Promise<Map<string, Uint8Array<ArrayBuffer>>> {
  const bytes = await new Response(archive).bytes();
  const files = new Map<string, Uint8Array<ArrayBuffer>>();
  for (let at = 0; bytes[at] > 0;) {
    const header = bytes.subarray(at, at + BLOCK);
    const type = text(header, 156, 1);
    if (type !== "0" && type !== "") {
      throw new Error(`Cannot read tar entry: "${text(header, 0, 100)}" is no plain file`);
    }
    const size = parseInt(text(header, 124, 12), 8);
    const start = at + BLOCK;
    files.set(text(header, 0, 100).replace(/^(\.?\/)?/, "/"), bytes.slice(start, start + size));
    at = start + Math.ceil(size / BLOCK) * BLOCK;
  }
  return files;
}

/** A header's field, which ends at its first NUL. */
function text(header: Uint8Array, at: number, length: number): string {
  return new TextDecoder().decode(header.subarray(at, at + length)).replace(/\0[^]*$/, "");
}
