// What one writes first with `Deno.listen`: each line comes back in upper case.
const listener = Deno.listen({ hostname: "127.0.0.1", port: Number(Deno.args[0] ?? 8080) });
console.log(`listening on 127.0.0.1:${listener.addr.port}`);
for await (const conn of listener) serve(conn);

async function serve(conn: Deno.Conn) {
  const encoder = new TextEncoder();
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of conn.readable) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop()!;
    for (const line of lines) conn.write(encoder.encode(line.toUpperCase() + "\n"));
  }
}
