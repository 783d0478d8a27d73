// The obvious server in Deno: a pipeline of web streams per connection, without limits and timeouts.
//
// Usage: deno run --allow-net naive.ts [PORT]
import { TextLineStream } from "@std/streams";

function shout(): TransformStream<string, string> {
  return new TransformStream({
    transform(line, controller) {
      controller.enqueue(line.toUpperCase() + "\n");
    },
  });
}

const listener = Deno.listen({ hostname: "127.0.0.1", port: Number(Deno.args[0] ?? 0) });
console.error(`listening on 127.0.0.1:${listener.addr.port}`);

for await (const conn of listener) {
  conn.setNoDelay(true); // without it, Nagle holds the second of two small replies for 40 ms
  conn.readable
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new TextLineStream())
    .pipeThrough(shout())
    .pipeThrough(new TextEncoderStream())
    .pipeTo(conn.writable)
    .catch(() => {}); // a lost connection ends only its own pipeline
}
