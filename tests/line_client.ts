/**
 * A client for tests: lines over a real socket.
 *
 * @module
 */

/** What takes longer than this has failed; a test that waits for ever says nothing. */
const PATIENCE_MS = 5000;

/** Fails if a promise takes too long. */
export async function soon<T>(promise: Promise<T>, what: string): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`Timed out after ${PATIENCE_MS} ms: ${what}`)), PATIENCE_MS);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Sends text, ends, and gets all that comes back. */
export async function exchange(addr: Deno.Addr, text: string | Uint8Array): Promise<string> {
  using client = await LineClient.connect(addr);
  await client.send(text);
  await client.end();
  return await client.rest();
}

/** One connection to a server. Nothing is read before it is asked for. */
export class LineClient implements Disposable {
  readonly #conn: Deno.TcpConn;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  readonly #buffer = new Uint8Array(256 * 1024);
  #text = "";

  constructor(conn: Deno.TcpConn) {
    this.#conn = conn;
  }

  static async connect(addr: Deno.Addr): Promise<LineClient> {
    return new LineClient(await Deno.connect({ ...addr as Deno.NetAddr, transport: "tcp" }));
  }

  /** Sends text, or bytes, as they are. */
  async send(data: string | Uint8Array): Promise<void> {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    for (let sent = 0; sent < bytes.length;) sent += await this.#conn.write(bytes.subarray(sent));
  }

  /** Ends this side. */
  async end(): Promise<void> {
    await this.#conn.closeWrite();
  }

  /** The next line without its LF, or `undefined` when there will be none. */
  async line(): Promise<string | undefined> {
    for (;;) {
      const end = this.#text.indexOf("\n");
      if (end >= 0) {
        const line = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 1);
        return line;
      }
      if (!await this.#more()) return undefined;
    }
  }

  /** So many lines. */
  async lines(count: number): Promise<(string | undefined)[]> {
    const lines = [];
    while (lines.length < count) lines.push(await this.line());
    return lines;
  }

  /** Everything up to the end. */
  async rest(): Promise<string> {
    while (await this.#more());
    return this.#text;
  }

  close(): void {
    this.#conn.close();
  }

  [Symbol.dispose](): void {
    this.#conn[Symbol.dispose]();
  }

  async #more(): Promise<boolean> {
    const count = await soon(this.#conn.read(this.#buffer), `more than ${JSON.stringify(this.#text.slice(-80))}`);
    if (count === null) return false;
    this.#text += this.#decoder.decode(this.#buffer.subarray(0, count), { stream: true });
    return true;
  }
}
