// GET and SET of Redis by hand on `Deno.listen`: no limits and no timeouts, commands in arrays alone.
//
// Usage: deno run --allow-net redis_raw.ts [PORT]
import { Commands } from "./resp.mjs";

const listener = Deno.listen({ hostname: "127.0.0.1", port: Number(Deno.args[0] ?? 0) });
console.error(`listening on 127.0.0.1:${listener.addr.port}`);

async function serve(conn: Deno.TcpConn): Promise<void> {
  conn.setNoDelay(true);
  const commands = new Commands();
  const encoder = new TextEncoder();
  const buffer = new Uint8Array(64 * 1024);
  for (let count; (count = await conn.read(buffer)) !== null;) {
    let rest = encoder.encode(commands.answer(buffer.subarray(0, count)));
    while (rest.length > 0) rest = rest.subarray(await conn.write(rest));
  }
  conn.close();
}

for await (const conn of listener) serve(conn).catch(() => {});
