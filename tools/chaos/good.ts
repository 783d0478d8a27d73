/**
 * Good clients: each sends a line, waits for the reply, checks every byte of it, and pauses.
 *
 * @module
 */

/** A reply that came. */
export interface Reply {
  /** When its line was sent, in milliseconds since the epoch. */
  readonly at: number;
  /** How many milliseconds it took. */
  readonly took: number;
}

/** What the good clients have seen. */
export interface Experience {
  replies: Reply[];
  /** What went wrong, one text per client that lost a reply. */
  losses: string[];
}

const THINK_MS = 100;

/** Maximum time of a reply in milliseconds; a later one counts as lost. */
const PATIENCE_MS = 10_000;

/** Runs `count` good clients for some seconds. */
export async function talk(port: number, count: number, seconds: number): Promise<Experience> {
  const experience: Experience = { replies: [], losses: [] };
  const until = performance.now() + 1000 * seconds;
  await Promise.all(Array.from({ length: count }, (_, i) => talkAlone(i, port, until, experience)));
  return experience;
}

async function talkAlone(i: number, port: number, until: number, { replies, losses }: Experience): Promise<void> {
  try {
    using conn = await Deno.connect({ hostname: "127.0.0.1", port });
    conn.setNoDelay(true);
    await think();
    for (let round = 0; performance.now() < until; round++) {
      const line = `client ${i}, round ${round}, ${"ab".repeat(round % 50)}\n`;
      const start = performance.now();
      const reply = await ask(conn, line);
      replies.push({ at: performance.timeOrigin + start, took: performance.now() - start });
      if (reply !== line.toUpperCase()) throw new Error(`got ${JSON.stringify(reply)} for ${JSON.stringify(line)}`);
      await think();
    }
  } catch (error) {
    losses.push(`client ${i}: ${error instanceof Error ? error.message : error}`);
  }
}

function think(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, THINK_MS * 2 * Math.random()));
}

/** Sends a line, and reads its reply, which is as long. */
async function ask(conn: Deno.Conn, line: string): Promise<string> {
  const timer = setTimeout(() => conn.close(), PATIENCE_MS);
  try {
    const bytes = new TextEncoder().encode(line);
    for (let sent = 0; sent < bytes.length;) sent += await conn.write(bytes.subarray(sent));
    const reply = new Uint8Array(bytes.length);
    for (let got = 0; got < reply.length;) {
      const count = await conn.read(reply.subarray(got));
      if (count === null) throw new Error("the server closed the connection");
      got += count;
    }
    return new TextDecoder().decode(reply);
  } finally {
    clearTimeout(timer);
  }
}
