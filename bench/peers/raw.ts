// Lines by hand on `Deno.listen`, without limits and timeouts: what Deno's own sockets take.
//
// Usage: deno run --allow-net --allow-read --allow-write raw.ts [PORT|PATH], with the path of a Unix socket.
const [LF, A, Z] = [10, 97, 122];
const [DECODER, ENCODER] = [new TextDecoder("utf-8", { ignoreBOM: true }), new TextEncoder()];

/** Upper-cases whole lines, ASCII in place. */
function shout(lines: Uint8Array): Uint8Array {
  for (let at = 0; at < lines.length; at++) {
    const byte = lines[at];
    if (byte >= 0x80) return ENCODER.encode(DECODER.decode(lines).toUpperCase());
    if (byte >= A && byte <= Z) lines[at] = byte - 32;
  }
  return lines;
}

async function serve(conn: Deno.Conn): Promise<void> {
  if ("setNoDelay" in conn) (conn as Deno.TcpConn).setNoDelay(true);
  let buffer = new Uint8Array(64 * 1024);
  // The bytes of a line that has not come whole are kept at the start of the buffer.
  let kept = 0;
  for (let count; (count = await conn.read(buffer.subarray(kept))) !== null;) {
    const end = kept + count;
    const whole = buffer.subarray(0, end).lastIndexOf(LF) + 1;
    let replies = whole > 0 ? shout(buffer.subarray(0, whole)) : buffer.subarray(0, 0);
    while (replies.length > 0) replies = replies.subarray(await conn.write(replies));
    buffer.copyWithin(0, whole, end);
    kept = end - whole;
    if (kept === buffer.length) {
      const full = buffer;
      buffer = new Uint8Array(2 * kept);
      buffer.set(full);
    }
  }
  conn.close();
}

const [where = "0"] = Deno.args;
const listener = where.includes("/")
  ? Deno.listen({ transport: "unix", path: where })
  : Deno.listen({ hostname: "127.0.0.1", port: Number(where) });
console.error(`listening on ${where.includes("/") ? where : `127.0.0.1:${(listener.addr as Deno.NetAddr).port}`}`);
for await (const conn of listener) serve(conn).catch(() => {});
